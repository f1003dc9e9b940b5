//! Each operation, and what it does to real files.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use locule_vmm::fs::Server;
use tempfile::TempDir;

use super::client::*;

const MODE: u32 = 1;
const OWNER: u32 = 2 | 4;
const SIZE: u32 = 8;
const KILL: u32 = 1 << 11;

struct Place {
    dir: TempDir,
    guest: Client,
    root: u64,
    fixed: u64,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let guest = Client::on(dir.path());
    let (root, fixed) = (guest.walk("root").node, guest.walk("fixed").node);
    Place { dir, guest, root, fixed }
}

impl Place {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mode(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.at(name)).unwrap().mode() & 0o7777
    }
}

#[test]
fn versions_are_negotiated() {
    let dir = tempfile::tempdir().unwrap();
    let guest = Client::raw(&Server::new(tree(dir.path())).unwrap());
    assert_eq!(guest.call(GETATTR, TOP, &[&[0; 16]]), Err(libc::EIO), "nothing before INIT");
    assert_eq!(guest.init(7, 30, 0), Err(libc::EPROTO));
    assert_eq!(guest.init(6, 99, 0), Err(libc::EPROTO));
    let newer = guest.init(8, 0, 0).unwrap();
    assert_eq!((u32_at(&newer, 0), u32_at(&newer, 12)), (7, 0), "asked to come again with our version");
    let agreed = guest.init(7, 41, OFFER).unwrap();
    let flags = u64::from(u32_at(&agreed, 12)) | u64::from(u32_at(&agreed, 32)) << 32;
    for (bit, wanted) in
        [(27, true), (28, true), (20, true), (40, true), (1, false), (10, false), (16, false), (4, false)]
    {
        assert_eq!(flags >> bit & 1 == 1, wanted, "flag {bit}");
    }
    assert_eq!(u32_at(&agreed, 20), 1 << 20, "bytes of a write");
}

#[test]
fn the_top_directory_is_made_and_fixed() {
    let Place { guest, root, .. } = &place();
    let names: Vec<_> = guest.list(TOP, 4096, false).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".", "..", "root", "fixed", "mounts"]);
    let names: Vec<_> =
        guest.list(guest.walk("mounts").node, 40, false).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".", "..", "0"]);
    assert_eq!(guest.attributes(TOP).mode, libc::S_IFDIR | 0o555);
    assert_eq!(guest.lookup(TOP, "other").unwrap().node, 0, "that there is nothing is remembered");
    assert_eq!(guest.call(MKDIR, TOP, &[&w(&[0o755, 0]), &z("new")]), Err(libc::EROFS));
    assert_eq!(guest.call(UNLINK, TOP, &[&z("root")]), Err(libc::EROFS));
    assert_eq!(guest.call(RENAME2, TOP, &[&q(&[*root]), &w(&[0, 0]), &z("root"), &z("x")]), Err(libc::EROFS));
    assert_eq!(guest.create(TOP, "f", libc::O_RDWR, 0o644, 0).err(), Some(libc::EROFS));
    assert_eq!(guest.set(TOP, MODE, 0o777, 0, 0, 0).err(), Some(libc::EROFS));
    assert_eq!(guest.open(TOP, 0), Err(libc::EROFS));
    // What stays is not forgotten, however often the guest says so.
    guest.bytes(guest.message(FORGET, *root, &[&q(&[u64::MAX])]), 0);
    assert!(guest.attributes(*root).mode & libc::S_IFDIR != 0);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let Place { guest, root, .. } = &place();
    for bad in ["..", ".", "a/b", "/etc", "../x"] {
        assert_eq!(guest.lookup(*root, bad).err(), Some(libc::EINVAL), "{bad}");
        assert_eq!(guest.create(*root, bad, libc::O_RDWR, 0o644, 0).err(), Some(libc::EINVAL), "{bad}");
        assert_eq!(guest.call(MKDIR, *root, &[&w(&[0o755, 0]), &z(bad)]), Err(libc::EINVAL));
        assert_eq!(guest.call(UNLINK, *root, &[&z(bad)]), Err(libc::EINVAL));
        assert_eq!(guest.call(SYMLINK, *root, &[&z(bad), &z("t")]), Err(libc::EINVAL));
        assert_eq!(
            guest.call(RENAME2, *root, &[&q(&[*root]), &w(&[0, 0]), &z("x"), &z(bad)]),
            Err(libc::EINVAL)
        );
        assert_eq!(guest.call(LINK, *root, &[&q(&[*root]), &z(bad)]), Err(libc::EINVAL));
    }
    assert_eq!(guest.lookup(*root, "").err(), Some(libc::ENOENT));
    assert_eq!(guest.lookup(*root, &"n".repeat(256)).err(), Some(libc::ENAMETOOLONG));
    assert_eq!(guest.call(LOOKUP, *root, &[b"unended"]), Err(libc::EINVAL));
}

#[test]
fn what_a_process_makes_is_its_own() {
    let place = place();
    let user = place.guest.user(1234, 2345);
    let (file, fh) = user.create(place.root, "f", libc::O_RDWR | libc::O_EXCL, 0o666, 0o027).unwrap();
    assert_eq!((file.uid, file.gid, file.mode), (1234, 2345, libc::S_IFREG | 0o640));
    assert_eq!(user.write(file.node, fh, 0, b"hello"), Ok(5));
    user.call(MKDIR, place.root, &[&w(&[0o777, 0o077]), &z("d")]).unwrap();
    user.call(SYMLINK, place.root, &[&z("l"), &z("../../outside")]).unwrap();
    user.call(MKNOD, place.root, &[&w(&[libc::S_IFIFO | 0o666, 0, 0, 0]), &z("p")]).unwrap();
    place.guest.touch(place.root, "r");
    for name in ["f", "d", "l", "p"] {
        let meta = fs::symlink_metadata(place.at(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 2345), "{name}");
    }
    assert_eq!(fs::metadata(place.at("r")).unwrap().uid(), 0);
    assert_eq!((place.mode("f"), place.mode("d"), place.mode("p")), (0o640, 0o700, 0o666));
    // In a directory that hands down its group, that one.
    fs::create_dir(place.at("s")).unwrap();
    std::os::unix::fs::chown(place.at("s"), None, Some(77)).unwrap();
    fs::set_permissions(place.at("s"), fs::Permissions::from_mode(0o2777)).unwrap();
    let s = user.walk("root/s").node;
    assert_eq!(user.touch(s, "g").gid, 77);
    let made = user.call(MKDIR, s, &[&w(&[0o755, 0]), &z("h")]).unwrap();
    assert_eq!(Entry::parse(&made).mode & 0o2000, 0o2000);
    // A directory that is closed to the caller is the guest kernel's to guard: it knows all groups.
    fs::create_dir(place.at("k")).unwrap();
    fs::set_permissions(place.at("k"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(user.touch(user.walk("root/k").node, "x").uid, 1234);
    // Ids that there are not.
    let nobody = place.guest.user(u32::MAX, 0);
    assert_eq!(nobody.create(place.root, "n", libc::O_RDWR, 0o644, 0).err(), Some(libc::EOVERFLOW));
    assert_eq!(place.guest.touch(place.root, "o").uid, 0);
}

#[test]
fn data_is_read_and_written_in_its_place() {
    let place = place();
    let guest = &place.guest;
    let (Entry { node, .. }, fh) = guest.create(place.root, "f", libc::O_RDWR, 0o644, 0).unwrap();
    let data: Vec<u8> = (0..300_000u32).map(|number| (number * 7) as u8).collect();
    assert_eq!(guest.write(node, fh, 10, &data), Ok(300_000));
    assert_eq!(fs::read(place.at("f")).unwrap()[10..], data);
    assert_eq!(guest.read(node, fh, 10, 300_000).unwrap(), data);
    assert_eq!(guest.read(node, fh, 300_000, 4096).unwrap(), &data[299_990..]);
    assert_eq!(guest.read(node, fh, 300_010, 4096).unwrap(), b"");
    // Appending is a matter of each write; pages that are written back go to their own place.
    let append = libc::O_APPEND;
    fs::write(place.at("f"), "0123456789").unwrap();
    assert_eq!(guest.write_as(node, fh, 2, b"ab", 0, append), Ok(2));
    assert_eq!(guest.write_as(node, fh, 2, b"cd", 1, append), Ok(2));
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "01cd456789ab");
    guest.set(node, SIZE, 0, 0, 0, 4).unwrap();
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "01cd");
    let reader = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.write(node, reader, 0, b"x"), Err(libc::EBADF));
    guest.open(node, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(fs::read(place.at("f")).unwrap(), b"");
    // Offsets and lengths that are none.
    assert_eq!(guest.write(node, fh, 1 << 63, b"x"), Err(libc::EINVAL));
    assert_eq!(guest.read(node, fh, u64::MAX, 1), Err(libc::EINVAL));
    let head = [q(&[fh, 0]), w(&[100, 0]), q(&[0, 0])].concat();
    assert_eq!(guest.call(WRITE, node, &[&head, b"less"]), Err(libc::EINVAL));
    assert_eq!(guest.open(node, libc::O_ACCMODE), Err(libc::EINVAL));
    assert_eq!(guest.call(FSYNC, node, &[&q(&[fh, 1])]), Ok(vec![]));
    assert_eq!(guest.call(FLUSH, node, &[&q(&[fh, 0, 0])]), Ok(vec![]));
    guest.call(SYNCFS, TOP, &[&q(&[0])]).unwrap();
    guest.call(SYNCFS, place.root, &[&q(&[0])]).unwrap();
}

#[test]
fn holes_copies_and_space() {
    let place = place();
    let guest = &place.guest;
    let (a, a_fh) = guest.create(place.root, "a", libc::O_RDWR, 0o644, 0).unwrap();
    let (b, b_fh) = guest.create(place.root, "b", libc::O_RDWR, 0o644, 0).unwrap();
    guest.call(FALLOCATE, a.node, &[&q(&[a_fh, 0, 1 << 20]), &w(&[0, 0])]).unwrap();
    assert_eq!(fs::metadata(place.at("a")).unwrap().len(), 1 << 20);
    guest.write(a.node, a_fh, 0, b"head").unwrap();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    guest.call(FALLOCATE, a.node, &[&q(&[a_fh, 65536, 1 << 19]), &w(&[punch as u32, 0])]).unwrap();
    let seek = |whence: i32| guest.call(LSEEK, a.node, &[&q(&[a_fh, 0]), &w(&[whence as u32, 0])]);
    assert_eq!(seek(libc::SEEK_DATA).map(|reply| u64_at(&reply, 0)), Ok(0));
    assert!(u64_at(&seek(libc::SEEK_HOLE).unwrap(), 0) <= 65536);
    assert_eq!(seek(libc::SEEK_END), Err(libc::EINVAL));
    let copy = guest.call(COPY_FILE_RANGE, a.node, &[&q(&[a_fh, 1, b.node, b_fh, 2, 3, 0])]).unwrap();
    assert_eq!(u32_at(&copy, 0), 3);
    assert_eq!(fs::read(place.at("b")).unwrap(), b"\0\0ead");
    let stat = guest.call(STATFS, place.root, &[]).unwrap();
    assert!(stat.len() == 80 && u64_at(&stat, 0) > 0);
    let statx = guest.call(STATX, a.node, &[&w(&[0, 0]), &q(&[0]), &w(&[0, 0xfff])]).unwrap();
    assert_eq!((statx.len(), u64_at(&statx, 32 + 40)), (288, 1 << 20));
}

#[test]
fn set_id_bits_go_when_the_writer_may_not_keep_them() {
    let place = place();
    let guest = &place.guest;
    let user = guest.user(1234, 2345);
    let (Entry { node, .. }, fh) = guest.create(place.root, "f", libc::O_RDWR, 0o777, 0).unwrap();
    let set = || fs::set_permissions(place.at("f"), fs::Permissions::from_mode(0o6777)).unwrap();
    let kept = |what: &str, keeps: bool| {
        assert_eq!(place.mode("f"), if keeps { 0o6777 } else { 0o777 }, "{what}");
        set();
    };
    set();
    guest.write(node, fh, 0, b"x").unwrap();
    kept("written by one who may", true);
    user.write_as(node, fh, 0, b"x", 4, 0).unwrap();
    kept("written by one who may not", false);
    guest.write(node, fh, 0, b"x").unwrap();
    kept("written again by one who may", true);
    guest.set(node, SIZE, 0, 0, 0, 9).unwrap();
    kept("cut by one who may", true);
    guest.set(node, SIZE | KILL, 0, 0, 0, 8).unwrap();
    kept("cut by one who may not", false);
    guest.call(OPEN, node, &[&w(&[(libc::O_RDWR | libc::O_TRUNC) as u32, 1])]).unwrap();
    kept("emptied by one who may not", false);
    user.call(FALLOCATE, node, &[&q(&[fh, 0, 99]), &w(&[0, 0])]).unwrap();
    kept("made longer by one who may not", false);
    guest.set(node, OWNER, 0, 5, 6, 0).unwrap();
    let meta = fs::metadata(place.at("f")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (5, 6, 0o777));
    guest.set(node, MODE, 0o4711, 0, 0, 0).unwrap();
    assert_eq!(place.mode("f"), 0o4711);
    assert_eq!(guest.set(node, OWNER, 0, u32::MAX, 6, 0).err(), Some(libc::EINVAL));
}

#[test]
fn times_are_set() {
    let place = place();
    let file = place.guest.touch(place.root, "f");
    let body = [w(&[16 | 32, 0]), q(&[0, 0, 0, 1_000, 2_000, 0]), w(&[7, 8, 0, 0, 0, 0, 0, 0])].concat();
    place.guest.call(SETATTR, file.node, &[&body]).unwrap();
    let meta = fs::metadata(place.at("f")).unwrap();
    assert_eq!((meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec()), (1_000, 7, 2_000, 8));
    let body = [w(&[16 | 32 | 128 | 256, 0]), q(&[0; 6]), w(&[0; 8])].concat();
    place.guest.call(SETATTR, file.node, &[&body]).unwrap();
    assert!(fs::metadata(place.at("f")).unwrap().mtime() > 1_000_000_000);
}

#[test]
fn nothing_but_files_is_opened() {
    let place = place();
    let guest = &place.guest;
    // The host's disk would be opened by this one, if anything was.
    for (name, kind, device) in [
        ("c", libc::S_IFCHR, 0x501),
        ("b", libc::S_IFBLK, 0x700),
        ("p", libc::S_IFIFO, 0),
        ("s", libc::S_IFSOCK, 0),
    ] {
        let made = guest.call(MKNOD, place.root, &[&w(&[kind | 0o666, device, 0, 0]), &z(name)]).unwrap();
        let entry = Entry::parse(&made);
        assert_eq!((entry.mode & libc::S_IFMT, entry.rdev), (kind, device));
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR | libc::O_TRUNC] {
            assert_eq!(guest.open(entry.node, flags), Err(libc::ENXIO), "{name}");
        }
        assert_eq!(guest.call(OPENDIR, entry.node, &[&w(&[0, 0])]), Err(libc::ENOTDIR));
        assert_eq!(guest.create(place.root, name, libc::O_RDWR, 0o644, 0).err(), Some(libc::ENXIO));
        assert_eq!(guest.set(entry.node, SIZE, 0, 0, 0, 0).err(), Some(libc::ENXIO));
        guest.set(entry.node, MODE, 0o600, 0, 0, 0).unwrap();
    }
    assert!(fs::metadata(place.at("c")).unwrap().file_type().is_char_device());
    assert_eq!(guest.open(place.root, libc::O_RDONLY), Err(libc::EISDIR));
    symlink("/etc/passwd", place.at("l")).unwrap();
    let link = guest.walk("root/l");
    assert_eq!(guest.open(link.node, libc::O_RDONLY), Err(libc::ELOOP));
    assert_eq!(guest.call(READLINK, link.node, &[]).unwrap(), b"/etc/passwd");
    assert_eq!(guest.lookup(link.node, "x").err(), Some(libc::ENOTDIR));
    assert_eq!(guest.create(place.root, "l", libc::O_RDWR, 0o644, 0).err(), Some(libc::ELOOP));
    assert_eq!(guest.call(READLINK, place.root, &[]), Err(libc::EINVAL));
}

#[test]
fn names_are_linked_moved_and_removed() {
    let place = place();
    let guest = &place.guest;
    let a = guest.touch(place.root, "a");
    let b = Entry::parse(&guest.call(LINK, place.root, &[&q(&[a.node]), &z("b")]).unwrap());
    assert_eq!((b.node, b.links), (a.node, 2), "one file, one node");
    symlink("nowhere", place.at("l")).unwrap();
    let l = guest.walk("root/l");
    let m = Entry::parse(&guest.call(LINK, place.root, &[&q(&[l.node]), &z("m")]).unwrap());
    assert_eq!(m.node, l.node, "a link to a link");
    let rename = |old: &str, new: &str, flags: u32| {
        guest.call(RENAME2, place.root, &[&q(&[place.root]), &w(&[flags, 0]), &z(old), &z(new)]).map(drop)
    };
    assert_eq!(rename("a", "b", libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    assert_eq!(rename("a", "l", libc::RENAME_EXCHANGE), Ok(()));
    assert_eq!(guest.walk("root/a").node, l.node);
    assert_eq!(rename("b", "w", libc::RENAME_WHITEOUT), Ok(()));
    assert!(fs::symlink_metadata(place.at("b")).unwrap().file_type().is_char_device());
    assert_eq!(rename("w", "x", 1 << 9), Err(libc::EINVAL));
    guest.call(RENAME, place.root, &[&q(&[place.root]), &z("w"), &z("c")]).unwrap();
    // Another entry of the tree is another file system, and a read-only one takes nothing.
    let other = guest.walk("mounts/0").node;
    let across = |to: u64| guest.call(RENAME2, place.root, &[&q(&[to]), &w(&[0, 0]), &z("c"), &z("d")]);
    assert_eq!((across(other), across(place.fixed)), (Err(libc::EXDEV), Err(libc::EROFS)));
    assert_eq!(guest.call(LINK, other, &[&q(&[a.node]), &z("d")]), Err(libc::EXDEV));
    assert_eq!(guest.call(LINK, place.root, &[&q(&[place.root]), &z("d")]), Err(libc::EPERM));
    guest.call(UNLINK, place.root, &[&z("c")]).unwrap();
    assert_eq!(guest.call(UNLINK, place.root, &[&z("c")]), Err(libc::ENOENT));
    guest.call(MKDIR, place.root, &[&w(&[0o755, 0]), &z("e")]).unwrap();
    assert_eq!(guest.call(UNLINK, place.root, &[&z("e")]), Err(libc::EISDIR));
    guest.call(RMDIR, place.root, &[&z("e")]).unwrap();
    // A file without a name, which is given one later; and one that lost its own and is open.
    let reply = guest.call(TMPFILE, place.root, &[&w(&[libc::O_RDWR as u32, 0o600, 0, 0]), &z("")]).unwrap();
    let (file, fh) = (Entry::parse(&reply), u64_at(&reply, 128));
    assert_eq!(file.links, 0);
    guest.write(file.node, fh, 0, b"late").unwrap();
    guest.call(LINK, place.root, &[&q(&[file.node]), &z("t")]).unwrap();
    assert_eq!(fs::read(place.at("t")).unwrap(), b"late");
    guest.call(UNLINK, place.root, &[&z("t")]).unwrap();
    assert_eq!(guest.read(file.node, fh, 0, 9).unwrap(), b"late");
    assert_eq!(guest.attributes(file.node).links, 0);
}

#[test]
fn a_read_only_entry_takes_no_change() {
    let place = place();
    let guest = &place.guest;
    fs::write(place.at("f"), "text").unwrap();
    let (dir, file) = (place.fixed, guest.walk("fixed/f").node);
    assert_ne!(file, guest.walk("root/f").node, "the same file elsewhere may be changed");
    let fh = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(file, fh, 0, 9).unwrap(), b"text");
    let rofs = Err(libc::EROFS);
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC] {
        assert_eq!(guest.open(file, flags).map(drop), rofs);
    }
    assert_eq!(guest.write(file, fh, 0, b"x").map(drop), Err(libc::EBADF));
    assert_eq!(guest.call(FALLOCATE, file, &[&q(&[fh, 0, 9]), &w(&[0, 0])]).map(drop), Err(libc::EBADF));
    assert_eq!(guest.create(dir, "n", libc::O_RDWR, 0o644, 0).map(drop), rofs);
    assert_eq!(guest.call(TMPFILE, dir, &[&w(&[2, 0o600, 0, 0]), &z("")]).map(drop), rofs);
    for (op, head) in [(MKDIR, w(&[0o755, 0])), (MKNOD, w(&[libc::S_IFIFO, 0, 0, 0])), (LINK, q(&[file]))] {
        assert_eq!(guest.call(op, dir, &[&head, &z("n")]).map(drop), rofs);
    }
    assert_eq!(guest.call(SYMLINK, dir, &[&z("n"), &z("t")]).map(drop), rofs);
    assert_eq!(guest.call(UNLINK, dir, &[&z("f")]).map(drop), rofs);
    assert_eq!(guest.call(RMDIR, dir, &[&z("f")]).map(drop), rofs);
    assert_eq!(guest.call(RENAME, dir, &[&q(&[dir]), &z("f"), &z("g")]).map(drop), rofs);
    for valid in [MODE, OWNER, SIZE, 16 | 32] {
        assert_eq!(guest.set(file, valid, 0o777, 0, 0, 0).map(drop), rofs);
    }
    let body = [w(&[1, 0, 0, 0]), z("user.a"), b"v".to_vec()].concat();
    assert_eq!(guest.call(SETXATTR, file, &[&body]).map(drop), rofs);
    assert_eq!(guest.call(REMOVEXATTR, file, &[&z("user.a")]).map(drop), rofs);
    assert_eq!(fs::read(place.at("f")).unwrap(), b"text");
}

#[test]
fn attributes_pass_but_for_the_hosts_own() {
    let place = place();
    let guest = &place.guest;
    let file = guest.touch(place.root, "f").node;
    let set = |name: &str, value: &[u8], flags: u32| {
        let body = [w(&[value.len() as u32, flags, 0, 0]), z(name), value.to_vec()].concat();
        guest.call(SETXATTR, file, &[&body]).map(drop)
    };
    let get = |name: &str, size: u32| guest.call(GETXATTR, file, &[&w(&[size, 0]), &z(name)]);
    // cap_net_raw=ep, version 2.
    let capability = w(&[0x0200_0001, 1 << 13, 0, 0, 0]);
    assert_eq!(set("security.capability", &capability, 0), Ok(()));
    assert_eq!(get("security.capability", 64).unwrap(), capability);
    assert_eq!(set("user.one", b"1", libc::XATTR_CREATE as u32), Ok(()));
    assert_eq!(set("user.one", b"2", libc::XATTR_CREATE as u32), Err(libc::EEXIST));
    assert_eq!(set("user.none", b"", 0), Ok(()));
    assert_eq!(get("user.one", 0).map(|reply| u32_at(&reply, 0)), Ok(1));
    assert_eq!(get("user.one", 9), Ok(b"1".to_vec()));
    assert_eq!(set("user.long", &[b'x'; 100], 0), Ok(()));
    assert_eq!(get("user.long", 9), Err(libc::ERANGE));
    for theirs in ["security.selinux", "security.ima", "system.nfs4_acl", "btrfs.compression"] {
        assert_eq!(set(theirs, b"x", 0), Err(libc::EOPNOTSUPP), "{theirs}");
        assert_eq!(get(theirs, 64), Err(libc::EOPNOTSUPP), "{theirs}");
    }
    let list = guest.call(LISTXATTR, file, &[&w(&[4096, 0])]).unwrap();
    let mut names: Vec<_> = list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort();
    assert_eq!(names, [&b"security.capability"[..], b"user.long", b"user.none", b"user.one"]);
    let length = guest.call(LISTXATTR, file, &[&w(&[0, 0])]).map(|reply| u32_at(&reply, 0) as usize);
    assert_eq!(length, Ok(list.len()));
    assert_eq!(guest.call(LISTXATTR, file, &[&w(&[3, 0])]), Err(libc::ERANGE));
    guest.call(REMOVEXATTR, file, &[&z("user.one")]).unwrap();
    assert_eq!(get("user.one", 9), Err(libc::ENODATA));
    // A value that is not there, and one that is too long.
    assert_eq!(guest.call(SETXATTR, file, &[&w(&[50, 0, 0, 0]), &z("user.x"), b"less"]), Err(libc::EINVAL));
    assert_eq!(guest.call(SETXATTR, file, &[&w(&[1 << 20, 0, 0, 0]), &z("user.x")]), Err(libc::E2BIG));
    // Of a symbolic link, not of what it points to.
    symlink("f", place.at("l")).unwrap();
    let link = guest.walk("root/l").node;
    assert_eq!(guest.call(GETXATTR, link, &[&w(&[9, 0]), &z("user.long")]), Err(libc::ENODATA));
    let body = [w(&[1, 0, 0, 0]), z("trusted.l"), b"v".to_vec()].concat();
    guest.call(SETXATTR, link, &[&body]).unwrap();
    assert_eq!(get("trusted.l", 9), Err(libc::ENODATA));
}

#[test]
fn directories_are_listed_once_and_wholly() {
    let place = place();
    let guest = &place.guest;
    let mut names: Vec<String> =
        (0..2000).map(|number| format!("{number}-{}", "n".repeat(number % 90))).collect();
    for name in &names {
        fs::write(place.at(name), "").unwrap();
    }
    names.extend([".".to_owned(), "..".to_owned()]);
    names.sort();
    let before = guest.server.known();
    for (size, plus) in
        [(4096, false), (300, false), (65536, false), (4096, true), (400, true), (1 << 20, true)]
    {
        let mut found = guest.list(place.root, size, plus);
        found.sort();
        let listed: Vec<_> = found.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(listed, names, "{size} {plus}");
        if !plus {
            let outside = fs::metadata(place.at("..")).unwrap().ino();
            assert_ne!(found[1].1, outside, "the number of a directory that is not shared");
            continue;
        }
        assert_eq!(guest.server.known(), before + 2000);
        assert_eq!(found.iter().filter(|(_, node)| *node == 0).count(), 2, "the dots are not looked up");
        // In one request, each as often as it was given.
        let known: Vec<u8> =
            found.iter().filter(|(_, node)| *node != 0).flat_map(|(_, node)| q(&[*node, 1])).collect();
        guest.bytes(guest.message(BATCH_FORGET, 0, &[&w(&[2000, 0]), &known]), 0);
        assert_eq!(guest.server.known(), before);
    }
}

#[test]
fn there_is_an_end_to_what_a_guest_can_take() {
    let dir = tempfile::tempdir().unwrap();
    let guest = Client::new(&Server::limited(tree(dir.path()), 80).unwrap());
    let root = guest.walk("root").node;
    for number in 0..100 {
        fs::write(dir.path().join(number.to_string()), "").unwrap();
    }
    let found: Vec<_> = (0..100).map(|number| guest.lookup(root, &number.to_string())).collect();
    let known: Vec<u64> =
        found.iter().filter_map(|entry| entry.as_ref().ok()).map(|entry| entry.node).collect();
    assert_eq!(known.len(), 70);
    assert!(found.iter().skip(70).all(|entry| entry.as_ref().err() == Some(&libc::ENFILE)));
    let open: Vec<_> = (0..20).map(|_| guest.open(known[0], libc::O_RDONLY)).collect();
    assert_eq!(open.iter().filter(|open| open.is_ok()).count(), 10);
    assert_eq!(open[19], Err(libc::ENFILE));
    // A file that could be made but not be told is no leak.
    assert_eq!(guest.create(root, "new", libc::O_RDWR, 0o644, 0).err(), Some(libc::ENFILE));
    guest.release(known[0], open[0].unwrap()).unwrap();
    assert!(guest.open(known[0], libc::O_RDONLY).is_ok());
    guest.bytes(guest.message(FORGET, known[1], &[&q(&[1])]), 0);
    assert!(guest.lookup(root, "99").is_ok());
    guest.call(DESTROY, TOP, &[]).unwrap();
    guest.init(7, 41, OFFER).unwrap();
    assert!(guest.lookup(root, "98").is_ok());
    assert_eq!(guest.call(GETATTR, known[0], &[&[0; 16]]), Err(libc::EBADF), "numbers are not used again");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = place();
    let guest = &place.guest;
    let (f, fh) = guest.create(place.root, "f", libc::O_RDWR, 0o644, 0).unwrap();
    let g = guest.touch(place.root, "g");
    assert_eq!(guest.read(g.node, fh, 0, 9), Err(libc::EBADF), "a handle on another file");
    assert_eq!(guest.read(f.node, fh + 99, 0, 9), Err(libc::EBADF));
    assert_eq!(guest.release(g.node, fh), Err(libc::EBADF));
    assert_eq!(guest.release(f.node, fh), Ok(()));
    assert_eq!(guest.release(f.node, fh), Err(libc::EBADF));
    let dir = u64_at(&guest.call(OPENDIR, place.root, &[&w(&[0, 0])]).unwrap(), 0);
    assert_eq!(guest.read(place.root, dir, 0, 9), Err(libc::EISDIR));
    assert_eq!(guest.write(place.root, dir, 0, b"x"), Err(libc::EBADF));
    for offset in [u64::MAX, 1 << 63, i64::MAX as u64] {
        let body = [q(&[dir, offset]), w(&[4096, 0]), q(&[0, 0])].concat();
        let _ = guest.call(READDIR, place.root, &[&body]);
    }
    for op in [7, 19, 31, 32, 33, 34, 36, 37, 39, 40, 41, 48, 49, 54, 4096, u32::MAX] {
        assert_eq!(guest.call(op, place.root, &[&[0; 64]]), Err(libc::ENOSYS), "{op}");
    }
    for op in [1, 4, 6, 8, 9, 13, 14, 15, 16, 21, 22, 23, 35, 43, 44, 45, 46, 47, 51, 53] {
        for length in [0, 3] {
            // Zeroes are an empty name where a name is all that there is.
            let refused = guest.call(op, place.root, &[&vec![0; length]]);
            assert!(matches!(refused, Err(libc::EINVAL | libc::ENOENT)), "{op}: {refused:?}");
        }
    }
    assert_eq!(guest.call(GETATTR, 99_999, &[&[0; 16]]), Err(libc::EBADF));
    // Headers that are too short, lie about their length, or leave no room.
    assert_eq!(guest.bytes(vec![0; 39], 99), b"");
    let mut lie = guest.message(GETATTR, place.root, &[&[0; 16]]);
    for length in [0, 39, 4000, u32::MAX] {
        lie[..4].copy_from_slice(&w(&[length]));
        let reply = guest.bytes(lie.clone(), 99);
        assert!(u32_at(&reply, 4) as i32 == -libc::EINVAL || u32_at(&reply, 4) as i32 == -libc::E2BIG);
    }
    let ask = guest.message(GETATTR, place.root, &[&[0; 16]]);
    assert_eq!(guest.bytes(ask.clone(), 15), b"");
    assert_eq!(u32_at(&guest.bytes(ask, 20), 4) as i32, -libc::EOVERFLOW);
    // An answer without room is no change either.
    assert_eq!(guest.bytes(guest.message(UNLINK, place.root, &[&z("g")]), 0), b"");
    assert!(place.at("g").exists());
}
