#!/bin/bash
# What happens to a task while containerd restarts, its shim is killed, or its memory runs out; and a hundred in a row.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/ctr.sh

root=$(rootfs)
listen

# --- out of memory ---
check "a container with 32 MiB" run --detach --memory-limit 33554432 --rootfs "$root" test-oom sleep 1000
in_task test-oom dd if=/dev/zero of=/dev/null bs=64M count=1 >/dev/null 2>&1
is "a process over it is killed" $? 137
check "and the event comes" eventually told oom test-oom
is "the rest lives on" "$(task_status test-oom)" RUNNING
run --rm --memory-limit 33554432 --rootfs "$root" test-hog dd if=/dev/zero of=/dev/null bs=64M count=1 >/dev/null 2>&1
is "a container over its memory ends with 137" $? 137

# --- the daemon restarts ---
before=$(systemctl show -P MainPID containerd)
check "a task that ends with 5" run --detach --rootfs "$root" test-restart sh -c 'trap "exit 5" TERM; while :; do sleep 1; done'
check "containerd restarts" systemctl restart containerd
[ "$(systemctl show -P MainPID containerd)" != "$before" ] || not_ok "it is another process"
check "the task runs" eventually task_is test-restart RUNNING
is "exec works" "$(in_task test-restart echo inside)" inside
check "kill" ctr tasks kill -s SIGTERM test-restart
check "it stops" eventually task_is test-restart STOPPED
like "with its exit code" "$(ctr tasks delete test-restart 2>&1)" "exit code 5"
check "the container is deleted" ctr containers delete test-restart
is "it leaves nothing" "$(left test-restart)" ""

# --- the shim dies ---
kill "$listener" 2>/dev/null
listen
check "another task" run --detach --rootfs "$root" test-shim sleep 1000
pid=$(task_pid test-shim)
kill -KILL "$(shim_pid test-shim)"
ended() { [ ! -e "/proc/$1" ]; }
check "its shim is killed: the payload ends" eventually ended "$pid"
check "an exit event comes" eventually told exit test-shim
ctr tasks delete --force test-shim >/dev/null 2>&1
ctr containers delete test-shim
check "and nothing is left" eventually clean test-shim

# --- a hundred ---
ctr tasks delete --force test-oom >/dev/null 2>&1
ctr containers delete test-oom
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
same() { [ "$(counts)" = "$before" ]; }
check "no more descriptors, mounts, cgroups, processes than before ($before)" eventually same
same || not_ok "they are" "$(counts)"
is "nothing is left in the state" "$(ls /run/containerd/runc/default /run/containerd/io.containerd.runtime.v2.task/default)" \
    "$(printf '%s\n' /run/containerd/io.containerd.runtime.v2.task/default: '' /run/containerd/runc/default:)"
is "containerd has not restarted" "$(systemctl show -P MainPID containerd)" "$main"

done_testing
