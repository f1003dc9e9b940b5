#!/bin/bash
# Podman of an ordinary user with `locule-vm` as its runtime: pasta's network, the user's own ids.
. /locule/tests/vm/lib/vm.sh
if [ "$(id -u)" = 0 ]; then
    ln -sf locule /usr/local/bin/locule-vm
    # As a login at a seat or the group kvm allows it.
    chmod 0666 /dev/kvm
else
    RUNTIME=/usr/local/bin/locule-vm
    KIND=locule-vm
fi
. /locule/tests/vm/lib/podman.sh

podman_image localhost/busybox >/dev/null
output=$(pod run --rm --volume "$WORK:/volume" localhost/busybox sh -c \
    'cat /proc/cmdline; id -u; touch /volume/made; ip -o link show; exit 7' 2>&1)
is "run gives its exit code" $? 7
like "and runs in a machine" "$output" 'root=locule'
like "as root of its own ids" "$output" $'\n0\n'
is "so that its files are the user's" "$(stat -c %u "$WORK/made")" "$(id -u)"
like "with an interface" "$output" 'state UP|LOWER_UP'

done_testing
