//! What a layer makes: attributes, links, sparse files, whiteouts, and what it takes from below.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use locule_images::sys::fs::lgetxattr;
use locule_images::unpack::Options;

use crate::Place;
use crate::tarball::{Header, Tarball};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    lgetxattr(&path, &CString::new(name).unwrap()).ok()
}

fn is_whiteout(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

#[test]
fn everything_about_a_file_is_kept() {
    let place = Place::new();
    // v2 file capability: cap_net_raw, permitted and effective.
    let cap = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Tarball::default()
        .pax(&[
            ("mtime", b"1234567890.123456789"),
            ("SCHILY.xattr.security.capability", &cap),
            ("SCHILY.xattr.user.note", b"a=b\nc"),
        ])
        .raw(Header::new("bin/ping", b'0', 3).mode(0o4755).owner(7, 8), b"elf")
        .link("bin/ping6", "bin/ping")
        .raw(Header::new("dev/null", b'3', 0).mode(0o666).device(1, 3), b"")
        .raw(Header::new("run/pipe", b'6', 0).mode(0o600), b"")
        .pax(&[("mtime", b"11.5")])
        .raw(Header::new("link", b'2', 0).link("bin/ping").owner(9, 9), b"")
        .pax(&[("mtime", b"-5.25")])
        .raw(Header::new("bin", b'5', 0).mode(0o2511).owner(3, 4), b"");
    place.unpack(&archive.end());
    let meta = fs::metadata(place.path("bin/ping")).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!(meta.nlink(), 2);
    assert_eq!(meta.mode() & 0o7777, 0o4755);
    assert_eq!(xattr(&place.path("bin/ping"), "user.note").unwrap(), b"a=b\nc");
    let bin = fs::metadata(place.path("bin")).unwrap();
    assert_eq!((bin.mtime(), bin.mtime_nsec(), bin.mode() & 0o7777), (-6, 750_000_000, 0o2511));
    let link = place.path("link").symlink_metadata().unwrap();
    assert_eq!((link.mtime(), link.mtime_nsec()), (11, 500_000_000));
    assert!(place.path("run/pipe").symlink_metadata().unwrap().file_type().is_fifo());
    if nix::unistd::geteuid().is_root() {
        assert_eq!((meta.uid(), meta.gid(), bin.uid(), bin.gid(), link.uid()), (7, 8, 3, 4, 9));
        assert_eq!(xattr(&place.path("bin/ping"), "security.capability").unwrap(), cap);
        let null = place.path("dev/null").symlink_metadata().unwrap();
        assert_eq!((null.rdev(), null.mode() & 0o7777), (libc::makedev(1, 3), 0o666));
    } else {
        assert!(!place.path("dev/null").exists());
    }
}

/// The formats that GNU tar writes for one sparse file, and a long name in each.
#[test]
fn gnu_tar_is_understood() {
    for format in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=0.0"],
    ] {
        let place = Place::new();
        let source = tempfile::tempdir().unwrap();
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
        fs::create_dir(source.path().join("d".repeat(120))).unwrap();
        fs::write(source.path().join(&long), "long").unwrap();
        let sparse = fs::File::create(source.path().join("sparse")).unwrap();
        use std::os::unix::fs::FileExt;
        for i in 0..20u64 {
            sparse.write_all_at(b"data", i * (1 << 20)).unwrap();
        }
        sparse.set_len(64 << 20).unwrap();
        let out = Command::new("tar")
            .args(format)
            .args(["--sparse", "-C"])
            .arg(source.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        assert!(out.status.success());
        place.unpack(&out.stdout);
        let meta = fs::metadata(place.path("sparse")).unwrap();
        assert_eq!(meta.len(), 64 << 20, "{format:?}");
        assert!(meta.blocks() * 512 < 8 << 20, "{format:?}: {} blocks", meta.blocks());
        let same =
            Command::new("cmp").arg(source.path().join("sparse")).arg(place.path("sparse")).status().unwrap();
        assert!(same.success(), "{format:?}");
        assert_eq!(fs::read(place.path(&long)).unwrap(), b"long");
    }
}

#[test]
fn whiteouts_hide_only_what_is_below() {
    let opaque = Options::here().opaque_xattr().to_str().unwrap().to_owned();
    let place = Place::new();
    let archive = Tarball::default()
        .file(".wh.gone", b"")
        .file("own", b"1")
        .file(".wh.own", b"")
        .file("dir/own", b"1")
        .file(".wh.dir", b"")
        .file(".wh.later", b"")
        .file("later", b"1")
        .file(".wh.laterdir", b"")
        .dir("laterdir")
        .dir("plain")
        .file("opq/a", b"1")
        .file("opq/.wh.b", b"")
        .file("opq/.wh..wh..opq", b"")
        .file("opq/c", b"1")
        .raw(Header::new("dev0", b'3', 0), b"");
    place.unpack(&archive.end());
    assert!(is_whiteout(&place.path("gone")));
    assert!(is_whiteout(&place.path("dev0")));
    for kept in ["own", "later", "dir/own", "opq/a", "opq/c"] {
        assert!(place.path(kept).is_file(), "{kept}");
    }
    for name in ["dir", "laterdir", "opq"] {
        assert_eq!(xattr(&place.path(name), &opaque).as_deref(), Some(&b"y"[..]), "{name}");
    }
    assert_eq!(xattr(&place.path("plain"), &opaque), None);
}

#[test]
fn what_no_entry_describes_is_as_in_the_layer_below() {
    let below = Place::new();
    let archive = Tarball::default()
        .raw(Header::new(".", b'5', 0).mode(0o711), b"")
        .raw(Header::new("var", b'5', 0).mode(0o1750).owner(5, 6), b"")
        .raw(Header::new("var/lib", b'5', 0).mode(0o700).owner(7, 7), b"")
        .raw(Header::new("var/lib/file", b'0', 5).mode(0o640).owner(8, 8), b"below");
    below.unpack(&archive.end());
    let place = Place::new();
    let archive =
        Tarball::default().file("var/lib/new", b"").link("copy", "var/lib/file").file("fresh/x", b"");
    place.unpack_over(&archive.end(), &[&below.root()], &Options::here()).unwrap();
    let mode = |path: &str| fs::metadata(place.path(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode(""), mode("var"), mode("var/lib"), mode("fresh")), (0o711, 0o1750, 0o700, 0o755));
    assert_eq!(fs::metadata(place.path("var")).unwrap().mtime(), 15);
    assert_eq!(fs::read(place.path("copy")).unwrap(), b"below");
    assert_eq!(fs::metadata(place.path("copy")).unwrap().nlink(), 2);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(fs::metadata(place.path("var/lib")).unwrap().uid(), 7);
        assert_eq!(fs::metadata(place.path("copy")).unwrap().uid(), 8);
    }
    // What this layer hides is neither inherited nor linked to.
    let place = Place::new();
    let hidden = Tarball::default().file("var/.wh..wh..opq", b"").link("copy", "var/lib/file");
    let told = place.unpack_over(&hidden.end(), &[&below.root()], &Options::here()).unwrap_err();
    assert!(told.contains("no layer has the target"), "{told}");
}

#[test]
fn an_empty_archive_is_an_empty_layer() {
    let place = Place::new();
    place.unpack(&[0; 1024]);
    place.unpack(&[]);
    place.refuse(&[1; 100], "cut off");
    place.refuse(&[1; 1024], "checksum");
    assert_eq!(fs::metadata(place.root()).unwrap().mode() & 0o7777, 0o755);
}
