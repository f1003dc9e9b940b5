#!/bin/bash
# A Debian with a kernel of its own: prepared on the host's kernel, it boots systemd on its own one, is entered, serves a
# port, and shuts down when it is told to.
# needs: debian-13
. /locule/tests/vm/lib/vm.sh
. /locule/tests/vm/lib/machines.sh

# A boot takes minutes where the host is emulated.
PATIENCE=400
# Where machines are by default: one set of directories has the networks of a host.
rt() { timeout -k 5 $LIMIT locule "$@"; }
CLEANUPS+=("rt rm --force vm2" "rt image rm localhost/debian:13")
inside() { rt exec vm2 -- "$@"; }
booted() { [ "$(inside systemctl is-system-running)" = running ]; }
# Asking inside would take its processors from the boot.
at_login() { rt logs vm2 | grep -q 'login:'; }

is "the image is taken in" "$(rt image import /var/tmp/images/debian-13.tar)" localhost/debian:13
check "a Debian" rt launch --memory 400M --stop-timeout 200s -p 8092:80 debian:13 vm2 -- sleep 10000
# What the first boot alone does, and takes longer for than its timeout under emulation.
check "is prepared on the host's kernel" inside systemctl mask ldconfig.service systemd-journal-catalog-update.service
inside sh -c "$(serve enable)" >/dev/null 2>&1
check "and stopped" rt stop vm2
check "its own kernel, and its init" rt set vm2 isolation=vm init.command=/sbin/init
check "it is started" rt start vm2
check "it boots" eventually at_login
check "and no unit fails" eventually booted
is "systemd is its first process" "$(inside cat /proc/1/comm)" systemd
like "on a kernel of its own" "$(inside cat /proc/cmdline)" root=locule
like "a login shell" "$(echo 'echo "$USER $HOME $(hostname)"' | rt enter vm2 2>/dev/null)" 'root /root vm2'
check "its service answers at its published port" eventually answers 8092
like "logs are there" "$(rt logs vm2 2>&1)" 'Welcome'
check "stop" rt stop vm2
is "is a shutdown" "$(jq -c '[.stopped, .signal != 9]' /run/locule/.machines/vm2/exit.json)" "[true,true]"
check "it is removed" rt rm vm2
done_testing
