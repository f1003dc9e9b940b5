#!/bin/bash
# A hundred containers through containerd, ten at a time: all succeed, and nothing grows.
# takes: 260
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/ctr.sh

root=$(rootfs)
main=$(systemctl show -P MainPID containerd)
# Descriptors of the daemon; mounts, cgroups and processes of the machine.
counts() {
    echo "$(ls /proc/"$main"/fd | wc -l) $(wc -l </proc/self/mountinfo) $(find /sys/fs/cgroup -type d | wc -l)" \
        "$(pgrep -c '^(containerd-shim|ctr|locule|runc)')"
}
one() {
    run --rm --rootfs "$root" "test-many-$1" true >>"$WORK/many" 2>&1
    echo $? >>"$WORK/codes"
}
hundred() {
    local number
    for number in $(seq "$1"); do
        one "$number" &
        [ $((number % $2)) != 0 ] || wait
    done
    wait
}
# The first one opens what stays open.
one warm
rm "$WORK/codes"
before=$(counts)
hundred 100 10
is "a hundred, ten at a time, all end well" "$(sort "$WORK/codes" | uniq -c | xargs) $(sort "$WORK/many" | uniq | head -n 5)" "100 0 "
no_more() {
    local now old number
    read -ra old <<<"$before"
    read -ra now <<<"$(counts)"
    for number in "${!old[@]}"; do
        [ "${now[number]}" -le "${old[number]}" ] || return
    done
}
check "no more descriptors, mounts, cgroups, processes than before ($before)" eventually no_more
no_more || not_ok "they are" "$(counts)"
is "nothing is left in the state" "$(ls /run/containerd/runc/default /run/containerd/io.containerd.runtime.v2.task/default)" \
    "$(printf '%s\n' /run/containerd/io.containerd.runtime.v2.task/default: '' /run/containerd/runc/default:)"
is "containerd has not restarted" "$(systemctl show -P MainPID containerd)" "$main"

done_testing
