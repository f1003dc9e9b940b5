#!/bin/bash
# What happens to a task while containerd restarts, its shim is killed, or its memory runs out.
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
ctr tasks delete --force test-oom >/dev/null 2>&1
ctr containers delete test-oom

done_testing
