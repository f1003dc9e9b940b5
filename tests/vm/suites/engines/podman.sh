#!/bin/bash
# A container's life under Podman, by both cgroup managers: exit codes, exec, limits, pause, top, stats, update, stop.
# takes: 120
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

root=$(rootfs)
output=$(pod run --rm --network none --rootfs "$root" sh -c 'echo out; exit 7' 2>"$WORK/err")
is "run gives its exit code" $? 7
is "its output" "$output $(head -n 3 "$WORK/err")" "out "
gives "run of nothing" 127 "nothing" pod run --rm --network none --rootfs "$root" nothing
gives "run of a directory" 126 "/etc" pod run --rm --network none --rootfs "$root" /etc
gives "run with a bad option" 125 "unknown flag" pod run --nosuchflag --rootfs "$root" true

check "run --detach" pod run --detach --name life --network none --memory 64m --pids-limit 50 \
    --rootfs "$root" sh -c 'trap "exit 5" TERM; while :; do sleep 1; done'
is "it runs" "$(pod_state life Status)" running
cgroup=$(podman_cgroup life)
is "with its limits" "$(cat "$cgroup/memory.max") $(cat "$cgroup/pids.max")" "67108864 50"
is_root || check "its state is below the user's runtime directory" \
    test -d "$XDG_RUNTIME_DIR/$KIND/$(pod inspect --format '{{.Id}}' life)"
is "exec" "$(pod exec life echo inside)" inside
gives "exec of a command that fails" 1 "^$" pod exec life false
gives "exec of nothing" 127 "nothing" pod exec life nothing
gives "exec of a directory" 126 "/etc" pod exec life /etc
gives "exec in a directory that is not there" 127 "$(says "locule: changing to the working directory /none: .*ENOENT")" \
    pod exec --workdir /none life true
is "a container in its pid namespace" \
    "$(pod run --rm --network none --pid container:life --rootfs "$root" sh -c 'tr "\\0" " " </proc/1/cmdline | cut -c -7')" "sh -c t"
like "top" "$(pod top life pid comm)" "1 .*sh"
like "stats" "$(pod stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' life)" '67.11MB [1-9]'
check "update --memory" pod update --memory 96m life
is "reaches the cgroup, and inspect agrees" \
    "$(cat "$cgroup/memory.max") $(pod inspect --format '{{.HostConfig.Memory}}' life)" "100663296 100663296"
check "pause" pod pause life
is "it is paused" "$(pod_state life Status) $(field frozen <"$cgroup/cgroup.events")" "paused 1"
check "unpause" pod unpause life
is "it runs again" "$(pod_state life Status) $(field frozen <"$cgroup/cgroup.events")" "running 0"
check "stop" pod stop --time 60 life
is "its exit code is kept" "$(pod_state life ExitCode)" 5
check "start again" pod start life
check "kill" pod kill life
check "it ends" eventually pod_is life exited
is "with 137" "$(pod_state life ExitCode)" 137
check "rm" pod rm life
is "no cgroup is left" "$(ls -d "$cgroup" 2>/dev/null)" ""

# The first process of a pid namespace without a handler does not hear SIGTERM.
check "a container that does not hear SIGTERM" pod run --detach --name deaf --network none --rootfs "$root" sleep 1000
gives "stop kills it in the end" 0 'resorting to SIGKILL"$' pod stop --time 1 deaf
is "with 137 and OOMKilled false" "$(pod_state deaf ExitCode) $(pod_state deaf OOMKilled)" "137 false"
check "a container over its memory" pod run --detach --name hog --network none --memory 32m --rootfs "$root" \
    dd if=/dev/zero of=/dev/null bs=64M count=1
check "ends" eventually pod_is hog exited
is "with 137 and OOMKilled true" "$(pod_state hog ExitCode) $(pod_state hog OOMKilled)" "137 true"

driver=cgroupfs
check "cgroupfs: run --detach" pod run --detach --name other --network none --memory 64m --rootfs "$root" sleep 1000
cgroup=$(podman_cgroup other)
# A user's cgroupfs has no cgroup of its own where the caller's is not delegated by name.
if is_root; then
    is "cgroupfs: with its limit" "$(cat "$cgroup/memory.max")" 67108864
    check "cgroupfs: pause" pod pause other
    check "cgroupfs: unpause" pod unpause other
fi
is "cgroupfs: exec" "$(pod exec other echo inside)" inside
check "cgroupfs: rm --force" pod rm --force --time 0 other
if is_root; then is "cgroupfs: no cgroup is left" "$(ls -d "$cgroup" 2>/dev/null)" ""; fi

# Without cgroups: nothing is made, the container stays where conmon is.
is "--cgroups=disabled" "$(pod run --rm --network none --cgroups=disabled --rootfs "$root" echo ran)" ran

done_testing
