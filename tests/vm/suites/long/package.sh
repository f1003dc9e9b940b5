#!/bin/bash
# The Debian package on a machine with systemd: a machine launched with it is there again after a reboot, with its
# limits, its console, its log; and systemctl rules it.
. /locule/tests/vm/lib/common.sh
: "${BOOTS:=0}"
is_locule || skip_all "machines are locule's"
. /locule/tests/vm/lib/machines.sh
install_package

main_pid() { systemctl show --value --property MainPID "$UNIT"; }
in_web1() { $LOCULE exec web1 "$@"; }

if [ "$BOOTS" = 0 ]; then
    check "the generator is there" test -x /usr/lib/systemd/system-generators/locule-generator
    check "the units are sound" systemd-analyze verify --man=no /usr/lib/systemd/system/locule@.service
    like "the manual is in it" "$(dpkg-deb --contents "/locule/$package")" 'man/man1/locule-logs\.1\.gz'
    check "launch" $LOCULE launch host web1 --memory 512M -p 8080:80 --boot --stop-timeout 20s
    check "it is a unit's" is_up
    is "the keeper is the main process" "$(jq .keeper.pid /run/locule/.machines/web1/keeper.json)" "$(main_pid)"
    check "systemd runs inside" eventually in_web1 systemctl is-active dbus.socket
    is "the limit is the machine's" "$(cat "$(payload)/memory.max")" $((512 << 20))
    like "the keeper is not in the machine's cgroup" "$(cat "/proc/$(main_pid)/cgroup")" "$UNIT/supervisor"

    # A killed keeper takes nothing along.
    init=$(jq .init /run/locule/.machines/web1/keeper.json)
    before=$(main_pid)
    kill -KILL "$before"
    another() { is_up && [ "$(main_pid)" != "$before" ] && [ "$(jq .init /run/locule/.machines/web1/keeper.json)" = "$init" ]; }
    check "another keeper takes the machine over" eventually another
    check "the machine did not notice" kill -0 "$init"
    check "the console was kept for it" bash -c "sleep 2 | timeout 10 $LOCULE console web1 | grep -q ."

    # What the machine serves on port 80 answers on the host's 8080.
    in_web1 sh -c "$(serve enable --now)" >/dev/null 2>&1
    check "its port is published" eventually answers
    [ "$CHECKS" -gt 0 ] && reboot
fi

another_boot
check "its port answers" eventually answers
like "enter is a shell in it" "$(echo hostname | $LOCULE enter web1 2>/dev/null)" web1
like "logs are there" "$($LOCULE logs web1 2>&1)" '(systemd|Started|Welcome|login)'
like "the journal knows its lines" "$(journalctl --unit "$UNIT" --output json --lines 5)" '"CONTAINER_NAME":"web1"'

check "systemctl set-property" systemctl set-property --runtime "$UNIT" MemoryMax=400M
is "binds the unit" "$(cat "$(dirname "$(payload)")/memory.max")" $((400 << 20))
is "and leaves the machine's own limit" "$(cat "$(payload)/memory.max")" $((512 << 20))
like "systemctl status" "$(systemctl status --no-pager "$UNIT")" 'active \(running\)'
init=$(jq .init /run/locule/.machines/web1/keeper.json)
check "systemctl restart" systemctl restart "$UNIT"
check "is another start" test "$(jq .init /run/locule/.machines/web1/keeper.json)" != "$init"
init=$(jq .init /run/locule/.machines/web1/keeper.json)
eventually in_web1 systemctl is-active dbus.socket
in_web1 systemctl reboot >/dev/null 2>&1
# Between two keepers there is no keeper.json, and before the next start it names no init: neither is another start.
again() { is_up && jq --exit-status ".init != null and .init != $init" /run/locule/.machines/web1/keeper.json >/dev/null; }
check "a reboot from inside starts it again" eventually again
check "systemctl stop" systemctl stop "$UNIT"
is "its end is recorded" "$(jq .stopped /run/locule/.machines/web1/exit.json)" true
like "locule knows" "$($LOCULE ls)" 'web1 +stopped'
check "systemctl start" systemctl start "$UNIT"
check "locule stop" $LOCULE stop web1
inactive() { [ "$(systemctl is-active "$UNIT")" = inactive ]; }
check "systemd knows" eventually inactive
check "a failed start says why" bash -c "echo 'image = 5' >/var/lib/locule/machines/web1/machine.toml; ! $LOCULE start web1"

$LOCULE launch --no-start --network none --name app1 host -- sh -c 'echo to the journal; exec sleep 1000' >/dev/null
printf '\n[log]\ndriver = "journald"\n' >>/var/lib/locule/machines/app1/machine.toml
check "a machine's log in the journal" $LOCULE start app1
lines() { journalctl --output cat CONTAINER_NAME=app1 CONTAINER_TAG=app1 | grep -qx 'to the journal'; }
check "is found by its name" eventually lines
like "and by locule logs" "$($LOCULE logs app1)" 'to the journal'
$LOCULE rm --force app1

check "the package is removed" dpkg --remove locule
check "with no machine left running" test ! -e "$(payload)"
check "and its data kept" test -e /var/lib/locule/machines/web1/machine.toml
done_testing
