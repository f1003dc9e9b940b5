#!/bin/bash
# Images of the ordinary user: subordinate ids, an overlay in a user namespace, a container on it.
. /locule/tests/vm/lib/common.sh
as_user_file
is_locule || skip_all "images are locule's"
export LOCULE_IMAGES=$WORK/store
img() { timeout -k 5 300 "$RUNTIME" image "$@"; }
CLEANUPS=("unshare --user --map-auto --map-root-user rm -rf '$WORK/store' '$WORK/tree'")

# Made in a user namespace, so that files of other owners are there to be kept.
mkdir -p "$WORK/tree/bin" "$WORK/tree/etc" "$WORK/box/rootfs"
cp /bin/busybox "$WORK/tree/bin/"
for name in sh cat stat id; do ln -s busybox "$WORK/tree/bin/$name"; done
echo below >"$WORK/tree/etc/motd"
unshare --user --map-auto --map-root-user sh -c "chown 33:34 '$WORK/tree/etc/motd'; tar -C '$WORK/tree' -cf '$WORK/tree.tar' ."
is "imported" "$(img import "$WORK/tree.tar" app:1)" docker.io/library/app:1
refused "mounted outside of the namespaces" "locule image unshare" img mount app:1 "$WORK/box/rootfs"
cd "$WORK/box"
locule spec
config "$WORK/box" '.process.terminal = false | .root.readonly = false | .process.args =
    ["sh", "-c", "id -u; stat -c %u:%g /etc/motd; echo mine >/etc/own"]'
output=$(img unshare sh -ec '
    locule image mount app:1 rootfs
    locule --root ../state --cgroup-manager disabled run images-user
    stat -c %u:%g rootfs/etc/motd; cat rootfs/etc/own
    locule image commit rootfs app:2
    locule image umount rootfs')
is "mounted, run and committed" "$output" "0
33:34
33:34
mine
docker.io/library/app:2"
check "saved" img save --output "$WORK/two.tar" app:2
is "the owners are in the archive" "$(python3 - "$WORK/two.tar" <<'PY' | sort
import io, sys, tarfile
with tarfile.open(sys.argv[1]) as archive:
    for entry in archive:
        data = archive.extractfile(entry).read() if entry.isfile() else b""
        if data[:2] == b"\x1f\x8b" or data[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(data)) as layer:
                for member in layer:
                    if member.name.removeprefix("./") in ("etc/motd", "etc/own"):
                        print(member.name.removeprefix("./"), member.uid, member.gid)
PY
)" "etc/motd 33 34
etc/own 0 0"
check "verified" img verify
check "removed" img rm app:1 app:2
is "nothing is left" "$(ls "$WORK/store/layers" "$WORK/store/blobs/sha256")" "$WORK/store/blobs/sha256:

$WORK/store/layers:"
done_testing
