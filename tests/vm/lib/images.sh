# What suites of images share: a store of their own, a tree with what archives find hard, and what of it counts.
# Sourced after common.sh.

export LOCULE_IMAGES=$WORK/store
# img VERB...: `locule image`
img() { timeout -k 5 300 "$RUNTIME" image "$@"; }

# tree DIR: owners, a capability, links, an odd mode, a time of nanoseconds, and a busybox to run
tree() {
    local dir=$1
    mkdir -p "$dir"/{bin,etc/conf,root,tmp,proc,sys,dev,var/old}
    cp /bin/busybox "$dir/bin/busybox"
    for name in sh cat ls stat grep id; do ln -s busybox "$dir/bin/$name"; done
    ln "$dir/bin/busybox" "$dir/bin/busybox-hard"
    # A copy that may bind low ports: cap_net_bind_service=ep, as setcap(8) writes it.
    cp /bin/busybox "$dir/bin/busybox-cap"
    python3 -c 'import os, sys; os.setxattr(sys.argv[1], "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))' \
        "$dir/bin/busybox-cap"
    echo 'root:x:0:0:root:/root:/bin/sh' >"$dir/etc/passwd"
    echo below >"$dir/etc/motd"
    echo old >"$dir/etc/conf/old"
    echo gone >"$dir/var/old/file"
    chown 33:34 "$dir/etc/motd"
    chmod 1777 "$dir/tmp"
    chmod 2750 "$dir/etc/conf"
    touch -d '2020-02-02 02:02:02.123456789' "$dir/etc/motd"
}

# facts DIR: everything of a tree that an archive holds, but times of directories and numbers of links
facts() {
    (cd "$1" && find . -mindepth 1 -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -printf '%P %y %m %U:%G %l ' \
        \( -type f -printf '%s %T+' -o -true \) -printf '\n' | sort)
    (cd "$1" && find . -type f -exec sha256sum {} + | sort -k 2)
    python3 - "$1" <<'PY'
import os, sys
for where, _, files in os.walk(sys.argv[1]):
    for name in files:
        path = os.path.join(where, name)
        for key in () if os.path.islink(path) else os.listxattr(path):
            print(os.path.relpath(path, sys.argv[1]), key, os.getxattr(path, key).hex())
PY
}

# made: the images app:1, of one layer, and app:2, which has one more with whiteouts and an opaque directory.
# What the first file of a boot made, the others copy.
made() {
    local kept
    kept=/var/tmp/images-$(stat -c %Y-%s "$(command -v "$RUNTIME")")
    mkdir -p "$WORK/root"
    if [ -d "$kept" ]; then
        check "two images are there" cp -a "$kept/store" "$kept/wanted" "$WORK"
        return
    fi
    tree "$WORK/tree"
    check "a directory is imported" img import "$WORK/tree" app:1
    check "it is mounted" img mount app:1 "$WORK/root"
    rm -r "$WORK/root/var/old" "$WORK/root/etc/conf"
    mkdir "$WORK/root/etc/conf"
    echo new >"$WORK/root/etc/conf/new"
    rm "$WORK/root/bin/grep"
    facts "$WORK/root" >"$WORK/wanted"
    check "what was changed is committed" img commit "$WORK/root" app:2
    check "it is unmounted" img umount "$WORK/root"
    mkdir "$kept.part" && cp -a "$WORK/store" "$WORK/wanted" "$kept.part" && mv "$kept.part" "$kept"
}

# same NAME IMAGE: locule's own view of the image is the tree that was made
same() {
    img mount "$2" "$WORK/root" || return
    facts "$WORK/root" >"$WORK/got"
    img umount "$WORK/root"
    is "$1" "$(diff "$WORK/wanted" "$WORK/got")" ""
}

manifest() { img inspect "$1" | jq -r .digest; }
id_of() { img inspect "$1" | jq -r .id; }
diffs() { img inspect "$1" | jq -c .config.rootfs.diff_ids; }

# What a container of an image says of itself: files of both layers, what was removed, owners, the capability.
LOOK='cat /etc/motd /etc/conf/new; ls /etc/conf /var; ls /bin/grep 2>/dev/null; stat -c "%a %u:%g" /etc/motd /tmp; id -u'
SEEN='below
new
/etc/conf:
new

/var:
644 33:34
1777 0:0
0'
