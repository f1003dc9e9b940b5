#!/bin/bash
# rootless: a user's container with nothing but spec --rootless, through its whole life.
. /locule/tests/vm/lib/common.sh

as_user_file
# The default place for state, as a user has it.
rt() { timeout -k 5 120 "$RUNTIME" "$@"; }
make_bundle "$WORK/life"
check "a container starts" start life "$WORK/life"
is "state" "$(status_of life)" running
check "state is kept below XDG_RUNTIME_DIR" test -e "$XDG_RUNTIME_DIR/$KIND/life"
is "exec as root inside" "$(rt exec life id -u)" 0
is "which is the user outside" "$(stat -c %u "/proc/$(pid_of life)")" 1000
# crun adds the subordinate ids by itself.
is "root inside is mapped" "$(awk 'NR == 1 {print $1, $2, $3}' "/proc/$(pid_of life)/uid_map")" "0 1000 1"
rt exec life sh -c 'exit 7' >/dev/null 2>&1
is "exec's exit code" $? 7
like "list" "$(rt list)" "life +[0-9]+ +running"
check "kill" rt kill life KILL
check "it stops" eventually has_status life stopped
check "delete" rt delete life
check "it is gone" gone life
make_bundle "$WORK/code" sh -c 'id -u; exit 3'
output=$(foreground code "$WORK/code")
is "run's exit code" $? 3
is "run's output" "$output" 0
is "run leaves nothing" "$(rt list -q)" ""

done_testing
