#!/bin/bash
# containerd through its runc shim (`ctr --runc-binary`): a task's whole life, with both cgroup drivers.
# takes: 100
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/ctr.sh

root=$(rootfs)
image docker.io/library/busybox:latest
# pids of everything in a task's cgroup
inside() { cat "$1/cgroup.procs" | sort; }
used() { field usage_usec <"$1/cpu.stat"; }

scenario() {
    local id=$1 cgroup pid code output before number codes
    output=$(run --rm docker.io/library/busybox:latest "$id" sh -c 'echo out; echo err >&2; exit 7' 2>"$WORK/err")
    code=$?
    is "$id: run gives its exit code" $code 7
    is "$id: its output" "$output" out
    like "$id: its errors" "$(cat "$WORK/err")" "(^|[[:space:]])err($|[[:space:]])"
    is "$id: and leaves nothing" "$(ctr containers list -q | grep -x "$id")$(left "$id")" ""

    check "$id: run --detach" run --detach --memory-limit 67108864 --rootfs "$root" "$id" \
        sh -c 'trap "exit 5" TERM; while :; do :; done'
    check "$id: it runs" eventually task_is "$id" RUNNING
    pid=$(task_pid "$id")
    cgroup=$(task_cgroup "$id")
    like "$id: in its cgroup" "$cgroup" "$2"
    is "$id: with its limit" "$(cat "$cgroup/memory.max" 2>/dev/null || cat "$cgroup/../memory.max")" 67108864
    [ -z "$3" ] || is "$id: which systemd knows" "$(systemctl show -P MemoryMax "$3")" 67108864
    is "$id: exec" "$(in_task "$id" echo inside)" inside
    refused "$id: exec of nothing" "executable file not found|no such file" in_task "$id" nothing

    check "$id: pause" ctr tasks pause "$id"
    is "$id: it is paused" "$(task_status "$id")" PAUSED
    before=$(used "$cgroup")
    sleep 0.5
    is "$id: and gets no CPU" "$(used "$cgroup")" "$before"
    check "$id: resume" ctr tasks resume "$id"
    is "$id: it runs again" "$(task_status "$id")" RUNNING
    above "$id: with CPU" "$(sleep 0.5; used "$cgroup")" "$before"

    check "$id: a second process" ctr tasks exec --detach --exec-id beside "$id" sleep 1000
    is "$id: ps has the host's pids of both" "$(ctr tasks ps "$id" | awk 'NR > 1 { print $1 }' | sort)" "$(inside "$cgroup")"
    is "$id: which are two" "$(inside "$cgroup" | wc -l)" 2
    like "$id: metrics count them alone" "$(ctr tasks metrics "$id")" "pids.current +2"
    check "$id: kill" ctr tasks kill -s SIGTERM "$id"
    check "$id: it stops" eventually task_is "$id" STOPPED
    refused "$id: a second kill finds nothing" "not found" ctr tasks kill -s SIGTERM "$id"
    like "$id: delete tells the exit code" "$(ctr tasks delete "$id" 2>&1)" "exit code 5"
    check "$id: the container is deleted" ctr containers delete "$id"
    is "$id: it left nothing" "$(left "$id"; ls -d "$cgroup" 2>/dev/null)" ""
    [ -z "$3" ] || is "$id: and no scope" "$(systemctl show -P ActiveState "$3")" inactive
    refused "$id: a program that is not there is named" '"?nothing"?.*executable file not found in \$path' \
        run --rm --rootfs "$root" "$id" nothing
    is "$id: nothing is left of that" "$(left "$id")" ""
}

scenario test-fs /default/test-fs ""
driver=(--runc-systemd-cgroup --cgroup "test.slice:test:scope")
scenario test-sd /test.slice/test-scope.scope test-scope.scope

# ctr has no word for it, but gives up between create and start if it cannot write the pid file.
driver=()
refused "a task is created and not started" "no such file" \
    run --detach --pid-file /nonexistent/pid --rootfs "$root" test-created sleep 1000
is "so it is" "$(task_status test-created)" CREATED
check "it is deleted" ctr tasks delete --force test-created
check "with its container" ctr containers delete test-created
is "and leaves nothing" "$(left test-created)" ""

run --detach --rootfs "$root" test-codes sleep 1000
for number in $(seq 20); do
    (
        in_task test-codes sh -c "exit $number"
        echo "$number $?" >>"$WORK/codes"
    ) 2>/dev/null &
done
wait
codes=$(awk '$1 != $2' "$WORK/codes")
is "twenty execs beside each other have their own exit codes" "$(wc -l <"$WORK/codes") $codes" "20 "
ctr tasks delete --force test-codes >/dev/null 2>&1
# Two complaints come with every runtime: containerd's own races with a shim that ends.
is "containerd has nothing to complain about" "$(journalctl -u containerd --since "-$((SECONDS + 1))s" -o cat |
    grep -E 'level=(error|fatal)|panic|goroutine' | grep -vE 'inactive stream|copy shim log')" ""

done_testing
