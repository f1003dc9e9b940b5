#!/bin/bash
# pids: a fork over the limit fails inside, and nothing else does.
. /locule/tests/vm/lib/common.sh

make_bundle "$WORK/pids" sh -c 'sleep 1000'
config "$WORK/pids" '.linux.resources.pids = {limit: 12}'
check "a limited container starts" start pids "$WORK/pids"
is "limit is pids.max" "$(in_cgroup pids pids.max)" 12
like "a fork too many is refused" \
    "$(rt exec pids sh -c 'for n in 1 2 3 4 5 6 7 8 9 10 11 12 13; do sleep 20 & done' 2>&1)" "can't fork"
above "pids.events counts it" "$(in_cgroup pids pids.events | field max)" 0
is "the container lives" "$(status_of pids)" running

make_bundle "$WORK/all"
config "$WORK/all" '.linux.resources.pids = {limit: -1}'
start all "$WORK/all"
is "-1 is no limit" "$(in_cgroup all pids.max)" max

done_testing
