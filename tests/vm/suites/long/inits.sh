#!/bin/bash
# A machine whose first process is sysvinit, which is asked to end by its pipe, then OpenRC's own init, which the image does
# not name as its /sbin/init. Each boots its services, reboots and powers off from inside, and is stopped in good order.
# needs: debian-13-inits
. /locule/tests/vm/lib/common.sh

is_locule || skip_all "machines are locule's"
# Where machines are by default: one set of directories has the networks of a host.
LOCULE_DATA=/var/lib/locule
rt() { timeout -k 5 300 locule "$@"; }
CLEANUPS+=("rt rm --force rc1" "rt image rm localhost/debian:13-inits")
inside() { rt exec rc1 -- "$@"; }
started() { inside rc-status default 2>&1 | grep -qE 'mark.*started'; }
init() { rt state rc1 | jq -r .pid; }
anew() { [ "$(init)" != "$1" ] && [ "$(init)" != 0 ]; }
ended_itself() { [ "$(jq -c '[.stopped, .signal]' /run/locule/.machines/rc1/exit.json)" = "[false,2]" ]; }
ended=$LOCULE_DATA/machines/rc1/root/upper/root/ended

is "the image is taken in" "$(rt image import /var/tmp/images/debian-13-inits.tar)" localhost/debian:13-inits
check "a machine" rt launch --memory 256M --network none --stop-timeout 200s debian:13-inits rc1 -- sleep 10000
# A service of the test's own; those of Debian that look for hardware and mount what is mounted take a minute under emulation.
check "a service, and none for hardware" inside sh -ec '
    cd /etc/init.d
    for name in *; do case $name in rc|rcS|halt|reboot|savecache) ;; *) rm -f "$name" /etc/runlevels/*/"$name" ;; esac; done
    echo "rc_sys=\"lxc\"" >>/etc/rc.conf
    sed -i /getty/d /etc/inittab
    printf "#!/sbin/openrc-run\nstart() { :; }\nstop() { touch /root/ended; }\n" >mark
    chmod +x mark
    rc-update add mark default'
check "it is stopped" rt stop rc1

# boots NAME REBOOT POWEROFF PROGRAM
boots() {
    local name=$1 reboot=$2 poweroff=$3 before
    check "$name: is what it boots" rt set rc1 "init.command=$4"
    check "$name: it is started" rt start rc1
    is "$name: it is its first process" "$(inside cat /proc/1/comm)" "$name"
    check "$name: it starts its services" eventually started
    is "$name: in their runlevel" "$(inside rc-status --runlevel)" default
    is "$name: the limit is seen inside" "$(inside awk '/^MemTotal/ {print $2}' /proc/meminfo)" $((256 << 10))
    like "$name: a login shell" "$(echo 'echo "$USER $HOME"' | rt enter rc1 2>/dev/null)" 'root /root'
    before=$(init)
    inside sh -c "$reboot" >/dev/null 2>&1
    check "$name: it reboots from inside" eventually anew "$before"
    check "$name: its services were stopped first" test -e "$ended"
    check "$name: and are started anew" eventually started
    rm -f "$ended"
    check "$name: stop ends it" rt stop rc1
    is "$name: not by force" "$(jq -c '[.stopped, .signal]' /run/locule/.machines/rc1/exit.json)" "[true,2]"
    check "$name: in the same good order" test -e "$ended"
    check "$name: it starts again" rt start rc1
    check "$name: with its services" eventually started
    rm -f "$ended"
    inside sh -c "$poweroff" >/dev/null 2>&1
    check "$name: it powers off from inside" eventually ended_itself
    check "$name: in the same good order as well" test -e "$ended"
    rm -f "$ended"
}

boots init reboot poweroff /sbin/init
boots openrc-init 'openrc-shutdown -r now' 'openrc-shutdown -p now' /sbin/openrc-init
check "it is removed" rt rm --force rc1
done_testing
