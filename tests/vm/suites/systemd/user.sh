#!/bin/bash
# --systemd-cgroup as a user: the scope comes from the user's own systemd.
. /locule/tests/vm/lib/common.sh

as_user_file
MANAGER=(--systemd-cgroup)
property() { systemctl --user show --value -p "$2" "$1"; }
unit_gone() { [ "$(property "$1" LoadState)" = not-found ]; }
is "this runs as the user" "$(id -un)" user
make_bundle "$WORK/mine"
config "$WORK/mine" '.linux.cgroupsPath = "user.slice:pre:mine"
    | .linux.resources = {memory: {limit: 67108864}, pids: {limit: 40}}'
check "a container starts" start mine "$WORK/mine"
unit=pre-mine.scope
is "its scope is active" "$(property $unit ActiveState)" active
is "MemoryMax" "$(property $unit MemoryMax)" 67108864
is "the kernel has the limits" "$(in_cgroup mine memory.max) $(in_cgroup mine pids.max)" "67108864 40"
like "below the user's manager" "$(cgroup_of mine)" "/user@1000.service/user.slice/$unit"
check "exec" rt exec mine true
check "update" rt update --memory 50331648 mine
is "the new limit is there" "$(in_cgroup mine memory.max)" 50331648
check "pause" rt pause mine
is "state is paused" "$(status_of mine)" paused
check "resume" rt resume mine
check "kill" rt kill mine KILL
check "it stops" eventually has_status mine stopped
check "delete" rt delete mine
check "the scope is gone" eventually unit_gone $unit

done_testing
