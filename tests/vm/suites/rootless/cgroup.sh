#!/bin/bash
# rootless: in a delegated cgroup limits work.
. /locule/tests/vm/lib/common.sh

as_user_file
# A cgroup with limits below it must hold no process itself.
own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$own/test-shell"
echo $$ >"$own/test-shell/cgroup.procs"
make_bundle "$WORK/limited"
config "$WORK/limited" '.linux.cgroupsPath = $path | .linux.resources = {memory: {limit: 67108864}, pids: {limit: 40}}' \
    --arg path "${own#/sys/fs/cgroup}/limited"
check "a container starts in a delegated cgroup" start limited "$WORK/limited"
is "it is where it was asked for" "$(cgroup_of limited)" "$own/limited"
is "with its limits" "$(in_cgroup limited memory.max) $(in_cgroup limited pids.max)" "67108864 40"
check "update" rt update --pids-limit 30 limited
is "is written" "$(in_cgroup limited pids.max)" 30
check "pause" rt pause limited
check "resume" rt resume limited
check "delete --force" rt delete --force limited
is "leaves no cgroup" "$(ls -d "$own/limited" 2>/dev/null)" ""

done_testing
