#!/bin/bash
# --systemd-cgroup when things are not as they should be: names in use, units that failed or were
# stopped by others, callers without environment, no bus but systemd's own socket.
. /locule/tests/vm/lib/common.sh

MANAGER=(--systemd-cgroup)
unit=pre-clash.scope
property() { systemctl show --value -p "$2" "$1"; }
unit_is() { [ "$(property "$1" "$2")" = "$3" ]; }
make_bundle "$WORK/clash"
config "$WORK/clash" '.linux.cgroupsPath = "test.slice:pre:clash" | .linux.resources.pids = {limit: 40}
    | .annotations = {"org.systemd.property.TimeoutStopUSec": "uint64 1000000"}'
CLEANUPS+=("systemctl stop $unit" "systemctl reset-failed $unit")

systemd-run --quiet --scope --unit $unit --slice test.slice sleep 1000 >/dev/null 2>&1 &
other=$!
check "a stranger's scope of that name runs" eventually unit_is $unit ActiveState active
refused "the name is refused" "exist|already|not empty" start clash "$WORK/clash"
is "the stranger's scope is untouched" "$(property $unit ActiveState)" active
check "its process, too" kill -0 $other
check "nothing is left of the container" gone clash
if is_locule; then
    # A record of that scope, made before systemd refuses its name, would be a licence to stop it.
    for nth in 1 2 3; do
        strace -qq -o /dev/null -e trace=renameat -e inject=renameat:signal=KILL:when=$nth \
            "$RUNTIME" --root "$STATE" --systemd-cgroup create --bundle "$WORK/clash" clash </dev/null >/dev/null 2>&1
        rt delete --force clash >/dev/null 2>&1
    done
    is "a killed creation's forced deletion leaves the stranger's scope alone" "$(property $unit ActiveState)" active
fi
kill $other
wait $other 2>/dev/null
check "the stranger's scope ends" eventually unit_is $unit LoadState not-found

systemd-run --quiet --scope --unit $unit --slice test.slice -p RuntimeMaxSec=1 sleep 1000 >/dev/null 2>&1
check "a scope that failed keeps its name" eventually unit_is $unit ActiveState failed
check "the container starts all the same" start clash "$WORK/clash"
is "in that scope" "$(property $unit ActiveState)" active

check "systemctl stop ends the container" systemctl stop $unit
check "it is stopped" eventually has_status clash stopped
check "delete of it" rt delete clash
check "the scope is gone" eventually unit_is $unit LoadState not-found

without_bus() { unshare --mount bash -c 'mount -t tmpfs none /run/dbus && "$@"' - "$@"; }
tool=("$RUNTIME" --root "$STATE" --systemd-cgroup)
echo clash >>"$WORK/containers"
if is_locule || lacks crun; then
    direct() { without_bus timeout 60 "${tool[@]}" run --detach --bundle "$WORK/clash" clash </dev/null >"$WORK/out" 2>&1; }
    check "systemd's own socket serves where there is no bus" direct
    is "the scope is active" "$(property $unit ActiveState)" active
    check "update over it" without_bus timeout 60 "${tool[@]}" update --pids-limit 30 clash
    is "systemd knows" "$(property $unit TasksMax)" 30
else
    skip "systemd's own socket serves where there is no bus" "not tried by this one"
    check "start" start clash "$WORK/clash"
fi
check "delete without environment and manager" env -i "$(command -v "$RUNTIME")" --root "$STATE" delete --force clash
check "removes the scope" eventually unit_is $unit LoadState not-found
is "and the cgroup" "$(ls -d /sys/fs/cgroup/test.slice/$unit 2>/dev/null)" ""

done_testing
