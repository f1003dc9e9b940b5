#!/bin/bash
# An init that moves into a cgroup of its own and shares out controllers, as systemd does in a
# container: the upper cgroup takes no process any more, and every verb still works.
. /locule/tests/vm/lib/common.sh

move='mkdir /sys/fs/cgroup/init.scope && echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs &&
    echo "+memory +pids" >/sys/fs/cgroup/cgroup.subtree_control; exec sleep 1000'
moved() { grep -q '^0::.*/init.scope$' "/proc/$(pid_of "$1")/cgroup"; }
shares() { [ "$(cat "$(cgroup_of "$1")/../cgroup.subtree_control")" = "memory pids" ]; }

# What stays must not keep the pipe of check.
detached() { rt exec --detach "$1" sleep 1000 </dev/null >/dev/null 2>&1; }

life() {
    local id=$1 b=$WORK/$1 cgroup
    check "$id: a container starts" start "$id" "$b"
    check "$id: its init moves" eventually moved "$id"
    check "$id: and shares out controllers" eventually shares "$id"
    cgroup=$(dirname "$(cgroup_of "$id")")
    is "$id: exec lands beside init" "$(rt exec "$id" cat /proc/self/cgroup)" "0::/init.scope"
    check "$id: exec --detach" detached "$id"
    if ! lacks crun; then
        is "$id: ps finds what is below" "$(rt ps --format json "$id" | jq length)" 2
    fi
    check "$id: update" rt update --pids-limit 30 "$id"
    is "$id: of the container's cgroup" "$(cat "$cgroup/pids.max")" 30
    check "$id: pause" rt pause "$id"
    is "$id: freezes what is below" "$(field frozen <"$cgroup/init.scope/cgroup.events")" 1
    check "$id: resume" rt resume "$id"
    if ! lacks crun; then
        is "$id: statistics count what is below" "$(rt events --stats "$id" | jq .data.pids.current)" 2
    fi
    check "$id: kill" rt kill "$id" KILL
    check "$id: it stops" eventually has_status "$id" stopped
    check "$id: delete" rt delete "$id"
    is "$id: leaves no cgroup" "$(ls -d "$cgroup" 2>/dev/null)" ""
}

nested() {
    make_bundle "$WORK/$1" sh -c "$move"
    config "$WORK/$1" '.linux.cgroupsPath = $path | (.mounts[] | select(.type == "cgroup") | .options) -= ["ro"]
        | .linux.namespaces |= (map(select(.type != "cgroup")) + [{type: "cgroup"}])' --arg path "$2"
}
nested fs /test/nested
life fs
MANAGER=(--systemd-cgroup)
nested scope test.slice:pre:nested
life scope

# Between the two steps of systemd: a process that enters then would keep it from the second.
make_bundle "$WORK/between" sh -c 'cd /sys/fs/cgroup && mkdir init.scope && echo 1 >init.scope/cgroup.procs && exec sleep 1000'
config "$WORK/between" '.linux.cgroupsPath = "/test/between" | (.mounts[] | select(.type == "cgroup") | .options) -= ["ro"]
    | .linux.namespaces |= (map(select(.type != "cgroup")) + [{type: "cgroup"}])'
MANAGER=()
check "an init moves, and shares nothing out" start between "$WORK/between"
check "it has moved" eventually moved between
if ! lacks crun runc; then
    check "who enters is beside it" detached between
    check "and in no way of what it shares out" rt exec between sh -c 'echo +memory >/sys/fs/cgroup/cgroup.subtree_control'
fi

done_testing
