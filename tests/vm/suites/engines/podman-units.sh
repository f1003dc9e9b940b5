#!/bin/bash
# Podman in systemd units: --cgroups=split, a Quadlet file with READY from the payload and a socket that starts it.
. /locule/tests/vm/lib/common.sh
. /locule/tests/vm/lib/podman.sh

root=$(rootfs)
# Quadlet reads one folder of each user; units of this name are this file's.
if is_root; then
    quadlets=/run/containers/systemd sockets=/run/systemd/system
    ctl() { systemctl "$@"; }
    transient() { systemd-run "$@"; }
else
    quadlets=$HOME/.config/containers/systemd sockets=$XDG_RUNTIME_DIR/systemd/user
    ctl() { systemctl --user "$@"; }
    transient() { systemd-run --user "$@"; }
fi
mkdir -p "$quadlets" "$sockets"
CLEANUPS=("ctl stop test-web.socket test-web.service" "rm '$quadlets/test-web.container' '$sockets/test-web.socket'"
    "ctl daemon-reload" "ctl reset-failed" "${CLEANUPS[@]}")
property() { ctl show --value --property "$1" test-web.service; }
property_is() { [ "$(property "$1")" = "$2" ]; }

# A payload that is ready when told, answers on the socket that systemd opened, and ends when asked.
mkdir -m 0777 "$WORK/payload"
cat >"$WORK/payload/payload.py" <<'PYTHON'
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
assert (os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"]) == ("1", "1"), os.environ
open("/payload/up", "w").close()
while not os.path.exists("/payload/go"):
    time.sleep(0.1)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect(os.environ["NOTIFY_SOCKET"])
    notify.send(b"READY=1\nSTATUS=serving")
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"answered by %d\n" % os.getpid())
    connection.close()
PYTHON
cat >"$quadlets/test-web.container" <<UNIT
[Container]
ContainerName=test-web
GlobalArgs=${podman_options[*]}
Rootfs=$root
Network=none
Notify=true
Volume=/usr:/usr:ro
Volume=/usr/lib:/lib:ro
Volume=/usr/lib64:/lib64:ro
Volume=$WORK/payload:/payload
Exec=/usr/bin/python3 /payload/payload.py
UNIT
cat >"$sockets/test-web.socket" <<UNIT
[Socket]
ListenStream=127.0.0.1:8811
UNIT
check "Quadlet makes the units" ctl daemon-reload
check "the socket listens" ctl start test-web.socket
socat -u TCP:127.0.0.1:8811 - >"$WORK/first" &
client=$!
check "the first connection starts the payload" eventually test -e "$WORK/payload/up"
is "the unit is not active before it is ready" "$(property ActiveState)" activating
touch "$WORK/payload/go"
check "it is, once it says READY" eventually property_is ActiveState active
is "with what it said" "$(property StatusText)" serving
check "the connection that started it ends" wait $client
is "and was answered" "$(cat "$WORK/first")" "answered by 1"
cgroup=$(property ControlGroup)
like "the payload is inside its service's cgroup" "$(podman_cgroup test-web)" \
    "$cgroup/libpod-payload-[0-9a-f]{64}$"
pid=$(pod_state test-web Pid)
check "restart" ctl restart test-web.service
check "is another process" test "$(pod_state test-web Pid)" != "$pid"
is "which answers" "$(socat -u TCP:127.0.0.1:8811 -)" "answered by 1"
ctl stop test-web.socket
check "stop" ctl stop test-web.service
is "is clean, below the time-out" "$(property Result) $(property ExecMainStatus)" "success 0"
is "nothing of it is left" "$(pod ps --all --quiet; ls -d "/sys/fs/cgroup$cgroup" 2>/dev/null)" ""

# The same split without Quadlet, with limits.
is "--cgroups=split in a service" "$(transient --quiet --wait --pipe --collect --expand-environment=no -p Delegate=yes --unit test-split \
    -E CONTAINERS_CONF_OVERRIDE="$CONTAINERS_CONF_OVERRIDE" podman "${podman_options[@]}" run --rm --network none \
    --cgroups=split --cgroupns=host --memory 100m -v /sys/fs/cgroup:/host:ro --rootfs "$root" \
    sh -c 'p=$(cut -c 4- /proc/self/cgroup); cat "/host$p/memory.max"; echo "${p##*.service/}" | cut -c -15' </dev/null)" \
    "104857600"$'\n'"libpod-payload-"

done_testing
