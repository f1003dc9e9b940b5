#!/bin/bash
# containerd through its runc shim (`ctr --runc-binary`): a task's whole life, with both cgroup drivers.
. /locule/tests/vm/lib/common.sh

systemctl start containerd
program=$(command -v "$RUNTIME")
root=$(rootfs)
CLEANUPS+=("remove_all")
remove_all() {
    local id
    for id in $(ctr tasks list -q | grep ^test-); do ctr tasks delete --force "$id"; done
    for id in $(ctr containers list -q | grep ^test-); do ctr containers delete "$id"; done
}
# run OPTION... ID COMMAND...: with the driver's options
run() { timeout -k 5 120 ctr run --runc-binary "$program" --env PATH=/bin "${driver[@]}" "$@"; }
task_status() { ctr tasks list | awk -v id="$1" '$1 == id { print $3 }'; }
task_is() { [ "$(task_status "$1")" = "$2" ]; }

scenario() {
    local id=$1 cgroup pid code
    output=$(run --rm --rootfs "$root" "$id" sh -c 'echo out; echo err >&2; exit 7' 2>"$WORK/err")
    code=$?
    is "$id: run gives its exit code" $code 7
    is "$id: its output" "$output" out
    like "$id: its errors" "$(cat "$WORK/err")" "(^|[[:space:]])err($|[[:space:]])"
    is "$id: and leaves nothing" "$(ctr containers list -q | grep -x "$id")" ""

    check "$id: run --detach" run --detach --memory-limit 67108864 --rootfs "$root" "$id" sleep 1000
    check "$id: it runs" eventually task_is "$id" RUNNING
    pid=$(ctr tasks list | awk -v id="$id" '$1 == id { print $2 }')
    cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    like "$id: in its cgroup" "$cgroup" "$2"
    is "$id: with its limit" "$(cat "$cgroup/memory.max" 2>/dev/null || cat "$cgroup/../memory.max")" 67108864
    is "$id: exec" "$(ctr tasks exec --exec-id one "$id" echo inside)" inside
    ctr tasks exec --exec-id two "$id" sh -c 'exit 9' >/dev/null 2>&1
    is "$id: exec's exit code" $? 9
    refused "$id: exec of nothing" "executable file not found|no such file" ctr tasks exec --exec-id three "$id" nothing
    check "$id: pause" ctr tasks pause "$id"
    is "$id: it is paused" "$(task_status "$id")" PAUSED
    check "$id: resume" ctr tasks resume "$id"
    is "$id: it runs again" "$(task_status "$id")" RUNNING
    like "$id: ps" "$(ctr tasks ps "$id")" "$pid"
    like "$id: metrics" "$(ctr tasks metrics "$id")" "memory.usage"
    check "$id: kill" ctr tasks kill -s SIGKILL "$id"
    check "$id: it stops" eventually task_is "$id" STOPPED
    like "$id: delete tells the exit code" "$(ctr tasks delete "$id" 2>&1)" "exit code 137"
    check "$id: the container is deleted" ctr containers delete "$id"
    is "$id: its cgroup is gone" "$(ls -d "$cgroup" 2>/dev/null)" ""

    refused "$id: a program that is not there is named" "nothing.*(not found|no such file)" \
        run --rm --rootfs "$root" "$id" nothing
    remove_all
}

driver=()
scenario test-fs /default/test-fs
driver=(--runc-systemd-cgroup --cgroup "test.slice:test:scope")
scenario test-sd /test.slice/test-scope.scope

done_testing
