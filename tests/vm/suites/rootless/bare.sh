#!/bin/bash
# rootless: without session and delegation (behind su, in a cron job) a container runs, unlimited.
. /locule/tests/vm/lib/common.sh

if [ "$(id -u)" = 0 ]; then
    FINISHED=yes
    trap - EXIT
    rm -rf "$WORK"
    exec runuser -u user -- env -u XDG_RUNTIME_DIR -u DBUS_SESSION_BUS_ADDRESS RUNTIME="$RUNTIME" "$0"
fi
is "this runs as the user" "$(id -un)" user
check "the cgroup is not ours" test ! -w "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)"
make_bundle "$WORK/bare" echo ran
is "run" "$(foreground bare "$WORK/bare")" ran
make_bundle "$WORK/stay"
check "run --detach" start stay "$WORK/stay"
is "state" "$(status_of stay)" running
check "exec" rt exec stay true
check "delete --force" rt delete --force stay
check "it is gone" gone stay
config "$WORK/stay" '.linux.resources = {memory: {limit: 67108864}}'
if lacks crun; then
    skip "a limit that cannot be is refused" "it is dropped"
else
    refused "a limit that cannot be is refused" "cgroup|permission|not permitted" start limited "$WORK/stay"
fi

done_testing
