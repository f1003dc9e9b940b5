#!/bin/bash
# memory: a container whose whole limit is one MiB starts (the runtime itself must not need it).
. /locule/tests/vm/lib/common.sh

! lacks runc || skip_all "its own init needs more than that"
make_bundle "$WORK/tiny"
config "$WORK/tiny" '.linux.resources.memory = {limit: 1048576}'
check "1 MiB is enough to start" start tiny "$WORK/tiny"
is "it runs" "$(status_of tiny)" running
is "the limit is what was asked for" "$(in_cgroup tiny memory.max)" 1048576
is "nothing was killed on the way" "$(in_cgroup tiny memory.events | field oom_kill)" 0

done_testing
