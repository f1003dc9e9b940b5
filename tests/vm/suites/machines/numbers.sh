#!/bin/bash
# What a machine sees of itself in /proc and /sys with every controller there, and what the host sees of it.
. /locule/tests/vm/lib/common.sh

is_locule || skip_all "machines are locule's own"
export LOCULE_DATA=$WORK/data
num() { timeout -k 5 120 "$RUNTIME" --root "$WORK/run" "$@"; }
inside() { num exec numbers "$@"; }
CLEANUPS+=("num rm --force numbers")

before=$(cut -d. -f1 /proc/uptime)
check "a machine with limits starts" num launch -d host numbers --network none --memory 256M --cpus 1 --pids 200 -- sleep infinity

is "free: its limit is all there is" "$(inside free -m | awk '/^Mem:/ {print $2}')" 256
is "busybox reads the same file" "$(inside busybox grep MemTotal /proc/meminfo | tr -s ' ')" "MemTotal: 262144 kB"
is "python3 as well" "$(inside python3 -c 'print(open("/proc/meminfo").readline().split()[1])')" 262144
above "most of it is free" "$(inside awk '/^MemFree/ {print $2}' /proc/meminfo)" 100000
above "and less than all" 262144 "$(inside awk '/^MemFree/ {print $2}' /proc/meminfo)"
inside dd if=/dev/zero of=/dev/shm/fill bs=1M count=60 status=none
shared() { [ "$(inside free -m | awk '/^Mem:/ {print $5}')" -ge 60 ]; }
check "what it writes into memory is used" eventually shared
is "no tmpfs is available memory" "$(inside awk '/^MemAvailable/ {print ($2 < 262144 - 60 * 1024)}' /proc/meminfo)" 1
inside rm /dev/shm/fill

is "one processor is online" "$(inside cat /sys/devices/system/cpu/online)" 0
is "cpuinfo has one" "$(inside grep -c ^processor /proc/cpuinfo)" 1
is "getconf and python3 count one" "$(inside getconf _NPROCESSORS_ONLN) $(inside python3 -c 'import os; print(os.cpu_count())')" "1 1"
is "stat has its line" "$(inside grep -c '^cpu[0-9]' /proc/stat)" 1
sum=$(inside top -bn2 -d1 | grep '%Cpu' | tail -1 | tr ',' '\n' | sed 's/[^0-9.]*\([0-9.]*\).*/\1/' | awk '{s += $1} END {print int(s + 0.5)}')
like "top adds up" "$sum" '^(99|100|101)$'
since=$(($(cut -d. -f1 /proc/uptime) - before + 1))
up=$(inside cut -d. -f1 /proc/uptime)
above "its uptime is no more than the time since its start" "$((since + 1))" "$up"
like "and uptime says so" "$(inside uptime)" 'up [0-9]+ min'
like "busybox's as well" "$(inside busybox uptime)" 'up +(0:[0-9]{2}|[0-9]+ min)'
is "python3 knows when it began" "$(inside python3 -c 'import time; print(time.clock_gettime(time.CLOCK_BOOTTIME) < 600)')" True
# What docs/numbers.md says is not covered: sysinfo(2) is the host's.
is "busybox free asks sysinfo(2)" "$(inside busybox free | awk '/^Mem:/ {print $2}')" "$(busybox free | awk '/^Mem:/ {print $2}')"
is "so does sysconf(3)" "$(inside python3 -c 'import os; print(os.sysconf("SC_PHYS_PAGES"))')" \
    "$(python3 -c 'import os; print(os.sysconf("SC_PHYS_PAGES"))')"
like "loadavg" "$(inside cat /proc/loadavg)" '^[0-9]+\.[0-9]{2} [0-9]+\.[0-9]{2} [0-9]+\.[0-9]{2} [0-9]+/[0-9]+ '
like "pressure is the group's own" "$(inside cat /proc/pressure/memory)" '^some avg10='
is "vmstat counts its faults" "$(inside awk '/^pgfault/ {print ($2 > 0)}' /proc/vmstat)" 1
refused "nobody inside writes to it" "denied|read-only|permitted" inside sh -c 'echo x > /proc/meminfo'
refused "not after a remount either" "denied|read-only|permitted" \
    inside sh -c 'mount -o remount,bind,rw /proc/meminfo; echo x > /proc/meminfo'

check "a limit is changed" num set numbers memory=384M
is "and seen at once" "$(inside free -m | awk '/^Mem:/ {print $2}')" 384

num stats --no-stream --format json numbers >"$WORK/stats"
check "stats" jq -e '.[0] | .memory.limit == 402653184 and .memory.usage > 0 and .pids.limit == 200 and .cpu.limit == 1' "$WORK/stats"
like "stats as a table" "$(num stats --no-stream numbers | tail -1)" '^numbers .*384M'
like "ls" "$(num ls -H -o name,status,memory,cpus)" '^numbers  running +384M +1$'
above "ls knows what is used" "$(num ls --format json | jq '.[0].memory_used')" 0

keeper=$(jq .keeper.pid "$WORK/run/.machines/numbers/keeper.json")
inside sh -c 'touch /dev/shm/reading; i=0; while [ $i -lt 200 ]; do cat /proc/stat /proc/meminfo >/dev/null || exit 9; i=$((i + 1)); done' &
reader=$!
check "a reader begins" eventually inside test -e /dev/shm/reading
kill -KILL "$keeper"
# Not in a subshell, whose child it is not.
wait $reader
is "kill -9 of the keeper ends no reader" $? 0
is "the last numbers stand" "$(inside free -m | awk '/^Mem:/ {print $2}')" 384
check "it gets a keeper again" num repair
inside dd if=/dev/zero of=/dev/shm/fill bs=1M count=60 status=none
check "and the numbers are those of now" eventually shared

check "it is removed" num rm --force numbers
is "its events" "$(num events --no-stream --format json | jq -r .event | tr '\n' ' ')" "create start set adopt die remove "

# Another program has all the groups that root may have.
sysctl -qw fs.fanotify.max_user_groups=128
python3 -c '
import ctypes, time
libc, taken = ctypes.CDLL(None), 0
while libc.fanotify_init(4, 0) >= 0:
    taken += 1
print(taken, flush=True)
time.sleep(600)' >"$WORK/taken" &
taker=$!
CLEANUPS+=("kill $taker")
check "the groups are taken" eventually test -s "$WORK/taken"
check "a machine starts without a group left" num launch -d host numbers --network none --memory 128M -- sleep infinity
above "its keeper has raised the limit" "$(sysctl -n fs.fanotify.max_user_groups)" 128
inside dd if=/dev/zero of=/dev/shm/fill bs=1M count=60 status=none
check "and the numbers are those of now" eventually shared
kill $taker

done_testing
