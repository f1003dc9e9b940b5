//! Every flaw of other unpackers that is known by name, as an archive that had its way with them.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use locule_images::unpack::{Limits, Options, unpack};

use crate::Place;
use crate::tarball::{Header, Tarball};

/// CVE-2018-20990: a link, then a file of the same name.
#[test]
fn a_file_replaces_a_link_instead_of_following_it() {
    for target in ["file", "dir/new"] {
        let place = Place::new();
        let target = format!("{}/{target}", place.outside());
        place.unpack(&Tarball::default().symlink("x", &target).file("x", b"evil").end());
        assert!(place.path("x").symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read(place.path("x")).unwrap(), b"evil");
    }
}

/// CVE-2021-38511: directories made through a link.
#[test]
fn a_chain_of_directories_stays_inside() {
    for target in ["..", "../outside", "../../../../../../../..", "/"] {
        let place = Place::new();
        place.unpack(&Tarball::default().symlink("x", target).dir("x/a/b").file("x/a/b/c", b"1").end());
    }
    let place = Place::new();
    let outside = place.outside();
    place.unpack(&Tarball::default().symlink("x", &outside).file("x/dir/new", b"evil").end());
    // The link's target is made inside the root, or the link gave way to a directory.
    assert!(place.path("x/dir/new").is_file() || place.path(&outside[1..]).join("dir/new").is_file());
}

/// CVE-2026-33056 and CVE-2026-0113: a directory entry changes the mode of what a link leads to.
#[test]
fn a_directory_replaces_a_link_instead_of_following_it() {
    let place = Place::new();
    let target = format!("{}/dir", place.outside());
    let archive = Tarball::default().symlink("x", &target).raw(Header::new("x", b'5', 0).mode(0o777), b"");
    place.unpack(&archive.end());
    assert!(place.path("x").symlink_metadata().unwrap().is_dir());
}

/// CVE-2026-33055, CVE-2025-62518: sizes that two readers take differently.
#[test]
fn what_readers_disagree_on_is_refused() {
    let hidden = Tarball::default().file("hidden", b"evil").0;
    // The PAX size covers the hidden entry, the header's own says that there is no data.
    let place = Place::new();
    let size = hidden.len().to_string();
    let archive =
        Tarball::default().pax(&[("size", size.as_bytes())]).raw(Header::new("a", b'0', 0), &hidden);
    place.unpack(&archive.end());
    assert_eq!(fs::read(place.path("a")).unwrap(), hidden);
    assert!(!place.path("hidden").exists());

    for (flag, words) in [(b'5', "has data"), (b'2', "has data"), (b'3', "has data"), (b'6', "has data")] {
        let header = Header::new("a", flag, hidden.len() as u64).link("b");
        Place::new().refuse(&Tarball::default().raw(header, &hidden).end(), words);
    }
    let mut lone = Tarball::default().file("a", b"1");
    lone.0.extend_from_slice(&[0; 512]);
    Place::new().refuse(&lone.file("hidden", b"evil").end(), "single empty block");
    let global = Header::new("g", b'g', 12);
    Place::new().refuse(&Tarball::default().raw(global, b"12 path=a/b\n").file("x", b"").end(), "global");
    let twice = Tarball::default().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b"");
    Place::new().refuse(&twice.end(), "two PAX headers");
    let both = Tarball::default()
        .raw(Header::new("././@LongLink", b'L', 2), b"a\0")
        .pax(&[("path", b"b")])
        .file("c", b"");
    Place::new().refuse(&both.end(), "both a GNU and a PAX name");
    let negative = Header::new("a", b'0', 0).put(124, &[0xff; 12]);
    Place::new().refuse(&Tarball::default().raw(negative, b"").end(), "negative");
    let lying = Header::new("a", b'0', 4096);
    Place::new().refuse(&Tarball::default().raw(lying, b"short").end(), "cut off");
}

/// CVE-2021-29136: the root itself as a link.
#[test]
fn the_root_stays_a_directory() {
    for name in [".", "/", "./", "//"] {
        let place = Place::new();
        let archive = Tarball::default().symlink(name, &place.outside()).file("file", b"evil");
        place.refuse(&archive.end(), "its root");
        place.refuse(&Tarball::default().link(name, "x").end(), "its root");
    }
}

/// CVE-2021-32760, CVE-2014-6407, CVE-2014-9356: links of either kind that lead away.
#[test]
fn links_are_made_but_never_followed() {
    let place = Place::new();
    let outside = place.outside();
    let archive = Tarball::default()
        .symlink("abs", &format!("{outside}/file"))
        .symlink("rel", "../outside/file")
        .link("hard", "abs")
        .raw(Header::new("hard", b'0', 4).mode(0o4777), b"evil")
        .symlink("d", &format!("{outside}/dir"));
    place.unpack(&archive.end());
    assert_eq!(fs::read_link(place.path("abs")).unwrap().to_str().unwrap(), format!("{outside}/file"));

    // A hard link to a link is that link, not what it leads to.
    let place = Place::new();
    let archive = Tarball::default().symlink("l", &format!("{}/file", place.outside())).link("h", "l");
    place.unpack(&archive.end());
    assert!(place.path("h").symlink_metadata().unwrap().is_symlink());

    for target in ["../outside/file", "d/../../outside/file", "/../outside/file"] {
        Place::new().refuse(&Tarball::default().link("h", target).end(), "climbs");
    }
    let place = Place::new();
    let archive = Tarball::default().symlink("d", &place.outside()).link("h", "d/file");
    place.refuse(&archive.end(), "no layer has the target");
    Place::new().refuse(&Tarball::default().file("../outside/file", b"evil").end(), "climbs");
    let place = Place::new();
    place.unpack(&Tarball::default().file("/etc/passwd", b"inside").end());
    assert_eq!(fs::read(place.path("etc/passwd")).unwrap(), b"inside");
}

/// CVE-2025-47290: somebody swaps a parent for a link while the archive is unpacked.
#[test]
fn a_race_with_the_tree_reaches_nothing_outside() {
    let place = Place::new();
    let (root, outside) = (place.root(), place.outside());
    let stop = AtomicBool::new(false);
    let mut archive = Tarball::default();
    for i in 0..150 {
        archive = archive
            .dir("a")
            .file(&format!("a/dir/f{i}"), b"evil")
            .raw(Header::new("a/dir", b'5', 0).mode(0o777), b"");
    }
    let archive = archive.end();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = fs::rename(root.join("a"), root.join("b"));
                let _ = symlink(&outside, root.join("a"));
                let _ = fs::remove_file(root.join("a"));
                let _ = fs::rename(root.join("b"), root.join("a"));
            }
        });
        let options = Options::here();
        for _ in 0..5 {
            let open = || OwnedFd::from(File::open(&root).unwrap());
            // It may fail; it must not escape.
            if let Ok((found, _)) = unpack(archive.as_slice(), open(), &options) {
                let _ = found.finish(open(), &[], &options);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    place.check();
}

#[test]
fn special_names_of_whiteouts_are_refused() {
    for name in [".wh.", "a/.wh.", ".wh..", ".wh...", ".wh.a/b"] {
        let place = Place::new();
        let told =
            place.unpack_with(&Tarball::default().file(name, b"").end(), &Options::here()).unwrap_err();
        assert!(told.contains("whiteout"), "{name}: {told}");
    }
    // aufs's own: left out, as everybody does.
    let place = Place::new();
    place.unpack(
        &Tarball::default().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", b"").file(".wh..wh.aufs", b"").end(),
    );
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
}

#[test]
fn a_whiteout_reaches_no_file_outside() {
    let place = Place::new();
    let archive =
        Tarball::default().symlink("x", &place.outside()).file("x/.wh.file", b"").file("x/.wh..wh..opq", b"");
    place.unpack(&archive.end());
}

#[test]
fn attributes_of_overlayfs_are_not_believed() {
    let place = Place::new();
    let archive = Tarball::default()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/../../outside"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.kept", b"1"),
        ])
        .dir("d");
    place.unpack(&archive.end());
    let path = std::ffi::CString::new(place.path("d").to_str().unwrap()).unwrap();
    let names = locule_images::sys::fs::llistxattr(&path).unwrap();
    assert_eq!(names, [std::ffi::CString::new("user.kept").unwrap()]);
}

#[test]
fn limits_are_kept() {
    let limited = |limits: Limits| Options { limits, ..Options::here() };
    let many = (0..20).fold(Tarball::default(), |archive, i| archive.file(&format!("f{i}"), b"")).end();
    let place = Place::new();
    let told = place.unpack_with(&many, &limited(Limits { entries: 10, ..Limits::default() })).unwrap_err();
    assert!(told.contains("more than 10 entries"), "{told}");

    let long = "a/".repeat(3000);
    let place = Place::new();
    place.refuse(
        &Tarball::default().pax(&[("path", long.as_bytes())]).file("x", b"").end(),
        "longer than 4096",
    );
    let deep = "a/".repeat(1500);
    place.refuse(&Tarball::default().pax(&[("path", deep.as_bytes())]).file("x", b"").end(), "too deep");
    let name = "n".repeat(300);
    place.refuse(&Tarball::default().pax(&[("path", name.as_bytes())]).file("x", b"").end(), "too long");

    // A long name of 8 GiB must not be read into memory.
    let huge = Header::new("././@LongLink", b'L', 0).put(124, b"77777777777\0");
    place.refuse(&Tarball::default().raw(huge, b"").end(), "extended header is larger");
    let sparse =
        Tarball::default().pax(&[("GNU.sparse.size", b"18446744073709551615"), ("GNU.sparse.map", b"0,0")]);
    place.refuse(&sparse.file("s", b"").end(), "larger than allowed");
    let overlapping = Tarball::default().pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"4,4,0,4")]);
    place.refuse(&overlapping.file("s", b"12345678").end(), "overlap");
    let uid = Tarball::default().pax(&[("uid", b"4294967295")]).file("u", b"");
    place.refuse(&uid.end(), "out of range");
    let uid = Tarball::default().pax(&[("uid", b"4294967296")]).file("u", b"");
    place.refuse(&uid.end(), "out of range");
}

/// What the writer left inside is still a tree that can be removed.
#[test]
fn modes_without_rights_do_not_stop_removal() {
    let place = Place::new();
    let archive = Tarball::default()
        .raw(Header::new("d", b'5', 0).mode(0), b"")
        .raw(Header::new("d/e", b'5', 0).mode(0), b"")
        .file("d/e/f", b"1")
        .file("d", b"now a file");
    place.unpack(&archive.end());
    assert_eq!(fs::read(place.path("d")).unwrap(), b"now a file");
    assert_eq!(fs::metadata(place.path("d")).unwrap().permissions().mode() & 0o7777, 0o644);
}
