# What Podman must be able to do with the runtime, as root and as a user. Sourced after common.sh.

# Storage of this file's own, so that nothing of one run is seen by the next.
pod() {
    timeout -k 5 180 podman --root "$WORK/storage" --runroot "$WORK/runroot" --cgroup-manager "$driver" \
        --runtime "$(command -v "$RUNTIME")" "$@"
}
pod_status() { pod inspect --format '{{.State.Status}}' "$1"; }
pod_is() { [ "$(pod_status "$1")" = "$2" ]; }
CLEANUPS+=("pod rm --all --force --time 0" "pod unshare rm -rf '$WORK/storage' '$WORK/runroot'; rm -rf '$WORK/storage'")

# podman_life MANAGER ROOTFS
podman_life() {
    driver=$1
    local root=$2 output code cgroup pid
    output=$(pod run --rm --network none --rootfs "$root" sh -c 'echo out; exit 7' 2>"$WORK/err")
    code=$?
    is "$driver: run gives its exit code" $code 7
    is "$driver: its output" "$output $(head -n 3 "$WORK/err")" "out "
    pod run --rm --network none --rootfs "$root" nothing >/dev/null 2>"$WORK/err"
    is "$driver: 127 for a program that is not there" $? 127
    like "$driver: which is named" "$(cat "$WORK/err")" "nothing"
    pod run --rm --network none --rootfs "$root" /etc/passwd >/dev/null 2>"$WORK/err"
    is "$driver: 126 for one that is none" $? 126

    check "$driver: run --detach" pod run --detach --name life --network none --memory 64m --pids-limit 50 \
        --rootfs "$root" sh -c 'trap "exit 5" TERM; while :; do sleep 1; done'
    check "$driver: it runs" eventually pod_is life running
    pid=$(pod inspect --format '{{.State.Pid}}' life)
    cgroup=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    cgroup=/sys/fs/cgroup${cgroup%/container}
    if [ "$driver" = systemd ] || [ "$(id -u)" = 0 ]; then
        is "$driver: with its limits" "$(cat "$cgroup/memory.max") $(cat "$cgroup/pids.max")" "67108864 50"
    fi
    is "$driver: exec" "$(pod exec life echo inside)" inside
    pod exec life sh -c 'exit 9'
    is "$driver: exec's exit code" $? 9
    pod exec life nothing 2>/dev/null
    is "$driver: exec of nothing" $? 127
    is "$driver: a container in its pid namespace" \
        "$(pod run --rm --network none --pid container:life --rootfs "$root" sh -c 'tr "\\0" " " </proc/1/cmdline | cut -c -7')" "sh -c t"
    if [ "$driver" = systemd ] || [ "$(id -u)" = 0 ]; then
        check "$driver: pause" pod pause life
        is "$driver: it is paused" "$(pod_status life)" paused
        check "$driver: unpause" pod unpause life
    fi
    check "$driver: stop" pod stop --time 60 life
    is "$driver: its exit code is kept" "$(pod inspect --format '{{.State.ExitCode}}' life)" 5
    check "$driver: start again" pod start life
    check "$driver: kill" pod kill life
    check "$driver: it ends" eventually pod_is life exited
    check "$driver: rm" pod rm life
    is "$driver: no cgroup is left" "$(ls -d "$cgroup" 2>/dev/null)" ""
}
