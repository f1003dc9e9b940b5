//! Entries that are added and removed while a guest works in the tree.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use locule_vmm::fs::{Access, Cache, Server, Shares, Tree};
use tempfile::TempDir;

use super::bridge::Mount;
use super::client::*;

struct Place {
    dir: TempDir,
    server: Arc<Server>,
    guest: Client,
    shares: Shares,
    pod: u64,
}

/// A tree of `pod`, with `pod/first` in it, `fixed/0`, and `root`.
fn tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    tree.add("root", open(dir), Access::ReadWrite);
    tree.add_cached("fixed/0", open(dir), Access::ReadWrite, Cache::ALWAYS);
    tree.add_cached("pod/first", open(dir), Access::ReadOnly, Cache::ALWAYS);
    tree.directory("pod");
    tree.directory("empty");
    tree
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::limited(tree(dir.path()), 800).unwrap();
    let guest = Client::new(&server);
    let pod = guest.walk("pod").node;
    Place { shares: server.shares(), server, guest, pod, dir }
}

impl Place {
    /// A directory of the host with the file `f` in it that says its name.
    fn directory(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), name).unwrap();
        path
    }

    fn share(&self, name: &str, path: &Path, access: Access) {
        self.shares.add(name, open(path), access, Cache::ALWAYS).unwrap();
    }

    fn forget(&self, node: u64, count: u64) {
        self.guest.bytes(self.guest.message(FORGET, node, &[&q(&[count])]), 0);
        // The reply to a later request comes after it.
        self.guest.attributes(TOP);
    }

    fn names(&self, plus: bool) -> Vec<String> {
        self.guest.list(self.pod, 4096, plus).into_iter().map(|(name, _)| name).collect()
    }

    fn read(&self, node: u64) -> Vec<u8> {
        let file = self.guest.lookup(node, "f").unwrap().node;
        let fh = self.guest.open(file, libc::O_RDONLY).unwrap();
        let bytes = self.guest.read(file, fh, 0, 99).unwrap();
        self.guest.release(file, fh).unwrap();
        bytes
    }
}

/// How many descriptors of this process lead to `path` or below it.
fn descriptors(path: &Path) -> usize {
    let of = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.ok()?.path()).ok();
    fs::read_dir("/proc/self/fd").unwrap().filter_map(of).filter(|to| to.starts_with(path)).count()
}

#[test]
fn what_is_added_is_found_and_has_its_own_access() {
    let place = place();
    let guest = &place.guest;
    assert_eq!(guest.lookup(place.pod, "one").err(), Some(libc::ENOENT));
    assert_eq!(place.names(true), [".", "..", "first"]);
    let (one, two) = (place.directory("one"), place.directory("two"));
    place.share("pod/one", &one, Access::ReadWrite);
    place.share("pod/two", &two, Access::ReadOnly);
    place.share("pod/file", &two.join("f"), Access::ReadWrite);
    for plus in [false, true] {
        assert_eq!(place.names(plus), [".", "..", "first", "one", "two", "file"], "{plus}");
    }
    assert_eq!(guest.list(guest.walk("empty").node, 4096, true).len(), 2);
    let (one, two) = (guest.walk("pod/one").node, guest.walk("pod/two").node);
    assert_eq!((place.read(one), place.read(two)), (b"one".to_vec(), b"two".to_vec()));
    guest.touch(one, "new");
    assert!(place.dir.path().join("one/new").exists());
    assert_eq!(guest.create(two, "new", libc::O_RDWR, 0o644, 0).err(), Some(libc::EROFS));
    assert_eq!(guest.create(place.pod, "new", libc::O_RDWR, 0o644, 0).err(), Some(libc::EROFS));
    let file = guest.walk("pod/file");
    assert_eq!(file.mode & libc::S_IFMT, libc::S_IFREG);
    let fh = guest.open(file.node, libc::O_RDWR).unwrap();
    assert_eq!(guest.write(file.node, fh, 0, b"T"), Ok(1));
    assert_eq!(place.read(two), b"Two");
    // One file below two entries is two, and nothing is moved between these.
    assert_ne!(guest.lookup(two, "f").unwrap().node, file.node);
    place.share("pod/again", &place.dir.path().join("one"), Access::ReadWrite);
    let again = guest.walk("pod/again").node;
    assert_ne!(guest.lookup(again, "f").unwrap().node, guest.lookup(one, "f").unwrap().node);
    assert_eq!(guest.call(RENAME, one, &[&q(&[again]), &z("f"), &z("g")]), Err(libc::EXDEV));
    guest.call(SYNCFS, TOP, &[&[0; 8]]).unwrap();
}

#[test]
fn names_that_come_and_go_are_not_believed() {
    let place = place();
    let guest = &place.guest;
    place.share("pod/one", &place.directory("one"), Access::ReadWrite);
    let valid = |parent, name: &str| {
        let reply = guest.call(LOOKUP, parent, &[&z(name)]).unwrap();
        ((u64_at(&reply, 16), u32_at(&reply, 32)), u64_at(&reply, 24))
    };
    let (none, day) = ((0, 0), (86400, 0));
    assert_eq!(valid(place.pod, "one"), (none, 86400), "its attributes are");
    assert_eq!(valid(place.pod, "first"), (none, 86400), "one from the start");
    assert_eq!(guest.call(LOOKUP, place.pod, &[&z("none")]), Err(libc::ENOENT));
    // All others are as they were.
    assert_eq!(valid(TOP, "pod"), (day, 86400));
    assert_eq!(valid(TOP, "none"), (day, 0));
    let fixed = guest.walk("fixed").node;
    assert_eq!((valid(fixed, "0"), valid(fixed, "none")), ((day, 86400), (day, 0)));
    assert_eq!(valid(guest.walk("pod/one").node, "f"), (day, 86400));
}

#[test]
fn what_is_removed_goes_on_until_it_is_forgotten() {
    let place = place();
    let guest = &place.guest;
    let path = place.directory("one");
    let before = place.server.known();
    place.share("pod/one", &path, Access::ReadWrite);
    assert_eq!((descriptors(&path), place.server.known()), (1, before + 1));
    let one = guest.walk("pod/one").node;
    let file = guest.walk("pod/one/f").node;
    let fh = guest.open(file, libc::O_RDWR).unwrap();
    place.shares.remove("pod/one");
    place.shares.remove("pod/one");
    assert_eq!(guest.lookup(place.pod, "one").err(), Some(libc::ENOENT));
    assert_eq!(place.names(true), [".", "..", "first"]);
    // The open file, what is below the directory, and the directory itself.
    assert_eq!(guest.write(file, fh, 0, b"O"), Ok(1));
    assert_eq!(guest.read(file, fh, 0, 99).unwrap(), b"One");
    guest.touch(one, "new");
    assert_eq!(place.server.known(), before + 3);
    // It was looked up twice.
    place.forget(one, 1);
    guest.call(GETATTR, one, &[&[0; 16]]).unwrap();
    place.forget(one, 1);
    assert_eq!(guest.call(GETATTR, one, &[&[0; 16]]), Err(libc::EBADF));
    assert_eq!(guest.read(file, fh, 0, 99).unwrap(), b"One");
    assert_eq!(place.server.known(), before + 2);
    guest.release(file, fh).unwrap();
    place.forget(file, 1);
    assert_eq!(place.server.known(), before + 1);
    guest.call(DESTROY, TOP, &[]).unwrap();
    assert_eq!((descriptors(&path), place.server.known()), (0, before));
    // What the guest never knew is closed at once, and what it forgot before.
    guest.init(7, 41, OFFER).unwrap();
    place.share("pod/one", &path, Access::ReadWrite);
    place.share("pod/two", &path, Access::ReadWrite);
    let two = guest.walk("pod/two").node;
    place.forget(two, 1);
    assert!(guest.call(GETATTR, two, &[&[0; 16]]).is_ok(), "it stays until it is removed");
    assert_eq!(descriptors(&path), 2);
    place.shares.remove("pod/one");
    place.shares.remove("pod/two");
    assert_eq!((descriptors(&path), place.server.known()), (0, before));
}

#[test]
fn a_name_can_be_added_again() {
    let place = place();
    let (one, two) = (place.directory("one"), place.directory("two"));
    place.share("pod/x", &one, Access::ReadWrite);
    let old = place.guest.walk("pod/x").node;
    place.shares.remove("pod/x");
    place.share("pod/x", &two, Access::ReadWrite);
    let new = place.guest.walk("pod/x").node;
    assert_ne!(old, new);
    assert_eq!((place.read(old), place.read(new)), (b"one".to_vec(), b"two".to_vec()));
    place.shares.remove("pod/first");
    place.share("pod/first", &one, Access::ReadWrite);
    assert_eq!(place.read(place.guest.walk("pod/first").node), b"one");
    assert_eq!(place.names(false), [".", "..", "x", "first"]);
}

#[test]
fn what_cannot_be_added_is_refused_and_closed() {
    let place = place();
    let path = place.directory("one");
    place.share("pod/one", &path, Access::ReadWrite);
    let before = place.server.known();
    let add = |name: &str, file: OwnedFd| {
        place.shares.add(name, file, Access::ReadWrite, Cache::AUTO).unwrap_err().to_string()
    };
    let long = format!("pod/{}", "n".repeat(256));
    for bad in ["", "pod", "pod/", "/one", "pod/.", "pod/..", "../x", "pod/a/b", "pod//b", "pod/a\0b", &long]
    {
        let told = add(bad, open(&path));
        assert_eq!(told, format!("sharing {bad:?}: a name of two parts is needed"));
        place.shares.remove(bad);
    }
    for bad in ["pod/one", "pod/first"] {
        assert_eq!(add(bad, open(&path)), format!("sharing {bad:?}: the name is taken"));
    }
    // Neither what is not there, nor what is a file, nor a directory that was made for an entry alone.
    for bad in ["none/x", "root/x", "fixed/x", "fixed/0"] {
        let told = format!("sharing {bad:?}: it has no directory of those to which files can be added");
        assert_eq!(add(bad, open(&path)), told);
    }
    let (pipe, _other) = nix::unistd::pipe().unwrap();
    let told = "sharing \"pod/pipe\": it is neither a directory nor a regular file";
    assert_eq!(add("pod/pipe", pipe), told);
    assert_eq!(add("pod/null", open(Path::new("/dev/null"))), told.replace("pipe", "null"));
    assert_eq!((descriptors(&path), place.server.known()), (1, before));
    for name in ["root", "pod", "fixed/0", "pod/none"] {
        place.shares.remove(name);
    }
    assert_eq!(place.guest.walk("fixed/0").mode, place.guest.walk("root").mode);
}

#[test]
fn a_guest_that_begins_anew_finds_what_was_added() {
    let place = place();
    let guest = &place.guest;
    place.share("pod/one", &place.directory("one"), Access::ReadWrite);
    let one = guest.walk("pod/one").node;
    let file = guest.walk("pod/one/f").node;
    for again in 0..3 {
        match again {
            0 => place.server.reset(),
            1 => drop(guest.call(DESTROY, TOP, &[]).unwrap()),
            _ => {}
        }
        guest.init(7, 41, OFFER).unwrap();
        assert_eq!(guest.call(GETATTR, file, &[&[0; 16]]), Err(libc::EBADF));
        assert_eq!(guest.walk("pod/one").node, one);
        assert_eq!(place.read(one), b"one");
    }
}

#[test]
fn what_is_added_takes_from_what_the_guest_may_know() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..100 {
        fs::write(dir.path().join(number.to_string()), "").unwrap();
    }
    let server = Server::limited(tree(dir.path()), 80).unwrap();
    let (guest, shares) = (Client::new(&server), server.shares());
    let root = guest.walk("root").node;
    let find = || (0..100).filter(|number| guest.lookup(root, &number.to_string()).is_ok()).count();
    for number in 0..10 {
        shares.add(&format!("pod/{number}"), open(dir.path()), Access::ReadWrite, Cache::AUTO).unwrap();
    }
    assert_eq!(find(), 60);
    // Not the other way round: what a guest knows stops nobody.
    shares.add("pod/more", open(dir.path()), Access::ReadWrite, Cache::AUTO).unwrap();
    assert!(guest.lookup(guest.walk("pod").node, "more").is_ok());
    for number in 0..10 {
        shares.remove(&format!("pod/{number}"));
    }
    assert_eq!(find(), 69);
}

#[test]
fn a_listing_goes_on_when_names_come_and_go() {
    let place = place();
    let path = place.directory("d");
    for number in 0..20 {
        place.share(&format!("pod/{number}"), &path, Access::ReadOnly);
    }
    let fh = u64_at(&place.guest.call(OPENDIR, place.pod, &[&w(&[0, 0])]).unwrap(), 0);
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let body = [q(&[fh, offset]), w(&[32, 0]), q(&[0, 0])].concat();
        let reply = place.guest.call(READDIR, place.pod, &[&body]).unwrap();
        if reply.is_empty() {
            break;
        }
        offset = u64_at(&reply, 8);
        names.push(String::from_utf8(reply[24..24 + u32_at(&reply, 16) as usize].to_vec()).unwrap());
        if names.last().unwrap() == "9" {
            for gone in ["0", "8", "9", "10"] {
                place.shares.remove(&format!("pod/{gone}"));
            }
            place.share("pod/last", &path, Access::ReadOnly);
        }
    }
    let mut wanted: Vec<_> = [".", "..", "first"].map(str::to_owned).to_vec();
    wanted.extend((0..20).filter(|number| *number != 10).map(|number| number.to_string()));
    wanted.push("last".to_owned());
    assert_eq!(names, wanted);
}

#[test]
fn entries_come_and_go_under_threads_that_use_them() {
    let place = place();
    let paths = [place.directory("one"), place.directory("two")];
    let before = place.server.known();
    let end = Arc::new(AtomicBool::new(false));
    let users: Vec<_> = (0..3)
        .map(|_| {
            let (guest, end, pod) = (Client::raw(&place.server), end.clone(), place.pod);
            thread::spawn(move || {
                let mut count = 0;
                let forget = |node| drop(guest.bytes(guest.message(FORGET, node, &[&q(&[1])]), 0));
                while !end.load(Ordering::Relaxed) {
                    let Ok(top) = guest.lookup(pod, "x") else { continue };
                    // Removed or not: what was told stays until it is forgotten.
                    let file = guest.lookup(top.node, "f").unwrap();
                    let fh = guest.open(file.node, libc::O_RDONLY).unwrap();
                    let text = guest.read(file.node, fh, 0, 9).unwrap();
                    assert!(text == b"one" || text == b"two", "{text:?}");
                    guest.release(file.node, fh).unwrap();
                    forget(file.node);
                    for (_, node) in guest.list(pod, 4096, true).into_iter().filter(|(_, node)| *node != 0) {
                        forget(node);
                    }
                    forget(top.node);
                    count += 1;
                }
                guest.attributes(TOP);
                count
            })
        })
        .collect();
    for turn in 0..3000 {
        place.share("pod/x", &paths[turn % 2], Access::ReadWrite);
        thread::yield_now();
        place.shares.remove("pod/x");
    }
    end.store(true, Ordering::Relaxed);
    let used: Vec<i32> = users.into_iter().map(|user| user.join().unwrap()).collect();
    assert!(used.iter().sum::<i32>() > 10, "{used:?}");
    assert_eq!(place.server.known(), before, "{used:?}");
    assert_eq!(paths.map(|path| descriptors(&path)), [0, 0]);
}

#[test]
fn a_kernel_sees_at_once_what_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, target] = ["one", "two", "mnt"].map(|name| dir.path().join(name));
    for path in [&one, &two, &target] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("f"), path.file_name().unwrap().as_encoded_bytes()).unwrap();
    }
    let server = Server::limited(tree(dir.path()), 800).unwrap();
    let shares = server.shares();
    let mount = Mount::new(&server, &target, 2);
    let pod = target.join("pod");
    let add = |path| shares.add("pod/x", open(path), Access::ReadWrite, Cache::ALWAYS).unwrap();
    let list = || fs::read_dir(&pod).unwrap().count();
    for _ in 0..3 {
        for (path, text) in [(&one, "one"), (&two, "two")] {
            assert!(!pod.join("x").exists());
            assert_eq!(list(), 1);
            add(path);
            assert_eq!(list(), 2);
            assert_eq!(fs::read_to_string(pod.join("x/f")).unwrap(), text);
            let inside = File::open(pod.join("x")).unwrap();
            let mut file = File::options().append(true).create(true).open(pod.join("x/g")).unwrap();
            shares.remove("pod/x");
            assert_eq!(list(), 1);
            assert!(!pod.join("x").exists());
            file.write_all(b"more").unwrap();
            file.sync_all().unwrap();
            assert_eq!(fs::read_to_string(path.join("g")).unwrap().len() % 4, 0);
            drop((file, inside));
            // Straight from one to the other, with the name in the kernel's cache.
            add(&one);
            assert_eq!(fs::read_to_string(pod.join("x/f")).unwrap(), "one");
            shares.remove("pod/x");
            add(&two);
            assert_eq!(fs::read_to_string(pod.join("x/f")).unwrap(), "two");
            shares.remove("pod/x");
        }
    }
    drop(mount);
}
