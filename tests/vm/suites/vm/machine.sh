#!/bin/bash
# A machine with a kernel of its own that runs one program. Ports, limits, logs and a restart are those of every machine;
# `isolation` can be changed for the next start, there and back.
# takes: 140
. /locule/tests/vm/lib/vm.sh

# Boots take longer than the other suites' calls.
PATIENCE=400
# Where machines are by default: one set of directories has the networks of a host.
rt() { timeout -k 5 $LIMIT locule "$@"; }
CLEANUPS+=("rt rm --force vm1" "rt image rm localhost/vm-busybox:1" "/locule/tools/units --remove /usr/local"
    "rm -rf /usr/local/lib/systemd/system-generators")
status() { rt ls --format json | jq -r --arg name "$1" '.[] | select(.name == $name).status'; }
# A kernel that was booted by the monitor says so.
kernel() { rt exec "$1" -- cat /proc/cmdline; }
own_kernel() { [[ $(kernel "$1") == *root=locule* ]]; }
answers() { busybox wget -q -T 30 -O - "http://127.0.0.1:$1/" | grep -q served; }

mkdir -p "$WORK/tree"/{bin,tmp,etc,proc,sys,dev,root,run}
cp /bin/busybox "$WORK/tree/bin/"
chroot "$WORK/tree" /bin/busybox --install -s /bin
echo 'root:x:0:0:root:/root:/bin/sh' >"$WORK/tree/etc/passwd"
check "an image" rt image import "$WORK/tree" localhost/vm-busybox:1
check "a machine with a kernel of its own" rt launch --isolation vm --memory 96M --pids 60 -p 8091:80 \
    localhost/vm-busybox:1 vm1 -- sh -c "$SAY"'trap "echo asked; exit 0" TERM; echo served >/tmp/index.html
    httpd -p 80 -h /tmp; echo up as $(id -u)
    until [ -e /root/go ]; do sleep 1; done
    say "READY=1\nMAINPID=1\nNOTIFYACCESS=none"; say STATUS=serving
    while :; do sleep 1; done'
is "ls says what separates it" "$(rt ls --format json | jq -r '.[] | select(.name == "vm1") | .isolation + " " + .status')" "vm running"
like "its kernel is its own" "$(kernel vm1)" 'root=locule'
check "its log comes" eventually sh -c 'locule logs vm1 | grep -q "up as 0"'
is "exec" "$(rt exec vm1 -- sh -c 'echo $((40 + 2)) $(hostname)')" "42 vm1"
is "standard input and the exit code" "$(echo through | rt exec vm1 -- sh -c 'cat; exit 3'; echo $?)" $'through\n3'
like "enter is a login shell" "$(echo 'echo "$USER $HOME $(hostname)"' | rt enter vm1 2>&1)" 'root /root vm1'
check "its port is published" eventually answers 8091
is "the limit inside" "$(rt exec vm1 -- cat /sys/fs/cgroup/memory.max)" $((96 << 20))
is "the count of tasks inside" "$(rt exec vm1 -- cat /sys/fs/cgroup/pids.max)" 60
check "less memory" rt set vm1 memory=80M pids=50
is "holds inside at once" "$(rt exec vm1 -- cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max | xargs)" "$((80 << 20)) 50"
check "and on the host" rt set vm1 cpus=0.5
# Of the time that it wants to run it gets a half: its kernel counts the other one as stolen.
times() { rt exec vm1 -- awk '$1 == "cpu" { print $2, $9 }' /proc/stat; }
stolen() {
    local user steal user_now steal_now
    read -r user steal < <(times)
    rt exec vm1 -- timeout 3 sh -c 'while :; do :; done'
    read -r user_now steal_now < <(times)
    [ $((4 * (steal_now - steal))) -gt $((user_now - user)) ]
}
check "whose kernel tells its own of stolen time" eventually stolen
check "more memory than it was started with" rt set vm1 memory=400M
above "which its kernel has" "$(rt exec vm1 -- awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo)" $((300 << 20))
check "and less again" rt set vm1 memory=80M
refused "what its kernel cannot be told waits for a restart" 'next start|restart' rt set --runtime vm1 ulimit.nofile=4000
check "and as much as it likes again" rt set vm1 cpus=
above "stats counts it" "$(rt stats --no-stream --format json vm1 | jq '.[0].memory.usage')" 1000000
check "it is paused" rt pause vm1
check "and resumed" rt resume vm1
is "and answers" "$(rt exec vm1 -- echo again)" again
rt exec vm1 -- sh -c 'echo kept >/root/kept'
# busybox has no such client; the host's socat serves.
SOCAT=(socat -t 200 - VSOCK-CONNECT:2:52)
check "programs of the host's" rt set vm1 mount+=/usr/bin/socat:/bin/socat:ro mount+=/usr/lib:/lib:ro mount+=/usr/lib64:/lib64:ro
check "stop" rt stop vm1
check "it shall be ready when it says so" rt set vm1 boot.ready=notify
check "under systemd" /locule/tools/units /usr/local
check "its unit starts it" systemctl start --no-block locule@vm1
unit() { systemctl show --value --property "$1" locule@vm1; }
unit_is() { [ "$(unit "$1")" = "$2" ]; }
keeper() { jq -r "$1" /run/locule/.machines/vm1/keeper.json; }
check "another kernel" eventually unit_is StatusText "started, not ready yet"
check "runs" own_kernel vm1
is "with its files" "$(rt exec vm1 -- cat /root/kept)" kept
is "which has not said that it is ready" "$(unit ActiveState) $(keeper .ready)" "activating false"
check "what it waits for" rt exec vm1 -- touch /root/go
check "then its unit is active" eventually unit_is ActiveState active
check "and says what it said" eventually unit_is StatusText serving
is "but for what is not its to say" "$(unit MainPID) $(unit NotifyAccess)" "$(keeper .keeper.pid) main"
is "start --wait has nothing to wait for" "$(rt start --wait vm1 >/dev/null 2>&1; keeper .ready)" true
# eats: a process over the limit is killed, and that is one event more
ooms() { rt events --no-stream --filter machine=vm1 --filter event=oom | grep -c 'vm1 oom$'; }
ooms_are() { [ "$(ooms)" = "$1" ]; }
eats() {
    local before
    before=$(ooms)
    rt exec vm1 -- dd if=/dev/zero of=/dev/null bs=100M count=1 >/dev/null 2>&1
    is "a process over the limit is killed" $? 137
    check "and that is an event of the machine" eventually ooms_are $((before + 1))
}
eats
check "its port is published again" eventually answers 8091
check "stop" rt stop vm1
is "it ended by itself, and had lacked memory" \
    "$(jq -c '[.stopped, .signal, .oom]' /run/locule/.machines/vm1/exit.json)" "[true,null,true]"
like "after its own word" "$(rt logs vm1)" asked
check "without systemd again" /locule/tools/units --remove /usr/local
check "namespaces instead" rt set vm1 isolation=namespaces
check "start" rt start vm1
refused "it has the host's kernel" "" own_kernel vm1
is "with its files" "$(rt exec vm1 -- cat /root/kept)" kept
check "and its port" eventually answers 8091
eats
refused "it has no socket to the host" "permission denied|not permitted" rt exec vm1 -- "${SOCAT[@]}"
refused "nor can it have one" 'only a machine with isolation = "vm"' rt set vm1 vsock=on
check "back again, and with such a socket" rt set vm1 isolation=vm vsock=on
refused "not before it starts anew" "" own_kernel vm1
check "which it does" rt restart vm1
check "as a virtual machine" own_kernel vm1
sockets=$(rt show --format json vm1 | jq -r .sockets)
is "show says where the sockets are" "$sockets" /run/locule/vm1/vsock
like "in its table, too" "$(rt show vm1)" "vsock +true .*sockets in $sockets"
socat "UNIX-LISTEN:$sockets/sock_52,fork,mode=666" EXEC:cat &
CLEANUPS+=("kill $!")
check "the host listens" eventually test -S "$sockets/sock_52"
is "and is heard, by the machine's filter" "$(echo word | rt exec vm1 -- "${SOCAT[@]}")" word
kill -KILL "$(jq -r .keeper.pid /run/locule/.machines/vm1/keeper.json)"
check "the death of its keeper is not its own" rt start vm1
is "which runs on" "$(own_kernel vm1 && status vm1)" running
check "it is removed while it runs" rt rm --force vm1
refused "what the host's kernel alone has is refused" "cannot share the host's network" \
    rt launch --isolation vm --network host localhost/vm-busybox:1 vm1

done_testing
