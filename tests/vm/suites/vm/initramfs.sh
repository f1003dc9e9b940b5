#!/bin/bash
# A kernel that has its virtio drivers as modules, Debian 12's, boots by an initramfs that locule writes.
# needs: kernel-12
. /locule/tests/vm/lib/vm.sh
rt() { timeout -k 5 $LIMIT "$RUNTIME" --root "$STATE" --data "$WORK/data" "${MANAGER[@]}" "$@"; }

archive=/var/tmp/images/kernel-12.tar
version=$(tar -tf $archive | sed -n 's|^boot/vmlinuz-||p')
CLEANUPS+=("rm -rf /boot/*-$version /lib/modules/$version")
check "the kernel is there" tar -C / --keep-directory-symlink -xf $archive
[ -e "/lib/modules/$version/modules.dep" ] || depmod "$version"
kernel() { rt vm kernel ls | grep -F "$version"; }
like "it boots with an initramfs" "$(kernel)" 'yes \(initramfs\)'
like "one that needs none is preferred" "$(rt vm kernel ls | grep '^\*')" 'yes *$'
check "it can be chosen" rt vm kernel use "$version"

make_bundle "$WORK/old" sh -c 'uname -r; cat /proc/modules | cut -d" " -f1; ls /sys/class/net; touch /made; exit 7'
config "$WORK/old" '.root.readonly = false'
echo old >>"$WORK/containers"
output=$(rt run --isolation vm --bundle "$WORK/old" old </dev/null 2>"$WORK/errors")
is "it boots, and the workload gives its exit code" $? 7
is "without a complaint" "$(cat "$WORK/errors")" ""
is "it is the chosen one" "$(head -1 <<<"$output")" "$version"
for word in virtio_pci virtiofs virtio_console virtio_net eth0; do
    check "inside is $word" grep -qx "$word" <<<"$output"
done
check "the root file system is the host's" test -e "$(rootfs)/made"
is "the initramfs is kept beside the unpacked kernel" "$(ls "$WORK"/data/kernels/ | grep -cE '^[0-9a-f]{64}\.cpio$')" 1

mv "/lib/modules/$version" "/lib/modules/$version.away"
CLEANUPS+=("rm -rf /lib/modules/$version.away")
like "without its modules it does not" "$(kernel)" 'no: .*virtio_pci.* are modules of it, and its folder of modules is missing'

done_testing
