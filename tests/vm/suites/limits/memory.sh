#!/bin/bash
# memory: the limit is there, kills at it, and is reported where engines look.
. /locule/tests/vm/lib/common.sh

b=$WORK/oom
make_bundle "$b"
config "$b" '.linux.resources.memory = {limit: 33554432, reservation: 16777216, swap: 67108864}'
check "a limited container starts" start oom "$b"
is "limit is memory.max" "$(in_cgroup oom memory.max)" 33554432
is "reservation is memory.low" "$(in_cgroup oom memory.low)" 16777216
is "swap is memory.swap.max, without the memory in it" "$(in_cgroup oom memory.swap.max)" 33554432
is "without swap in the machine nothing hides the limit" "$(wc -l </proc/swaps)" 1

if ! lacks crun; then
    rt events --interval 1s oom >"$WORK/events" 2>&1 &
    events=$!
    eventually grep -q '"stats"' "$WORK/events"
fi
rt exec oom dd if=/dev/zero of=/dev/null bs=64M count=1 >/dev/null 2>&1
is "a process over the limit is killed" $? 137
above "memory.events counts the kill" "$(in_cgroup oom memory.events | field oom_kill)" 0
is "the rest of the container lives" "$(status_of oom)" running
if lacks crun; then
    skip "events reports the kill" "no events verb"
    skip "events --stats has limit and usage" "no events verb"
else
    check "events reports the kill" eventually grep -q '"type":"oom"' "$WORK/events"
    kill $events 2>/dev/null
    wait $events 2>/dev/null
    is "events --stats has limit and usage" \
        "$(rt events --stats oom | jq -c '[.type, .id, .data.memory.usage.limit, .data.memory.usage.usage > 0]')" \
        '["stats","oom",33554432,true]'
fi

make_bundle "$WORK/init" dd if=/dev/zero of=/dev/null bs=64M count=1
config "$WORK/init" '.linux.resources.memory = {limit: 33554432}'
foreground init "$WORK/init" >/dev/null
is "run of an init over the limit ends with 137" $? 137

make_bundle "$WORK/unlimited"
config "$WORK/unlimited" '.linux.resources.memory = {limit: -1, swap: -1}'
start unlimited "$WORK/unlimited"
is "-1 is no limit" "$(in_cgroup unlimited memory.max) $(in_cgroup unlimited memory.swap.max)" "max max"

done_testing
