#!/bin/bash
# A socket between the machine and the host without a network: each side connects to the other, ends its half, and
# every byte arrives; only where the annotation asks for it.
# takes: 80
. /locule/tests/vm/lib/vm.sh

# make ID COMMAND: a machine with a socket, this machine's programs, and /data; it is created
make() {
    mkdir -p "$WORK/data"
    make_bundle "$WORK/$1" sh -c "$2"
    with_host_programs "$WORK/$1"
    config "$WORK/$1" '.annotations["org.locule.vm.vsock"] = "true"
        | .mounts += [{destination: "/data", source: $data, type: "bind", options: ["rbind", "rw"]}]' --arg data "$WORK/data"
    [ -z "${3-}" ] || config "$WORK/$1" "$3"
    echo "$1" >>"$WORK/containers"
    rt create --isolation vm --bundle "$WORK/$1" "$1" </dev/null >"$WORK/$1/output" 2>&1
}
# serve ID PORT SOCAT-ADDRESS: the host's end of a port, until the file's end
serve() {
    socat -t 200 "UNIX-LISTEN:$STATE/$1/vsock/sock_$2,fork,mode=666" "$3" </dev/null >/dev/null 2>&1 &
    CLEANUPS+=("kill $!")
    eventually test -S "$STATE/$1/vsock/sock_$2"
}

# The machine sends a file and gets it back, then serves it; nobody listens at port 53 of the host.
head -c 3000001 /dev/urandom >"$WORK/sent"
INSIDE='socat -t 200 - VSOCK-CONNECT:2:52 </data/sent >/data/back
socat -u OPEN:/dev/null VSOCK-CONNECT:2:53 2>/data/nobody
echo $? >/data/code
exec socat -t 200 VSOCK-LISTEN:80,fork EXEC:cat'
check "create" make one "$INSIDE"
cp "$WORK/sent" "$WORK/data/sent"
is "nobody else may enter the directory of the sockets" "$(stat -c %a "$STATE/one")" 700
check "the host listens" serve one 52 EXEC:cat
check "start" rt start one
check "the guest's connection ends" eventually test -s "$WORK/data/code"
check "what it sent came back" cmp "$WORK/data/sent" "$WORK/data/back"
is "a port that nobody listens at fails" "$(cat "$WORK/data/code")" 1
like "and is told" "$(cat "$WORK/data/nobody")" 'reset by peer|refused'

# ask PORT: what standard input says to the guest's port, and what comes back
ask() { { echo "CONNECT $1"; cat; } | timeout -k 5 400 socat -t 200 - "UNIX-CONNECT:$STATE/one/vsock/sock"; }
served() { echo hello | ask 80 | grep -qx hello; }
check "the host connects to a port of the guest's" eventually served
ask 80 <"$WORK/sent" >"$WORK/answer"
like "it is told the port of its own" "$(head -n 1 "$WORK/answer" | tr -d '\0')" '^OK [0-9]+$'
check "and gets back what it sent" sh -c "tail -n +2 '$WORK/answer' | cmp - '$WORK/sent'"
is "a port that nobody listens at is closed" "$(ask 81 </dev/null | wc -c)" 0
is "the devices' thread filters its calls" \
    "$(awk '$1 == "Name:" { name = $2 } $1 == "Seccomp:" && name == "devices" { print $2 }' "/proc/$(pid_of one)"/task/*/status)" 2
check "kill" rt kill one KILL
check "it stops" eventually has_status one stopped
check "delete" rt delete one
check "nothing is left" test ! -e "$STATE/one"

# The monitor is another user than the one who made the sockets.
MAPS='.linux.namespaces += [{type: "user"}] | .linux.gidMappings = .linux.uidMappings'
MAPS=".linux.uidMappings = [{containerID: 0, hostID: 300000, size: 65536}] | $MAPS"
check "create in a user namespace" make mapped 'echo word | socat -t 200 - VSOCK-CONNECT:2:52' "$MAPS"
check "the host listens" serve mapped 52 EXEC:cat
check "start" rt start mapped
check "it ends" eventually has_status mapped stopped
is "and has heard its word" "$(tail -n 1 "$WORK/mapped/output")" word
check "delete" rt delete mapped

make_bundle "$WORK/none" sh -c 'ls /sys/bus/virtio/devices/*/device | while read -r f; do cat $f; done'
none=$(rt run --isolation vm --bundle "$WORK/none" none </dev/null)
like "without the annotation there are devices" "$none" 0x0003
is "but no socket" "$(grep -c 0x0013 <<<"$none")" 0

config "$WORK/none" '.annotations["org.locule.vm.vsock"] = "2"'
refused "an address of the host's is refused" "org.locule.vm.vsock" rt run --isolation vm --bundle "$WORK/none" none
done_testing
