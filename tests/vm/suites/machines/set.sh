#!/bin/bash
# set: every live key of a machine that runs, seen in its cgroup and from inside.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "machines are locule's own"

NAME=set-test
rm_machine() { "$RUNTIME" rm --force $NAME >/dev/null 2>&1; }
CLEANUPS+=(rm_machine)
L() { "$RUNTIME" "$@"; }

check "a machine is launched" L launch --network none host $NAME -- sleep infinity
GROUP=/sys/fs/cgroup$(jq -r .cgroup.path /run/locule/$NAME/state.json)
FILE=/var/lib/locule/machines/$NAME/machine.toml
held() { cat "$GROUP/$1"; }

# live KEY=VALUE FILE WANTED
live() {
    check "set $1" L set $NAME "$1"
    is "$1 is in $2" "$(held "$2")" "$3"
}

live memory=256M memory.max 268435456
live memory.high=200M memory.high 209715200
live memory.guarantee=64M memory.low 67108864
live swap=32M memory.swap.max 33554432
live swap=0 memory.swap.max 0
live memory.oom-group=on memory.oom.group 1
live cpus=1.5 cpu.max "150000 100000"
live cpu.burst=20ms cpu.max.burst 20000
check "quota and burst shrink together" L set $NAME cpus=0.1 cpu.burst=5ms
is "the quota" "$(held cpu.max)" "10000 100000"
is "the burst" "$(held cpu.max.burst)" 5000
live cpu.weight=50 cpu.weight 50
live cpu.set=0 cpuset.cpus 0
live cpu.nodes=0 cpuset.mems 0
is "one processor inside" "$(L exec $NAME nproc)" 1
live pids=50 pids.max 50
live cgroup.max=10 cgroup.max.descendants 10
live hugepages.2M=4M hugetlb.2MB.max 4194304
live cgroup.unified.memory.swap.high=1048576 memory.swap.high 1048576
if [ -e "$GROUP/io.weight" ]; then live io.weight=50 io.weight "default 50"; else skip "io.weight" "no such file"; fi
check "io limits" L set $NAME io.bps=10M io.iops=500
like "io.max" "$(held io.max)" "^[0-9]+:[0-9]+ rbps=10485760 wbps=10485760 riops=500 wiops=500$"
check "ulimit" L set $NAME ulimit.nofile=500:600
like "the first process has it" "$(grep 'open files' "/proc/$(jq .init.pid /run/locule/$NAME/state.json)/limits")" "500 +600"

check "fewer terminals" L set $NAME pids.ptys=3
is "it has so many" "$(L exec $NAME python3 -c 'import os
open_ptys = []
try:
    while len(open_ptys) < 9: open_ptys.append(os.openpty())
except OSError: pass
print(len(open_ptys))')" 3
like "which are its own as before" "$(L exec $NAME python3 -c 'import os; print(oct(os.stat(os.ttyname(os.openpty()[1])).st_mode), os.stat(os.ttyname(os.openpty()[1])).st_gid)')" '^0o20620 5$'
is "the kernel says so" "$(L show --format json $NAME | jq '.keys["pids.ptys"].effective')" 3
check "for a while" L set --runtime $NAME pids.ptys=5
is "not the definition" "$(L show --format json $NAME | jq -c '[.differs, .keys["pids.ptys"].asked]')" '[["pids.ptys"],3]'
check "as at first" L set $NAME pids.ptys=
check "ptys again" sh -c "$RUNTIME exec $NAME python3 -c 'import os; [os.openpty() for _ in range(9)]'"
check "and one limit that stays" L set $NAME pids.ptys=64

is "nothing differs" "$(L show --format json $NAME | jq -c .differs)" "[]"
is "the definition has it" "$(grep -c '^limit' $FILE)" 3

# Shrinking below what is in use: refused, and nothing changed.
check "room and time again" L set $NAME memory=256M memory.high= memory.guarantee= cpus=1 cpu.burst=
L exec --detach $NAME sh -c 'exec 3</dev/zero; head -c 100m <&3 | tail -c 100m | sleep infinity' || true
used() { [ "$(held memory.current)" -gt 90000000 ]; }
check "the machine uses memory" eventually used
BEFORE=$(cat $FILE)
refused "shrinking below use" "cannot be reclaimed" L set $NAME memory=16M pids=40
is "memory.max stays" "$(held memory.max)" 268435456
is "memory.high stays" "$(held memory.high)" max
is "pids.max stays" "$(held pids.max)" 50
is "the definition stays" "$(cat $FILE)" "$BEFORE"
is "nothing was killed" "$(awk '$1 == "oom_kill" { print $2 }' "$GROUP/memory.events")" 0

# A value that the kernel refuses takes the others back.
refused "a processor that is not there" "cpu.set" L set $NAME pids=41 cpu.set=4095
is "pids.max stays" "$(held pids.max)" 50

check "runtime" L set --runtime $NAME pids=60
is "the kernel has it" "$(held pids.max)" 60
is "the definition has not" "$(L show --format json $NAME | jq -c '[.differs, .keys["pids.limit"].asked, .keys["pids.limit"].effective]')" '[["pids.limit"],50,60]'

# Everything away again.
check "all limits away" L set $NAME memory= swap= memory.oom-group= cpus= cpu.burst= cpu.weight= cpu.set= cpu.nodes= pids= \
    cgroup.max= hugepages.2M= io.bps= io.iops=
for pair in memory.max:max memory.swap.max:max memory.oom.group:0 "cpu.max:max 100000" cpu.max.burst:0 cpu.weight:100 \
    "cpuset.cpus:$(cat "$GROUP/../cpuset.cpus.effective")" pids.max:max cgroup.max.descendants:max hugetlb.2MB.max:max io.max:; do
    is "${pair%%:*} is as at first" "$(held "${pair%%:*}")" "${pair#*:}"
done

check "set cpu.count=1" L set $NAME cpu.count=1
like "is one processor in cpuset.cpus" "$(held cpuset.cpus)" "^[0-9]+$"
is "one processor inside" "$(L exec $NAME nproc)" 1

done_testing
