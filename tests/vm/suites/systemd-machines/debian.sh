#!/bin/bash
# A machine of Debian 13 with only the package installed: launched with a limit and a port, it is up again after the
# host's reboot; systemctl sees, enables and disables it as any other service.
# needs: debian-13
# shellcheck source=../../lib/common.sh
. "$(dirname "$0")/../../lib/common.sh"
: "${BOOTS:=0}"
is_locule || skip_all "machines are locule's"

LOCULE=/usr/bin/locule
UNIT=locule@web1.service
aside=/usr/local/bin/.locule-aside
put_back() {
    $LOCULE rm --force web1
    $LOCULE rm --force web2
    dpkg --purge locule
    rm -rf /var/lib/locule /run/locule
    systemctl daemon-reload
    mv -f $aside /usr/local/bin/locule
}
CLEANUPS+=(put_back)
is_up() { [ "$(systemctl is-active "$UNIT")" = active ]; }
inside() { $LOCULE exec web1 -- "$@"; }
booted() { inside systemctl is-system-running | grep -qE '^(running|degraded)$'; }
payload() { echo "/sys/fs/cgroup$(systemctl show --value --property ControlGroup "$UNIT")/payload"; }
answers() { busybox wget -q -T 30 -O - http://127.0.0.1:8080/ | grep -q served; }
PATIENCE=400

if [ "$BOOTS" = 0 ]; then
    package=$(cd /locule && DEB_COMPRESSION=none tools/deb /usr/local/bin/locule 2>&1 | tail -n 1)
    # Nothing but the package may serve.
    mv /usr/local/bin/locule $aside
    hash -r
    check "the package is installed" dpkg --install "/locule/$package"
    is "the image is taken in" "$($LOCULE image import /var/tmp/images/debian-13.tar)" localhost/debian:13
    check "launch debian:13" $LOCULE launch debian:13 web1 --memory 512M -p 8080:80 --boot
    check "it boots" eventually booted
    like "it is Debian 13" "$(inside cat /etc/os-release)" 'VERSION_ID="13"'
    is "systemctl is-active" "$(systemctl is-active "$UNIT")" active
    is "systemctl is-enabled" "$(systemctl is-enabled "$UNIT")" enabled
    inside sh -c 'cat >/usr/local/bin/www <<"END"
#!/usr/bin/perl
use IO::Socket::INET;
$s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die;
while ($c = $s->accept) { $_ = <$c>; print $c "HTTP/1.0 200 OK\r\n\r\nserved\n"; close $c }
END
chmod +x /usr/local/bin/www
cat >/etc/systemd/system/www.service <<"END"
[Service]
ExecStart=/usr/local/bin/www
[Install]
WantedBy=multi-user.target
END
systemctl enable --now www.service'
    check "its port is published" eventually answers
    [ "$CHECKS" -gt 0 ] && reboot
fi

check "web1 is up after the reboot" eventually is_up
is "it is another boot" "$(jq -r .keeper.boot_id /run/locule/.machines/web1/keeper.json)" "$(cat /proc/sys/kernel/random/boot_id)"
check "it boots" eventually booted
is "the limit holds" "$(cat "$(payload)/memory.max")" $((512 << 20))
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
