#!/bin/bash
# `launch` without a word about booting, from a session that ends: the machine is supervised in a unit of its own where
# locule's units are installed, here below /usr/local, and outlives the session as well where they are not.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "machines are locule's"

rt() { timeout -k 5 120 locule "$@"; }
put_back() {
    rt rm --force one
    rt rm --force two
    /locule/tools/units --remove /usr/local
    systemctl reset-failed 'locule@*'
    rm -rf /usr/local/lib/systemd/system-generators
}
CLEANUPS+=(put_back)
# All that is left in the control group of this service is killed at its end, as in a session's scope.
session() { systemd-run --quiet --wait --collect --pipe -p KillMode=control-group -p SendSIGKILL=yes -- "$@"; }
keeper() { jq -r .keeper.pid "/run/locule/.machines/$1/keeper.json"; }
group() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }

check "without units: launch in a session" session /usr/local/bin/locule launch -d --network none host one -- sleep infinity
is "the machine outlives it" "$(rt exec one -- echo here)" here
like "with its keeper, in a control group of its own" "$(group "$(keeper one)")" '^/locule/'
check "it is removed" rt rm --force one

check "units below /usr/local" /locule/tools/units /usr/local
like "which name the program there" "$(systemctl cat locule@x.service)" 'ExecStart=/usr/local/bin/locule start'
check "with units: launch in a session" session /usr/local/bin/locule launch -d --stop-timeout 5s --network none host two -- sleep infinity
is "the machine outlives it" "$(rt exec two -- echo here)" here
is "in a unit of its own" "$(systemctl is-active locule@two)" active
is "whose main process is its keeper" "$(systemctl show --value --property MainPID locule@two)" "$(keeper two)"
like "systemctl status shows its processes" "$(systemctl status --no-pager locule@two)" 'sleep infinity'
like "in the slice of machines" "$(group "$(rt state two | jq -r .pid)")" '^/machine.slice/locule.*two.service/payload'
is "it is not started with the host" "$(systemctl is-enabled locule@two)" disabled
check "set boot=on" rt set two boot=on
is "enables the unit that is there" "$(readlink /etc/systemd/system/locule.target.wants/locule@two.service)" \
    /usr/local/lib/systemd/system/locule@.service
check "set boot=off" rt set two boot=off
refused "units in use stay" "machines run in these units" /locule/tools/units --remove /usr/local
check "systemctl stop" systemctl stop locule@two
is "stops the machine" "$(rt ls --format json | jq -r '.[] | select(.name == "two").status')" stopped
check "it is removed" rt rm two
done_testing
