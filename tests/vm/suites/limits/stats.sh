#!/bin/bash
# events --stats: what containerd and cAdvisor read from it.
. /locule/tests/vm/lib/common.sh

! lacks crun || skip_all "no events verb"
make_bundle "$WORK/stats"
config "$WORK/stats" '.linux.resources.memory = {limit: 67108864} | .linux.resources.pids = {limit: 50}'
check "a container starts" start stats "$WORK/stats"
rt events --stats stats >"$WORK/json"
is "one document" "$(jq -s length "$WORK/json")" 1
is "type and id" "$(jq -r '.type + " " + .id' "$WORK/json")" "stats stats"
check "cpu.usage.total grew" jq -e '.data.cpu.usage.total > 0' "$WORK/json"
check "cpu.usage.kernel and user are numbers" jq -e '.data.cpu.usage | (.kernel + .user) >= 0' "$WORK/json"
check "cpu.throttling is there" jq -e '.data.cpu | has("throttling")' "$WORK/json"
check "memory.usage" jq -e '.data.memory.usage | .limit == 67108864 and .usage > 0' "$WORK/json"
check "memory.raw is memory.stat" jq -e '.data.memory.raw | .anon > 0 and has("file") and has("slab")' "$WORK/json"
check "pids" jq -e '.data.pids | .current == 1 and .limit == 50' "$WORK/json"
check "hugetlb and blkio are there" jq -e '.data | has("hugetlb") and has("blkio")' "$WORK/json"
delete stats
refused "not of a container that is gone" "not exist|not found|no such" rt events --stats stats

done_testing
