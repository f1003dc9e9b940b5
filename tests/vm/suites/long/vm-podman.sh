#!/bin/bash
# Podman with `locule-vm` as its runtime.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "virtual machines are locule's"
[ -e /dev/kvm ] || skip_all "no KVM"

ln -sf locule /usr/local/bin/locule-vm
root=$(rootfs)
output=$(podman --runtime /usr/local/bin/locule-vm run --rm --network none --rootfs "$root" \
    sh -c 'cat /proc/cmdline; id -u; exit 7' 2>&1)
is "run gives its exit code" $? 7
like "and runs in a machine" "$output" 'root=locule'
like "as root" "$output" $'\n0$'

done_testing
