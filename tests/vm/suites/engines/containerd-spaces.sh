#!/bin/bash
# containerd with other namespaces: mapped users, the host's processes; the features; what is not there yet.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/ctr.sh

root=$(rootfs)
image docker.io/library/busybox:latest

# --- users ---
mapping=(--uidmap 0:100000:65536 --gidmap 0:100000:65536)
check "a container whose users are mapped" run --detach "${mapping[@]}" docker.io/library/busybox:latest test-mapped sleep 1000
pid=$(task_pid test-mapped)
is "root inside" "$(in_task test-mapped id -u)" 0
is "is 100000 outside" "$(stat -c '%u %g' "/proc/$pid")" "100000 100000"
is "files belong to root inside" "$(in_task test-mapped stat -c '%u %g' /bin/busybox)" "0 0"
check "it writes" in_task test-mapped touch /new
is "as 100000 outside" "$(stat -c '%u %g' "/proc/$pid/root/new")" "100000 100000"
ctr tasks kill -s SIGKILL test-mapped
check "it ends" eventually task_is test-mapped STOPPED
ctr tasks delete test-mapped >/dev/null 2>&1
ctr containers delete test-mapped
is "and leaves nothing" "$(left test-mapped)" ""

# --- the host's processes ---
listen
run --rm --with-ns pid:/proc/1/ns/pid --rootfs "$root" test-host sh -c 'sleep 4321 & sleep 4321 & exit 3'
is "in the host's pid namespace: the exit code" $? 3
is "no child of init is left" "$(pgrep -f 'sleep 4321')" ""
check "the exit is told" eventually told exit test-host
is "once" "$(event exit test-host)" 1
is "and nothing is left" "$(left test-host)" ""

# --- features ---
runuser -u user -- "$program" features >"$WORK/features" 2>"$WORK/err"
is "features for an ordinary user" "$? $(cat "$WORK/err")" "0 "
if lacks runc; then
    skip "features: what engines decide by" "runc 1.1 lacks mountExtensions"
else
    is "features: what engines decide by" "$(jq -c '[.linux.mountExtensions.idmap.enabled, .linux.cgroup.systemd, .linux.seccomp.enabled,
        (.mountOptions | index("rro") != null), (.linux.namespaces | index("user") != null)]' "$WORK/features")" "[true,true,true,true,true]"
fi

# --- not yet ---
if is_locule; then
    run --detach --rootfs "$root" test-live sleep 1000
    output=$(ctr tasks checkpoint --image-path "$WORK/images" test-live 2>&1)
    is "checkpoint: one sentence says that it is not there" \
        "$? $(wc -l <<<"$output") $(grep -cE 'locule|checkpoint' <<<"$output")" "1 1 1"
    echo "# $output"
    is "and the task runs on" "$(task_status test-live)" RUNNING
else
    skip "checkpoint: one sentence says that it is not there" "$KIND has it"
fi

done_testing
