#!/bin/bash
# A machine that boots systemd: the VM's own programs, by the image host. Limits hold, it is entered, it reboots from
# inside, it shuts down when it is told to.
# takes: 70
. /locule/tests/vm/lib/common.sh

is_locule || skip_all "machines are locule's"
# Where machines are by default: one set of directories has the networks of a host.
LOCULE_DATA=/var/lib/locule
rt() { timeout -k 5 120 locule "$@"; }
CLEANUPS+=("rt rm --force sys1")

inside() { rt exec sys1 -- "$@"; }
# Booted, whatever failed: services of the VM's own that have no hardware here may.
booted() { inside systemctl is-system-running | grep -qE '^(running|degraded)$'; }
boot_of() { rt state sys1 | jq -r .pid; }
runs_anew() { [ "$(boot_of)" != "$1" ] && [ "$(boot_of)" != 0 ] && booted; }

check "a system is launched" rt launch --memory 256M --cpus 1.5 --pids 400 --stop-timeout 100s host sys1
check "it boots" eventually booted
is "systemd is its first process" "$(inside cat /proc/1/comm)" systemd
is "it knows where it is" "$(inside systemd-detect-virt --container)" container-other
like "its log is its own" "$(inside journalctl --no-pager -n 3 -u systemd-journald 2>&1)" "."
check "services can be made" inside systemd-run --quiet --wait true
check "with a sandbox of their own" inside systemd-run --quiet --wait -p PrivateTmp=yes -p ProtectSystem=strict true
is "it has a host name" "$(inside hostname)" sys1

group=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(boot_of)/cgroup" | sed 's,/init.scope$,,')
is "memory.max" "$(cat "$group/memory.max")" 268435456
is "pids.max" "$(cat "$group/pids.max")" 400
is "cpu.max" "$(cat "$group/cpu.max")" "150000 100000"
is "free shows the limit" "$(inside sh -c 'free -m | awk "/Mem:/ { print \$2 }"')" 256
refused "memory beyond the limit is not to be had" "" \
    rt exec sys1 -- systemd-run --quiet --wait --pipe -p MemorySwapMax=0 python3 -c 'x = bytearray(600 << 20); print(len(x))'
above "the kernel has seen to it" "$(field oom_kill <"$group/memory.events")" 0
check "and the machine lives on" booted

like "a login shell" "$(echo 'echo "$USER $HOME $0"' | rt enter sys1)" "root /root"
up=$(inside cut -d. -f1 /proc/uptime)
check "its clock began with it" test "$up" -lt 600

before=$(boot_of)
inside systemctl reboot || true
check "it reboots from inside" eventually runs_anew "$before"
is "with the same limits" "$(cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(boot_of)/cgroup" | sed 's,/init.scope$,,')/memory.max")" 268435456
inside touch /root/kept

check "it shuts down when told to" rt stop sys1
is "and is stopped" "$(rt ls --format json | jq -r '.[] | select(.name == "sys1").status')" stopped
check "its files stay" test -e "$LOCULE_DATA/machines/sys1/root/upper/root/kept"
check "it is removed" rt rm sys1
check "with its ids" test -z "$(ls "$LOCULE_DATA/claims/uid")"
done_testing
