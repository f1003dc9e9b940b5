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
above "the start took less than all of it" $((1048576 - $(in_cgroup tiny memory.peak))) 0
check "exec works in it" rt exec tiny true
is "and killed nothing" "$(in_cgroup tiny memory.events | field oom_kill)" 0
delete tiny
is "run gives the exit code" "$(config "$WORK/tiny" '.process.args = ["sh", "-c", "exit 7"]'; foreground tiny "$WORK/tiny"; echo $?)" 7
MANAGER=(--systemd-cgroup)
config "$WORK/tiny" '.process.args = ["sleep", "1000"] | .linux.cgroupsPath = "test.slice:pre:tiny"'
check "with systemd, too" start scope "$WORK/tiny"
is "the limit is there" "$(in_cgroup scope memory.max)" 1048576
check "and exec works" rt exec scope true

done_testing
