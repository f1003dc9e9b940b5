#!/bin/bash
# pause and resume: frozen when pause returns, and a frozen container can be ended.
. /locule/tests/vm/lib/common.sh

make_bundle "$WORK/ice" sh -c 'trap "exit 5" TERM; while :; do sleep 1; done'
check "a container starts" start ice "$WORK/ice"
is "it is not frozen" "$(in_cgroup ice cgroup.events | field frozen)" 0
check "pause" rt pause ice
is "cgroup.events says frozen when pause returns" "$(in_cgroup ice cgroup.events | field frozen)" 1
is "state is paused" "$(status_of ice)" paused
like "list says so" "$(rt list | grep ^ice)" " paused "
refused "exec into a paused container is refused, not stuck" "paused" rt exec ice true
check "resume" rt resume ice
is "it is thawed when resume returns" "$(in_cgroup ice cgroup.events | field frozen)" 0
is "state is running" "$(status_of ice)" running
check "exec works again" rt exec ice true
if lacks crun; then
    skip "resume of a running container is refused" "it is not"
else
    refused "resume of a running container is refused" "paused|running" rt resume ice
fi

rt pause ice
check "a signal for a paused container is taken" rt kill ice TERM
is "it waits" "$(status_of ice)" paused
rt resume ice
check "and comes with resume" eventually has_status ice stopped
refused "pause of a stopped container is refused" "stopped|not running|running" rt pause ice
check "delete" rt delete ice

make_bundle "$WORK/killed"
start killed "$WORK/killed"
rt pause killed
check "KILL ends a paused container without resume" rt kill killed KILL
check "it ends" eventually has_status killed stopped
check "delete of it" rt delete killed

make_bundle "$WORK/deleted"
start deleted "$WORK/deleted"
path=$(cgroup_of deleted)
rt pause deleted
check "delete --force ends a paused container" rt delete --force deleted
check "nothing is left of it" gone deleted
is "nor of its cgroup" "$(ls -d "$path" 2>/dev/null)" ""

done_testing
