#!/bin/bash
# A root file system for a user namespace: idmapped layers, an upper directory of its own, a container that writes.
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "images are locule's"
. /locule/tests/vm/lib/images.sh

made
make_bundle "$WORK/box" sh -c '
    echo mine >/etc/own; chown 5:6 /etc/own; chmod 700 /bin/busybox-hard; mkdir /var/new
    id -u; stat -c "%u:%g" /etc/motd /bin/busybox /etc/own; grep CapPrm /proc/self/status | busybox tr -d "\t"'
mkdir "$WORK/box/rootfs"
config "$WORK/box" '.root = {path: "rootfs", readonly: false} | .process.noNewPrivileges = false
    | .process.capabilities |= with_entries(.value += ["CAP_CHOWN", "CAP_FOWNER"]) | .linux.namespaces += [{type: "user"}]
    | .linux.uidMappings = [{containerID: 0, hostID: 300000, size: 65536}] | .linux.gidMappings = .linux.uidMappings'
check "mounted" img mount --map 300000:65536 --state "$WORK/state-of-it" app:1 "$WORK/box/rootfs"
CLEANUPS+=("umount $WORK/box/rootfs")
is "its files belong to the map's ids" "$(stat -c '%u:%g' "$WORK"/box/rootfs/{etc/motd,bin/busybox})" "300033:300034
300000:300000"
like "a container writes as its root" "$(foreground mapped "$WORK/box")" '^0
33:34
0:0
5:6
CapPrm:'
is "on the disk it belongs to the map's ids" \
    "$(stat -c '%u:%g %a' "$WORK"/state-of-it/upper/{etc/own,bin/busybox-hard,var/new})" "300005:300006 644
300000:300000 700
300000:300000 755"
is "and the layers are as they were" "$(img verify)" ""

# A file's capability counts for a user of the container, from the layer and from the copy above it.
config "$WORK/box" '.process.user = {uid: 33, gid: 33} | .process.capabilities = {bounding: ["CAP_NET_BIND_SERVICE"]}
    | .process.args = ["busybox-cap", "grep", "CapPrm", "/proc/self/status"]'
is "a capability of a file" "$(foreground cap1 "$WORK/box")" $'CapPrm:\t0000000000000400'
chmod 711 "$WORK/box/rootfs/bin/busybox-cap"
is "also of its copy" "$(foreground cap2 "$WORK/box")" $'CapPrm:\t0000000000000400'
check "unmounted" img umount --keep --state "$WORK/state-of-it" "$WORK/box/rootfs"
check "mounted again" img mount --map 300000:65536 --state "$WORK/state-of-it" app:1 "$WORK/box/rootfs"
is "what was written is there" "$(cat "$WORK/box/rootfs/etc/own") $(stat -c '%u' "$WORK/box/rootfs/var/new")" "mine 300000"
is "as is the capability" "$(foreground cap3 "$WORK/box")" $'CapPrm:\t0000000000000400'
refused "another map" "belongs to another image or map" \
    img mount --map 400000:65536 --state "$WORK/state-of-it" app:1 "$WORK/root"
check "committed" img commit --state "$WORK/state-of-it" "$WORK/box/rootfs" app:3
check "mounted plainly" img mount app:3 "$WORK/root"
is "owners are those of the image" "$(stat -c '%u:%g %a' "$WORK"/root/etc/own "$WORK/root/bin/busybox-cap")" "5:6 644
0:0 711"
is "as is the capability, of version 2" \
    "$(python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], "security.capability").hex())' "$WORK/root/bin/busybox-cap")" \
    0100000200040000000000000000000000000000
check "unmounted" img umount "$WORK/root"
check "unmounted" img umount --state "$WORK/state-of-it" "$WORK/box/rootfs"
check "nothing is left of it" test ! -e "$WORK/state-of-it"
done_testing
