#!/bin/bash
# A machine whose init is not systemd: sysvinit with OpenRC's services boots, is entered, is stopped by the signal that it
# knows, and starts again from inside.
# needs: debian-13-openrc
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "machines are locule's"

LOCULE_DATA=/var/lib/locule
rt() { timeout -k 5 200 locule "$@"; }
CLEANUPS+=("rt rm --force rc1")
inside() { rt exec rc1 -- "$@"; }
started() { inside rc-status default 2>&1 | grep -qE 'cron.*started'; }
init() { rt state rc1 | jq -r .pid; }

is "the image is taken in" "$(rt image import /var/tmp/images/debian-13-openrc.tar)" localhost/debian:13-openrc
check "a system is launched" rt launch --memory 256M --network none --stop-timeout 120s debian:13-openrc rc1
is "init is its first process" "$(inside cat /proc/1/comm)" init
check "OpenRC starts its services" eventually started
like "in its runlevel" "$(inside rc-status --runlevel)" '^default$'
is "the limit is seen inside" "$(inside awk '/^MemTotal/ {print $2}' /proc/meminfo)" $((256 << 10))
like "a login shell" "$(echo 'echo "$USER $HOME"' | rt enter rc1 2>/dev/null)" 'root /root'
check "a service is stopped" inside rc-service cron stop
refused "and is" "stopped" inside rc-service cron status

before=$(init)
inside reboot >/dev/null 2>&1
anew() { [ "$(init)" != "$before" ] && [ "$(init)" != 0 ] && started; }
check "it reboots from inside" eventually anew

inside sh -c 'printf "#!/sbin/openrc-run\nstart() { :; }\nstop() { touch /root/ended; }\n" >/etc/init.d/mark
    chmod +x /etc/init.d/mark && rc-update add mark default && rc-service mark start' >/dev/null 2>&1
check "stop ends it" rt stop rc1
is "not by force" "$(jq -c '[.stopped, .signal != 9]' /run/locule/.machines/rc1/exit.json)" "[true,true]"
check "its services were stopped first" test -e "$LOCULE_DATA/machines/rc1/root/upper/root/ended"
check "it starts again" rt start rc1
check "with its services" eventually started
check "it is removed" rt rm --force rc1
done_testing
