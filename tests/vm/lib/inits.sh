# What suites of machines share whose first process is an init other than systemd. Sourced after common.sh.

is_locule || skip_all "machines are locule's"

PATIENCE=400
# Where machines are by default: one set of directories has the networks of a host.
LOCULE_DATA=/var/lib/locule
rt() { timeout -k 5 450 locule "$@"; }
CLEANUPS+=("rt rm --force rc1" "rt image rm localhost/debian:13-inits")
inside() { rt exec rc1 -- "$@"; }
started() { inside rc-status default 2>&1 | grep -qE 'cron.*started'; }
init() { rt state rc1 | jq -r .pid; }
anew() { [ "$(init)" != "$1" ] && [ "$(init)" != 0 ]; }
is_now() { [ "$(rt ls --format json | jq -r '.[] | select(.name == "rc1").status')" = "$1" ]; }
ended=$LOCULE_DATA/machines/rc1/root/upper/root/ended

is "the image is taken in" "$(rt image import /var/tmp/images/debian-13-inits.tar)" localhost/debian:13-inits

# boots NAME REBOOT POWEROFF PROGRAM: it boots its services, is entered, reboots from inside, is stopped in good order,
# starts again, and powers off from inside.
boots() {
    local name=$1 reboot=$2 poweroff=$3 before
    shift 3
    check "$name: a system is launched" rt launch --memory 256M --network none --stop-timeout 400s debian:13-inits rc1 -- "$@"
    is "$name: it is its first process" "$(inside cat /proc/1/comm)" "$name"
    check "$name: it starts its services" eventually started
    is "$name: in their runlevel" "$(inside rc-status --runlevel)" default
    is "$name: the limit is seen inside" "$(inside awk '/^MemTotal/ {print $2}' /proc/meminfo)" $((256 << 10))
    like "$name: a login shell" "$(echo 'echo "$USER $HOME"' | rt enter rc1 2>/dev/null)" 'root /root'
    before=$(init)
    inside sh -c "$reboot" >/dev/null 2>&1
    check "$name: it reboots from inside" eventually anew "$before"
    check "$name: and starts its services anew" eventually started
    inside sh -c 'printf "#!/sbin/openrc-run\nstart() { :; }\nstop() { touch /root/ended; }\n" >/etc/init.d/mark
        chmod +x /etc/init.d/mark && rc-update add mark default && rc-service mark start' >/dev/null 2>&1
    check "$name: stop ends it" rt stop rc1
    is "$name: not by force" "$(jq -c '[.stopped, .signal != 9]' /run/locule/.machines/rc1/exit.json)" "[true,true]"
    check "$name: its services were stopped first" test -e "$ended"
    rm -f "$ended"
    check "$name: it starts again" rt start rc1
    check "$name: with its services" eventually started
    inside sh -c "$poweroff" >/dev/null 2>&1
    check "$name: it powers off from inside" eventually is_now stopped
    check "$name: in the same good order" test -e "$ended"
    check "$name: it is removed" rt rm --force rc1
}
