#!/bin/bash
# A machine of Debian 13 with only the package installed: launched with a limit and a port, it is up again after the
# host's reboot; systemctl sees, enables and disables it as any other service.
# takes: 140
# needs: debian-13
. /locule/tests/vm/lib/common.sh
: "${BOOTS:=0}"
is_locule || skip_all "machines are locule's"
. /locule/tests/vm/lib/machines.sh
install_package

inside() { $LOCULE exec web1 -- "$@"; }
booted() { inside systemctl is-system-running | grep -qE '^(running|degraded)$'; }
PATIENCE=400

if [ "$BOOTS" = 0 ]; then
    is "the image is taken in" "$($LOCULE image import /var/tmp/images/debian-13.tar)" localhost/debian:13
    check "launch debian:13" $LOCULE launch debian:13 web1 --memory 512M -p 8080:80 --boot
    check "it boots" eventually booted
    like "it is Debian 13" "$(inside cat /etc/os-release)" 'VERSION_ID="13"'
    is "systemctl is-active" "$(systemctl is-active "$UNIT")" active
    is "systemctl is-enabled" "$(systemctl is-enabled "$UNIT")" enabled
    inside sh -c "$(serve enable --now)"
    check "its port is published" eventually answers
    [ "$CHECKS" -gt 0 ] && reboot
fi

another_boot
check "it boots" eventually booted
is "and is seen inside" "$(inside awk '/^MemTotal/ {print $2}' /proc/meminfo)" $((512 << 10))
inside sh -c 'head -c 700m /dev/zero | tail -c 700m | wc -c' >/dev/null 2>&1
above "the kernel keeps to it" "$(awk '$1 == "oom_kill" {print $2}' "$(payload)/memory.events")" 0
check "its port answers" eventually answers
like "enter is a login shell" "$(echo 'echo "$USER $HOME $(hostname)"' | $LOCULE enter web1 2>/dev/null)" 'root /root web1'
like "logs are there" "$($LOCULE logs web1 2>&1)" '(systemd|Started|Welcome|login)'

like "systemctl status" "$(systemctl status --no-pager "$UNIT")" 'enabled.*active \(running\)'
check "systemctl disable" systemctl disable "$UNIT"
is "is-enabled says so" "$(systemctl is-enabled "$UNIT")" disabled
systemctl daemon-reload
is "also when systemd has looked again" "$(systemctl is-enabled "$UNIT")" disabled
check "set boot=on enables it again" $LOCULE set web1 boot=on
is "is-enabled" "$(systemctl is-enabled "$UNIT")" enabled
check "set boot=off" $LOCULE set web1 boot=off
is "disables it" "$(systemctl is-enabled "$UNIT")" disabled
check "systemctl enable" systemctl enable "$UNIT"
is "enables it" "$(systemctl is-enabled "$UNIT")" enabled
check "set boot=on" $LOCULE set web1 boot=on
check "systemctl stop" systemctl stop "$UNIT"
check "rename" $LOCULE rename web1 web2
is "takes it along" "$(systemctl is-enabled locule@web2) $(systemctl is-enabled "$UNIT")" "enabled disabled"
check "rm" $LOCULE rm web2
is "leaves no link" "$(ls -A /etc/systemd/system/locule.target.wants)" ""
done_testing
