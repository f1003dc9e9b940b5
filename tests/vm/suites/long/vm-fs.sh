#!/bin/bash
# What a workload in a machine does to files is what the host finds: one machine writes, the host compares.
. /locule/tests/vm/lib/vm.sh

cat >"$WORK/write.py" <<'PYTHON'
import errno, fcntl, mmap, os, socket, stat

os.umask(0o022)
os.chdir("/data")

def say(name, good):
    print("good" if good else "BAD", name, flush=True)

def write(name, data, mode="wb"):
    with open(name, mode) as file:
        file.write(data)

def read(name):
    with open(name, "rb") as file:
        return file.read()

pattern = bytes(range(256)) * 4096
write("large", pattern)
say("a large file", read("large") == pattern)
with open("large", "r+b") as file:
    file.seek(1000)
    file.write(b"in the middle")
    file.seek(3 << 20)
    file.write(b"behind a hole")
write("large", b"appended", "ab")
expected = bytearray(pattern.ljust(3 << 20, b"\0")) + b"behind a hole" + b"appended"
expected[1000:1013] = b"in the middle"
say("overwritten, with a hole, appended to", read("large") == expected)

write("short", b"0123456789")
os.truncate("short", 4)
say("truncated", read("short") == b"0123")

write("old", b"old")
write("new", b"new")
os.rename("new", "old")
say("renamed over another", read("old") == b"new" and not os.path.exists("new"))
os.mkdir("directory")
os.rename("old", "directory/moved")
say("moved", os.listdir("directory") == ["moved"])

write("first", b"linked")
os.link("first", "second")
write("second", b"by the other name")
say("a hard link", read("first") == b"by the other name" and os.stat("first").st_nlink == 2)
os.symlink("first", "symbolic")
say("a symbolic link", os.readlink("symbolic") == "first" and os.path.samefile("symbolic", "second"))

write("attributes", b"")
os.setxattr("attributes", "user.kept", b"value")
os.setxattr("attributes", "user.removed", b"value")
os.removexattr("attributes", "user.removed")
say("extended attributes", os.listxattr("attributes") == ["user.kept"])

write("owned", b"")
os.chown("owned", 1234, 5678)
os.chmod("owned", 0o4750)
os.utime("owned", ns=(1_000_000_000_123_456_789, 1_500_000_000_987_654_321))
seen = os.stat("owned")
say("owner, mode and times", (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode), seen.st_mtime_ns)
    == (1234, 5678, 0o4750, 1_500_000_000_987_654_321))

write("mapped", bytes(100_000))
with open("mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
    memory[50_000:50_006] = b"memory"
    memory.flush()
say("written through memory", read("mapped")[50_000:50_006] == b"memory")

unnamed = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(unnamed, b"had no name")
here = os.open(".", os.O_RDONLY)
os.link(f"/proc/self/fd/{unnamed}", "named", src_dir_fd=here, follow_symlinks=True)
os.close(unnamed)
say("a file without a name gets one", read("named") == b"had no name")

gone = os.open("gone", os.O_CREAT | os.O_RDWR)
os.unlink("gone")
os.write(gone, b"still here")
say("an unlinked file stays open", os.pread(gone, 99, 0) == b"still here" and os.fstat(gone).st_nlink == 0)

space = os.open("space", os.O_CREAT | os.O_RDWR)
os.posix_fallocate(space, 0, 1 << 20)
os.write(space, b"copied")
copy = os.open("copy", os.O_CREAT | os.O_RDWR)
say("space and copies in the kernel", os.copy_file_range(space, copy, 6, 0, 0) == 6 and read("copy") == b"copied")
os.fsync(copy)

first, second = open("lock", "w"), open("lock", "w")
fcntl.flock(first, fcntl.LOCK_EX)
try:
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    say("a lock", False)
except BlockingIOError:
    say("a lock", True)

os.mkfifo("fifo")
server = socket.socket(socket.AF_UNIX)
server.bind("socket")
server.listen()
socket.socket(socket.AF_UNIX).connect("socket")
say("a socket", stat.S_ISSOCK(os.stat("socket").st_mode))

os.mkdir("shared")
os.chmod("shared", 0o2777)
write("secret", b"")
os.chmod("secret", 0o600)
child = os.fork()
if child == 0:
    os.setgroups([])
    os.setgid(1001)
    os.setuid(1000)
    write("shared/users", b"mine")
    try:
        read("secret")
        os._exit(1)
    except PermissionError:
        os._exit(0)
say("another user is kept out", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0)
try:
    write("/fixed/x", b"")
    say("a read-only mount", False)
except OSError as error:
    say("a read-only mount", error.errno == errno.EROFS)
write("/new-in-root", b"root")
PYTHON
python3 -m py_compile "$WORK/write.py" && rm -r "$WORK/__pycache__"

# The host's own programs, read-only, in a root that can be written.
root=$(rootfs)
rmdir "$root/lib" "$root/lib64"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
mkdir -p "$WORK/data" "$WORK/source/some/deep/place"
for number in $(seq 300); do
    place=$WORK/source
    [ $((number % 3)) -ne 0 ] || place=$place/some
    [ $((number % 5)) -ne 0 ] || place=$WORK/source/some/deep/place
    head -c $((number * number % 9000)) /dev/urandom >"$place/file-$number"
    [ $((number % 7)) -ne 0 ] || chmod 0711 "$place/file-$number"
    [ $((number % 11)) -ne 0 ] || chown $number:$number "$place/file-$number"
done
ln -s deep/place "$WORK/source/some/link"
ln "$WORK/source/file-1" "$WORK/source/hard"
tar -C "$WORK/source" -cf "$WORK/source.tar" .

make_bundle "$WORK/files" sh -c 'python3 /write.py; echo "python $?"
    mkdir /data/tree && cd /data/tree && tar xf /source.tar; echo "tar $?"; tar cf /data/back.tar .; echo "back $?"
    find . -type f | wc -l; mount | grep " / "'
config "$WORK/files" '.root.readonly = false | .process.env += ["PYTHONDONTWRITEBYTECODE=1"]
    | .process.capabilities |= with_entries(.value = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID",
        "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD"])
    | .mounts += [
        {destination: "/usr", source: "/usr", type: "bind", options: ["rbind", "ro"]},
        {destination: "/data", source: $data, type: "bind", options: ["rbind", "rw"]},
        {destination: "/fixed", source: $data, type: "bind", options: ["rbind", "ro"]},
        {destination: "/write.py", source: ($work + "/write.py"), type: "bind", options: ["bind", "ro"]},
        {destination: "/source.tar", source: ($work + "/source.tar"), type: "bind", options: ["bind", "ro"]}]' \
    --arg data "$WORK/data" --arg work "$WORK"
echo files >>"$WORK/containers"
said=$(rt run --isolation "${ISOLATION:-vm}" --bundle "$WORK/files" files </dev/null 2>&1)
sed 's/^/# /' <<<"$said"
is "it ran" "$(grep -cE '^(python|tar|back) 0$' <<<"$said")" 3
is "what the workload saw is right" "$(grep -c '^BAD' <<<"$said")" 0
is "all of it" "$(grep -c "^good" <<<"$said")" 17

cd "$WORK/data" || exit 1
of() { stat -c "$1" "$2"; }
is "the large file" "$(python3 -c '
import hashlib
pattern = bytes(range(256)) * 4096
expected = bytearray(pattern.ljust(3 << 20, b"\0")) + b"behind a hole" + b"appended"
expected[1000:1013] = b"in the middle"
print(hashlib.sha256(expected).hexdigest())')" "$(sha256sum <large | cut -d' ' -f1)"
above "with a hole" "$((3 << 20))" "$(($(of %b large) * 512))"
is "the renamed one" "$(cat directory/moved)" new
is "the hard link" "$(of %i first)" "$(of %i second)"
is "the symbolic one" "$(readlink symbolic)" first
is "the attribute" "$(python3 -c 'import os; print(os.listxattr("attributes"), os.getxattr("attributes", "user.kept"))')" \
    "['user.kept'] b'value'"
is "owner, mode, time" "$(of '%u:%g %a %.9Y' owned)" "1234:5678 4750 1500000000.987654321"
is "what was written through memory" "$(tail -c +50001 mapped | head -c 6)" memory
is "the file that had no name" "$(cat named) $(of '%a %h' named)" "had no name 640 1"
check "the unlinked file is gone" test ! -e gone
is "the allocated space" "$(of %s space)" 1048576
is "kinds of files" "$(of %F fifo), $(of %F socket)" "fifo, socket"
is "a user's file, in a directory that passes its group on" "$(of %u:%g shared/users)" 1000:0
is "a file in the root" "$(cat "$root/new-in-root")" root

# The same files, with modes, owners, links and times.
list() { (cd "$1" && find . -printf '%P %y %m %U:%G %s %l %n\n' | grep -v '^ ' | awk '$2 != "d"' | sort); }
list "$WORK/source" >"$WORK/wanted"
list tree >"$WORK/seen"
check "a tar of hundreds of files is unpacked as it was" diff "$WORK/wanted" "$WORK/seen"
check "with the same contents" diff -r "$WORK/source" tree
mkdir "$WORK/back"
tar -C "$WORK/back" -xf back.tar
list "$WORK/back" >"$WORK/seen"
check "and packed as it was" diff "$WORK/wanted" "$WORK/seen"
check "with the contents" diff -r "$WORK/source" "$WORK/back"
cd /
done_testing
