#!/bin/bash
# unified: any file of the cgroup, written last, and only there.
. /locule/tests/vm/lib/common.sh

make_bundle "$WORK/unified"
config "$WORK/unified" '.linux.resources.pids = {limit: 20}
    | .linux.resources.unified = {"memory.high": "10485760", "memory.oom.group": "1", "pids.max": "16"}'
check "a container with unified resources starts" start unified "$WORK/unified"
is "a file that has no field of its own" "$(in_cgroup unified memory.high)" 10485760
is "another" "$(in_cgroup unified memory.oom.group)" 1
is "unified wins over the field" "$(in_cgroup unified pids.max)" 16
delete unified

config "$WORK/unified" '.linux.resources = {unified: {"memory.nonsense": "1"}}'
refused "an unknown file is refused" "memory.nonsense" start nonsense "$WORK/unified"
config "$WORK/unified" '.linux.resources = {unified: {"../../cgroup.max.depth": "1"}}'
refused "a path is refused" "cgroup.max.depth" start path "$WORK/unified"
config "$WORK/unified" '.linux.resources = {unified: {"nonsense.max": "1"}}'
refused "an unknown controller is refused" "nonsense" start controller "$WORK/unified"
check "nothing is left of them" gone nonsense
if lacks crun; then
    skip "and no cgroup" "it leaves one"
else
    is "and no cgroup" "$(ls -d /sys/fs/cgroup/test/unified 2>/dev/null)" ""
fi

done_testing
