//! Real programs on the file server, by this machine's own FUSE.
//!
//! Each test has a tree, the mount of it, and looks at one from the side of the other. `tests/fs/exercise` runs
//! the large exercisers.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use locule_vmm::fs::{Access, Cache, Server, Tree};
use tempfile::TempDir;

use super::bridge::Mount;

struct Place {
    /// The tree, as the host sees it.
    back: PathBuf,
    /// The same, as a guest sees it.
    front: PathBuf,
    _mount: Mount,
    _dir: TempDir,
}

fn place(cache: Cache) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let (back, target) = (dir.path().join("back"), dir.path().join("mnt"));
    fs::create_dir(&back).unwrap();
    fs::create_dir(&target).unwrap();
    let mut tree = Tree::new();
    tree.add_cached("root", File::open(&back).unwrap().into(), Access::ReadWrite, cache);
    let mount = Mount::new(&Server::new(tree).unwrap(), &target, 2);
    Place { back, front: target.join("root"), _mount: mount, _dir: dir }
}

#[track_caller]
fn shell(place: &Place, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-euc", script])
        .env("FRONT", &place.front)
        .env("BACK", &place.back)
        .current_dir(&place.front)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn an_archive_is_unpacked_and_packed_the_same() {
    let place = place(Cache::AUTO);
    shell(
        &place,
        r#"
        mkdir in; cd in
        for n in 1 2 3 4 5 6 7 8; do
            mkdir -p d$n/e; cp /etc/*.conf d$n/e/; ln d$n/e/host.conf d$n/hard; ln -s e/host.conf d$n/soft
            mkfifo d$n/pipe; mknod d$n/null c 1 3; chown 1$n:2$n d$n/hard; chmod 4711 d$n/hard
            touch -h -d @$n d$n/soft; setfattr -n user.n -v $n d$n/e 2>/dev/null || true
        done
        cd ..
        pack() { tar --sort=name --xattrs --pax-option=exthdr.name=%d/x/%f,delete=atime,delete=ctime "$@"; }
        pack -cf one.tar in
        mkdir out; tar --xattrs -xpf one.tar -C out
        pack -cf two.tar -C out in
        cmp one.tar two.tar
        pack -cf three.tar -C "$BACK/out" in
        cmp one.tar three.tar
        rm -r in out
        test "$(ls)" = "$(printf 'one.tar\nthree.tar\ntwo.tar')"
        "#,
    );
}

#[test]
fn git_works_in_it() {
    if Command::new("git").arg("--version").output().is_err() {
        return;
    }
    let place = place(Cache::AUTO);
    shell(
        &place,
        r#"
        export HOME="$PWD" GIT_CONFIG_NOSYSTEM=1
        git init -q -b main r; cd r; git config user.email a@b; git config user.name n
        for n in $(seq 100); do mkdir -p d$((n % 10)); echo $n >d$((n % 10))/f$n; done
        git add .; git commit -qm one
        git checkout -qb two; git mv d1 e1; echo x >>d2/f2; git commit -qam two
        git checkout -q main; test -d d1 -a ! -e e1
        git merge -q two; git gc -q; git fsck --strict 2>&1; test -z "$(git status --porcelain)"
        git clone -q . ../c; diff -r -x .git . ../c
        "#,
    );
}

#[test]
fn mappings_locks_and_files_without_names() {
    let place = place(Cache::AUTO);
    let script = r#"
import ctypes, fcntl, mmap, os, sys, tempfile
path = "m"
with open(path, "w+b") as file:
    file.truncate(1 << 16)
    with mmap.mmap(file.fileno(), 0) as shared:
        shared[5:10] = b"hello"; shared[60000:60003] = b"end"; shared.flush()
        assert os.pread(file.fileno(), 5, 5) == b"hello"
        os.pwrite(file.fileno(), b"J", 5)
        assert shared[5:10] == b"Jello"
back = os.environ["BACK"]
data = open(back + "/m", "rb").read()
assert data[5:10] == b"Jello" and data[60000:60003] == b"end" and len(data) == 1 << 16

one, two = open("lock", "w"), open("lock", "w")
fcntl.flock(one, fcntl.LOCK_EX)
try: fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB); sys.exit("locked twice")
except BlockingIOError: pass
fcntl.flock(one, fcntl.LOCK_UN); fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.lockf(one, fcntl.LOCK_EX, 10)
if os.fork() == 0:
    try: fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10); os._exit(1)
    except BlockingIOError: os._exit(0)
assert os.wait()[1] == 0

nameless = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(nameless, b"late")
libc = ctypes.CDLL(None, use_errno=True)
assert libc.linkat(-100, b"/proc/self/fd/%d" % nameless, -100, b"named", 0x400) == 0
assert open(back + "/named").read() == "late" and os.stat("named").st_nlink == 1

os.setxattr("named", "user.a", b"1"); assert os.getxattr(back + "/named", "user.a") == b"1"
assert os.listxattr("named") == ["user.a"]
def rename(a, b, flags): return libc.renameat2(-100, a, -100, b, flags), ctypes.get_errno()
open("x", "w").write("x"); open("y", "w").write("y")
assert rename(b"x", b"y", 2)[0] == 0 and open(back + "/x").read() == "y"
assert rename(b"x", b"y", 1)[0] == -1
gone = open("gone", "w+"); gone.write("still"); gone.flush(); os.unlink("gone")
assert os.fstat(gone.fileno()).st_nlink == 0 and gone.seek(0) == 0 and gone.read() == "still"
with open("log", "a") as a, open("log", "a") as b:
    for n in range(50): a.write("a"); a.flush(); b.write("b"); b.flush()
assert open(back + "/log").read() == "ab" * 50
os.posix_fallocate(nameless, 0, 1 << 20); assert os.stat("named").st_size == 1 << 20
assert os.lseek(os.open("m", os.O_RDONLY), 0, os.SEEK_DATA) == 0
assert os.copy_file_range(os.open("x", os.O_RDONLY), os.open("z", os.O_RDWR | os.O_CREAT), 9) == 1
print("done")
"#;
    fs::write(place.back.join("script.py"), script).unwrap();
    assert_eq!(shell(&place, "python3 script.py"), "done\n");
}

#[test]
fn an_ordinary_user_keeps_to_owners_and_groups() {
    let place = place(Cache::AUTO);
    shell(
        &place,
        r#"
        chmod 755 "$BACK/.."
        mkdir open shut; chmod 777 open; chmod 700 shut; echo s >shut/s; echo g >g; chown 0:50 g; chmod 640 g
        as() { setpriv --reuid=1000 --regid=1000 "$@"; }
        as --clear-groups sh -c 'umask 027; echo a >open/a; mkdir open/d'
        test "$(stat -c '%u %g %a' "$BACK/open/a" "$BACK/open/d" | tr '\n' ,)" = '1000 1000 640,1000 1000 750,'
        ! as --clear-groups cat shut/s 2>/dev/null
        ! as --clear-groups cat g 2>/dev/null
        test "$(as --groups=50 cat g)" = g
        cp /bin/true open/t; chown 1000:1000 open/t; chmod 6755 open/t
        as --clear-groups sh -c 'echo >>open/t'; test "$(stat -c %a "$BACK/open/t")" = 755
        chmod 6755 open/t; echo >>open/t; test "$(stat -c %a "$BACK/open/t")" = 6755
        "#,
    );
}

#[test]
fn what_the_host_changes_is_seen() {
    for cache in [Cache::AUTO, Cache::NEVER] {
        let place = place(cache);
        let read = || {
            let mut text = String::new();
            File::open(place.front.join("f")).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        fs::write(place.back.join("f"), "one").unwrap();
        assert_eq!((read(), read()), ("one".to_owned(), "one".to_owned()));
        // Within the second that attributes are good for: an open asks anew what the data is good for.
        fs::write(place.back.join("f"), "two").unwrap();
        assert_eq!(read(), "two");
        if cache == Cache::NEVER {
            fs::write(place.back.join("f"), "three and more").unwrap();
            assert_eq!(read(), "three and more");
            fs::remove_file(place.back.join("f")).unwrap();
            assert!(!place.front.join("f").exists());
        }
    }
}

/// As `fsx` does: one file, all ways to change it at random, and a model in memory to compare with.
#[test]
fn a_file_is_what_was_made_of_it() {
    for (cache, seed) in [(Cache::AUTO, 1), (Cache::NEVER, 2)] {
        let place = place(cache);
        let mut random = Random(seed);
        let mut model: Vec<u8> = Vec::new();
        let path = place.front.join("x");
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        for turn in 0..3000u32 {
            let (at, length) = (random.below(200_000), random.below(30_000) + 1);
            match random.below(8) {
                0 | 1 => {
                    let data: Vec<u8> = (0..length).map(|byte| (byte as u32 ^ turn) as u8).collect();
                    file.write_all_at(&data, at as u64).unwrap();
                    model.resize(model.len().max(at + length), 0);
                    model[at..at + length].copy_from_slice(&data);
                }
                2 => {
                    file.set_len(at as u64).unwrap();
                    model.resize(at, 0);
                }
                3 => {
                    let fd = &file;
                    let mode = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
                        | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
                    nix::fcntl::fallocate(fd, mode, at as i64, length as i64).unwrap();
                    let end = model.len().min(at + length);
                    model[at.min(end)..end].fill(0);
                }
                4 => {
                    // Append, by the end that the guest knows.
                    file.seek(SeekFrom::End(0)).unwrap();
                    if model.len() < 300_000 {
                        file.write_all(&[turn as u8; 999]).unwrap();
                        model.extend_from_slice(&[turn as u8; 999]);
                    }
                }
                5 => file = File::options().read(true).write(true).open(&path).unwrap(),
                6 => assert_eq!(fs::metadata(&path).unwrap().len(), model.len() as u64, "turn {turn}"),
                _ => {
                    let mut data = vec![0; length];
                    let count = file.read_at(&mut data, at as u64).unwrap();
                    let end = model.len().min(at + length);
                    assert!(data[..count] == model[at.min(end)..end], "turn {turn}: {at} {length}");
                }
            }
        }
        drop(file);
        assert!(fs::read(&path).unwrap() == model && fs::read(place.back.join("x")).unwrap() == model);
    }
}

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
