#!/bin/bash
# One Debian bundle in both isolations: what its own programs see and do is the same, word for word; so are terminals,
# signals, exit codes, limits, ps, pause and the end.
# needs: debian-13
# takes: 140
. /locule/tests/vm/lib/vm.sh

# What is told in both isolations, in the words of Debian's programs.
cat >"$WORK/facts" <<'FACTS'
set -u
export LC_ALL=C
mkdir /tmp/facts && cd /tmp/facts || exit 1
part() { echo "== $*"; }
# as WHO COMMAND: in a shell of the user's
as() { su -s /bin/bash -c "$2" "$1" 2>&1; }

part packages
dpkg -l | grep -c '^ii'
dpkg-query -W base-files
dpkg --audit
# The image has no documentation.
dpkg --verify dpkg perl-base | grep -v ^missing

part users
getent passwd root nobody
id nobody
as nobody 'id; umask; touch /root/x; cd; pwd'
perl -e 'print "$_ " for getpwuid(65534); print "\n"'
chown 12345:54321 . && stat -c '%u %g %a' . && chown 0:0 .
cp /usr/bin/id sid && chmod 4755 sid && as nobody '/tmp/facts/sid -u; /tmp/facts/sid -ru'
echo secret >secret && chmod 600 secret && as nobody 'cat /tmp/facts/secret; mv /tmp/facts /tmp/other'
touch /tmp/sticky && as nobody 'rm -f /tmp/sticky; echo mine >/tmp/own; stat -c "%U %G %a" /tmp/own'

part files
echo one >a && ln a b && stat -c %h a && [ a -ef b ] && echo two >>b && cat a
ln -s loop loop; cat loop; ln -s nowhere dangling; cat dangling
mkdir -p deep/er && mv a deep/er/c && stat -c %h b && mv deep/er/c b 2>&1; ls -R
name=$(printf 'n%.0s' {1..255}); touch "$name" && ls | grep -c "^$name$"; touch "${name}n" 2>&1 | tail -c 24
touch -d '2001-02-03 04:05:06.789012345' old && TZ=UTC stat -c %y old
exec 7<>gone; rm gone; echo kept >&7; cat /proc/self/fd/7; ls gone; exec 7>&-
truncate -s 3G sparse && stat -c '%s %b' sparse && tail -c 1 sparse | od -An -tx1
fallocate -l 1M solid && stat -c %s solid
mkdir many && touch many/{1..400} && ls many | wc -l && rm -r many
chmod 0 secret && cat secret
mknod null c 1 3 && stat -c '%F %t %T' null

part locks
(
    flock 9
    flock -n lock true || echo "the second one is refused"
) 9>lock
flock lock bash -c 'touch held; sleep 1; echo first >>order' &
until [ -e held ]; do sleep 0.1; done
flock lock bash -c 'echo second >>order'
wait
cat order

part attributes
# setxattr, getxattr, listxattr, by number: no package has programs for them here.
perl -e '$f = "old"; $n = "user.word"; $v = "value"; $b = " " x 99;
    print syscall(188, $f, $n, $v, length $v, 0), "\n";
    $l = syscall(191, $f, $n, $b, 99); print substr($b, 0, $l), "\n";
    $l = syscall(194, $f, $b, 99); print join(",", grep /^user/, split /\0/, substr($b, 0, $l)), "\n";
    $n = "user.none"; print syscall(191, $f, $n, $b, 99), " ", 0 + $!, "\n"'

part memory maps
# A shared mapping is written by read(2), and the file by that.
perl -e 'open $f, "+>", "map"; truncate $f, 8192; open $s, "<", "/etc/debian_version"; sysread $s, $w, 2; seek $s, 0, 0;
    $at = syscall(9, 0, 8192, 3, 1, fileno $f, 0); print syscall(0, fileno $s, $at + 4096, 2), "\n";
    print syscall(26, $at, 8192, 4), "\n"; seek $f, 4096, 0; sysread $f, $r, 2; print $r eq $w ? "same\n" : "other\n"'
dd if=/dev/zero of=direct bs=4096 count=4 oflag=direct 2>/dev/null; stat -c %s direct

part pipes and sockets
mkfifo fifo && { sort -r <fifo >sorted & seq 1 5 >fifo; wait; xargs <sorted; }
perl -e 'use IO::Socket; use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(Local => "sock", Listen => 1) or die $!;
    if (!fork) { $c = IO::Socket::UNIX->new(Peer => "sock"); print $c "asked\n"; print "got ", <$c>; exit }
    $c = $s->accept; print $c "answer to ", scalar <$c>; close $c; wait'
stat -c %F sock fifo
perl -e 'use IO::Socket; $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 1) or die "$!";
    if (!fork) { $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $s->sockport); print $c "over loopback\n"; exit }
    $c = $s->accept; print <$c>; wait'

part archives and sorting
tree() { (cd "$1" && find . -printf '%p %m %u %g %s %y %l\n' | sort | sha256sum); }
tar -C /etc -czf etc.tar.gz pam.d alternatives && mkdir x && tar -C x -xpzf etc.tar.gz && diff -r /etc/pam.d x/pam.d &&
    [ "$(tree /etc/pam.d; tree /etc/alternatives)" = "$(tree x/pam.d; tree x/alternatives)" ] && echo "tar keeps all"
seq 1 20000 | shuf | sort -n -S 256K -T . | sha256sum
yes line | head -n 20000 | sha256sum

part what the kernel shows
uname -s -m
hostname
cat /proc/1/comm /proc/self/cgroup /proc/self/oom_score_adj
nproc
grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' /proc/self/status
awk '$2 != "/" { print $2, $3 }' /proc/self/mounts | sort
(cd /dev && stat -c '%n %F %t %T %a %U:%G %N' * | grep -v '^ptmx ' | sort)
ls -d /proc/acpi /proc/kcore /sys/firmware 2>&1; wc -c </proc/kcore; ls /sys/firmware | wc -l
echo x >/proc/sys/kernel/hostname; echo x >/sys/x; mount -t tmpfs x /mnt; mknod /dev/sda b 8 0; dd if=/dev/sda count=1 2>&1 | head -n 1
ulimit -n
date +%Y

part limits
cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max
{ perl -e '$x = "x" x (300 << 20)'; echo "more memory than there may be: $?"; } 2>/dev/null
perl -e 'while (@p < 200) { $p = fork; last if !defined $p; if (!$p) { sleep 1000; exit } push @p, $p }
    $why = $!; kill 9, @p; waitpid $_, 0 for @p; print "tasks: ", scalar @p, " $why\n"'

part signals
timeout 1 sleep 100; echo $?
{
    timeout -s KILL 1 sleep 100; echo $?
    bash -c 'trap "echo trapped" USR1; kill -USR1 $$; kill -SEGV $$'; echo $?
} 2>/dev/null
sleep 100 &
kill -STOP $!; until grep -q ' T ' /proc/$!/stat; do sleep 0.1; done
kill -CONT $!; kill $!; wait $!; echo $?
FACTS

is "the image is taken in" "$(rt image import /var/tmp/images/debian-13.tar)" localhost/debian:13
CLEANUPS+=("umount_root namespaces || umount_root vm" "rt image rm localhost/debian:13")
make_bundle "$WORK/deb" bash -c 'trap "echo asked; exit 5" TERM; echo up; sleep 12345 & while :; do wait; done'
config "$WORK/deb" '.root = {path: "rootfs"} | .process.noNewPrivileges = false | .process.oomScoreAdj = 0
    | .process.capabilities |= map_values([("CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID"
        + " SETPCAP SETUID SYS_CHROOT AUDIT_WRITE") | split(" ")[] | "CAP_" + .])
    | .linux.resources.memory.limit = 268435456 | .linux.resources.pids.limit = 60'
mkdir "$WORK/deb/rootfs"

# What is typed is shown as well, but with its quotes.
read -r -d '' KEYS <<'KEYS'
'wait:# ' size:33x101 'type:until [ "$(stty size)" = "33 101" ]; do sleep 0.1; done; echo siz""ed\r' wait:sized
'type:sh -c "echo slee""ping; exec sleep 1000"\r' wait:sleeping 'type:\x03' 'wait:# '
'type:echo co""de=$?\r' wait:code=130 'type:exit 6\r'
KEYS

# of ISOLATION NAME: what happened there
of() { cat "$WORK/$1-$2"; }
listed() { rt ps "deb-$1" | grep -c ' sleep 12345$'; }
umount_root() { rt image umount --state "$WORK/state-$1" "$WORK/deb/rootfs"; }
for isolation in namespaces vm; do
    id=deb-$isolation
    check "$isolation: a root file system of its own" rt image mount --state "$WORK/state-$isolation" debian:13 "$WORK/deb/rootfs"
    cp "$WORK/facts" "$WORK/deb/rootfs/root/facts"
    echo "$id" >>"$WORK/containers"
    # Not by `rt`, whose time would be that of all that follows.
    "$RUNTIME" --root "$STATE" run --isolation $isolation --bundle "$WORK/deb" "$id" </dev/null >"$WORK/$isolation-output" 2>&1 &
    runner=$!
    check "$isolation: it runs" eventually grep -q up "$WORK/$isolation-output"

    LIMIT=900 rt exec "$id" bash /root/facts </dev/null >"$WORK/$isolation-facts" 2>&1
    is "$isolation: Debian's programs do their work to the end" $? 0

    for end in 'exit 0' 'exit 77' 'kill -TERM $$' 'kill -KILL $$' 'nosuchprogram' '/etc/passwd'; do
        rt exec "$id" bash -c "$end" </dev/null >/dev/null 2>&1
        echo "$end: $?"
    done >"$WORK/$isolation-ends"
    python3 /locule/tests/vm/lib/terminal.py "$KEYS" "$RUNTIME" --root "$STATE" exec --tty "$id" bash
    is "$isolation: a terminal: its size, its interrupt, the exit code" $? 6

    is "$isolation: ps lists its program once" "$(listed $isolation)" 1
    check "$isolation: pause" rt pause "$id"
    is "$isolation: it is paused" "$(status_of "$id")" paused
    check "$isolation: resume" rt resume "$id"
    is "$isolation: it goes on" "$(rt exec "$id" tail -n 1 /root/facts)" "$(tail -n 1 "$WORK/facts")"
    check "$isolation: what it wrote is in its root file system" test -s "$WORK/deb/rootfs/tmp/facts/etc.tar.gz"
    check "$isolation: kill" rt kill "$id" TERM
    wait $runner
    is "$isolation: it ends by its trap, with its exit code" $? 5
    is "$isolation: and says so" "$(of $isolation output)" $'up\nasked'
    check "$isolation: nothing is left" gone "$id"
    check "$isolation: the file system is let go" umount_root $isolation
done

for word in 'tar keeps all' 'the second one is refused' 'user.word' 'same' 'answer to asked' 'over loopback' 'tasks: 5' \
    'more memory than there may be: 137' 'trapped' 'first second'; do
    check "the facts tell: $word" grep -qF "$word" <<<"$(of namespaces facts | tr '\n' ' ')"
done
for what in facts ends; do
    is "$what are the same in both" "$(diff "$WORK/namespaces-$what" "$WORK/vm-$what")" ""
done
is "ends are what they are called" "$(of vm ends | sed 's/.*: //' | xargs)" "0 77 143 137 127 126"
done_testing
