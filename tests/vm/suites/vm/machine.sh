#!/bin/bash
# A machine with a kernel of its own that runs one program. Ports, limits, logs and a restart are those of every machine;
# `isolation` can be changed for the next start, there and back.
# takes: 90
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "virtual machines are locule's"
[ -e /dev/kvm ] || skip_all "no KVM"

# Boots take longer than the other suites' calls.
PATIENCE=400
# Where machines are by default: one set of directories has the networks of a host.
rt() { timeout -k 5 400 locule "$@"; }
CLEANUPS+=("rt rm --force vm1" "rt image rm localhost/vm-busybox:1")
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
    localhost/vm-busybox:1 vm1 -- sh -c 'trap "echo asked; exit 0" TERM; echo served >/tmp/index.html
    httpd -p 80 -h /tmp; echo up as $(id -u); while :; do sleep 1; done'
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
check "restart" rt restart vm1
is "another kernel runs" "$(own_kernel vm1 && rt exec vm1 -- cat /root/kept)" kept
check "its port is published again" eventually answers 8091
check "stop" rt stop vm1
is "it ended by itself" "$(jq -c '[.stopped, .signal]' /run/locule/.machines/vm1/exit.json)" "[true,null]"
like "after its own word" "$(rt logs vm1)" asked
check "namespaces instead" rt set vm1 isolation=namespaces
check "start" rt start vm1
refused "it has the host's kernel" "" own_kernel vm1
is "with its files" "$(rt exec vm1 -- cat /root/kept)" kept
check "and its port" eventually answers 8091
check "back again" rt set vm1 isolation=vm
refused "not before it starts anew" "" own_kernel vm1
check "which it does" rt restart vm1
check "as a virtual machine" own_kernel vm1
kill -KILL "$(jq -r .keeper.pid /run/locule/.machines/vm1/keeper.json)"
check "the death of its keeper is not its own" rt start vm1
is "which runs on" "$(own_kernel vm1 && status vm1)" running
check "it is removed while it runs" rt rm --force vm1
refused "what the host's kernel alone has is refused" "cannot share the host's network" \
    rt launch --isolation vm --network host localhost/vm-busybox:1 vm1

done_testing
