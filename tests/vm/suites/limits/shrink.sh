#!/bin/bash
# update: memory below what is in use is refused or reclaimed, and never kills.
. /locule/tests/vm/lib/common.sh

make_bundle "$WORK/shrink" sh -c 'dd if=/dev/zero of=/dev/shm/full bs=1M count=40 2>/dev/null; exec sleep 1000'
config "$WORK/shrink" '.linux.resources.memory = {limit: 134217728}'
check "a container starts" start shrink "$WORK/shrink"
full() { [ "$(in_cgroup shrink memory.stat | field shmem)" -ge 41943040 ]; }
check "it holds 40 MiB that cannot be reclaimed" eventually full

asked() { rt update --resources - shrink <<<'{"memory": {"limit": 10485760, "checkBeforeUpdate": true}}'; }
if lacks runc; then
    skip "checkBeforeUpdate refuses" "newer than this release"
    skip "and changes nothing" "newer than this release"
else
    refused "checkBeforeUpdate refuses" "memory" asked
    is "and changes nothing" "$(in_cgroup shrink memory.max)" 134217728
fi
if is_locule; then
    refused "without it, what did not take is an error" "memory" rt update --memory 10485760 shrink
    is "the old limit is back" "$(in_cgroup shrink memory.max) $(in_cgroup shrink memory.high)" "134217728 max"
    is "nothing was killed" "$(in_cgroup shrink memory.events | field oom_kill)" 0
    is "it still runs" "$(status_of shrink)" running
fi
check "a limit above the use is taken" rt update --memory 83886080 shrink
is "it is written" "$(in_cgroup shrink memory.max)" 83886080
is "it runs on" "$(status_of shrink)" running

done_testing
