#!/bin/bash
# Disks of machines with limits: project quotas on ext4 and XFS, and a disk that grows while it is mounted.
# takes: 160
. /locule/tests/vm/lib/common.sh
is_locule || skip_all "machines are locule's"

data=$WORK/data
machine() { locule --data "$data" --root "$WORK/run" "$@"; }
inside() { machine exec "$1" sh -c "$2"; }

mkdir -p "$WORK"/tree/{bin,etc,proc,sys,dev,tmp,run} "$data"
cp /bin/busybox "$WORK/tree/bin/busybox"
for name in sh cat sleep df dd rm head yes stat; do ln -s busybox "$WORK/tree/bin/$name"; done

# host KIND MKFS-OPTIONS MOUNT-OPTIONS: machines live on a file system of that kind.
host() {
    truncate -s 1G "$WORK/fs.img"
    # shellcheck disable=SC2086
    "mkfs.$1" -q $2 "$WORK/fs.img" && mount -o "loop,$3" "$WORK/fs.img" "$data" &&
        locule image import --images "$data/images" "$WORK/tree" app:1 >/dev/null
}
CLEANUPS+=("machine rm --force ext4-a ext4-b disk-a xfs-a xfs-b" "umount -l $data")

limited() {
    check "$1: a machine with 60 MiB" machine launch -d --network none --disk 60M app:1 "$1-a" -- sleep 100000
    is "$1: what statfs shows is the limit" "$(inside "$1-a" 'stat -f -c "%b %S" /' | { read -r blocks size; echo $((blocks * size >> 20)); })" 60
    refused "$1: no more can be written" "" inside "$1-a" 'yes | head -c 70000000 >/big'
    above "$1: but nearly as much" "$(inside "$1-a" 'stat -c %s /big')" 50000000
    check "$1: other machines have their own" machine launch -d --network none app:1 "$1-b" -- sleep 100000
    check "$1: and no limit" inside "$1-b" 'yes | head -c 70000000 >/big'
    check "$1: it can be larger while it runs" machine set "$1-a" disk=120M
    check "$1: and then there is room" inside "$1-a" 'yes | head -c 70000000 >/big'
    refused "$1: not less than it has" "remove files inside first" machine set "$1-a" disk=20M
    is "$1: and the limit is as before" \
        "$(inside "$1-a" 'stat -f -c "%b %S" /' | { read -r blocks size; echo $((blocks * size >> 20)); })" 120
    check "$1: removed" machine rm --force "$1-a" "$1-b"
    is "$1: with the claims" "$(ls "$data/claims/projid")" ""
}

check "ext4 with project quotas" host ext4 "-O quota,project -E quotatype=prjquota" prjquota
limited ext4
check "a disk" machine launch -d --network none --storage disk --disk 64M app:1 disk-a -- sleep 100000
refused "it ends where it ends" "" inside disk-a 'yes | head -c 70000000 >/big'
check "it grows while it is mounted" machine set disk-a disk=160M
check "and then there is room" inside disk-a 'yes | head -c 70000000 >/big'
check "removed inside" inside disk-a 'rm /big'
like "it gives the room back" "$(machine compact disk-a)" 'disk-a: [1-9][0-9.]* MiB'
refused "it cannot shrink" "cannot become smaller" machine set disk-a disk=64M
check "gone" machine rm --force disk-a
umount "$data"
rm "$WORK/fs.img"
if command -v mkfs.xfs >/dev/null; then
    check "XFS with project quotas" host xfs "" pquota
    limited xfs
else
    skip "XFS" "mkfs.xfs is not there"
fi
done_testing
