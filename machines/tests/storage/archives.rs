//! Clones and archives of whole machines: what comes back, what damage is found, what hostile archives get.

use std::fs;
use std::io::Write;

use locule_images::compress::Compression;
use locule_images::digest::Digest;
use locule_images::pack::{Archive, Form};
use locule_images::rootfs::Map;
use locule_machines::definition::{Disk, FILE};
use locule_machines::storage::{Import, Record, Silent, Storage, export};

use crate::bed::{Bed, IMAGE, MAP, Root, disk, names, overlay};
use crate::{taken, tool};

const SCRIPT: &str = "echo mine > /etc/own; echo more >> /etc/motd; rm /etc/user; mkdir /srv; ln /etc/own /srv/own; \
    busybox ln -s /etc/own /link; busybox mkfifo /pipe; busybox chown 5:6 /srv; busybox chmod 4755 /etc/own; \
    rm -r /bin/true; mkdir /opt; busybox truncate -s 3M /sparse; echo end >> /sparse; \
    busybox touch -d 2020-01-01 /etc/own; echo 0123456789abcdef0123456789abcdef > /etc/machine-id";

const TOLD: &str = "mine\nwelcomemore\n5:6\n2\n/etc/own\n4755\n3145732\n2020";

#[track_caller]
fn looks_right(root: &Root) {
    let told = root.inside(
        "busybox cat /etc/own /etc/motd; test ! -e /etc/user; test ! -e /bin/true; busybox stat -c %u:%g /srv; \
         busybox stat -c %h /srv/own; busybox readlink /link; test -p /pipe; busybox stat -c %a /etc/own; \
         busybox stat -c %s /sparse; busybox stat -c %y /etc/own | busybox cut -c 1-4",
    );
    assert_eq!(told.trim_end(), TOLD);
}

fn made<'a>(bed: &'a Bed, name: &str, kind: &Disk) -> Storage<'a> {
    fs::write(bed.machine(name).join(FILE), "image = \"app:1\"\n").unwrap();
    let storage = bed.storage(name, kind);
    storage.create(IMAGE, Some(MAP)).unwrap();
    let root = bed.mount(name, kind);
    root.inside(SCRIPT);
    let set = |name: &str, attribute: &std::ffi::CStr, value: &[u8]| {
        let path = std::ffi::CString::new(root.path(name).to_str().unwrap()).unwrap();
        locule_images::sys::fs::lsetxattr(&path, attribute, value).unwrap();
    };
    set("etc/own", c"user.taste", b"sweet");
    // cap_net_raw=ep, of the user namespace of the range.
    let capability =
        [&[1, 0, 0, 3, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..20], &MAP.first.to_le_bytes()]
            .concat();
    set("etc/motd", c"security.capability", &capability);
    looks_right(&root);
    storage.unmount(&root.place).unwrap();
    storage
}

fn attribute(root: &Root, name: &str, attribute: &std::ffi::CStr) -> Vec<u8> {
    let path = std::ffi::CString::new(root.path(name).to_str().unwrap()).unwrap();
    locule_images::sys::fs::lgetxattr(&path, attribute).unwrap()
}

fn archive(bed: &Bed, name: &str, image: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let root = bed.machine(name).join("root");
    export(&bed.images, &root, name, "image = \"app:1\"\n", image, &mut bytes, &mut Silent).unwrap();
    bytes
}

#[test]
fn a_clone_is_another_machine() {
    for (host, kind) in [("xfs", overlay()), ("xfs", disk(128)), ("ext4", overlay()), ("btrfs", disk(128))] {
        let bed = Bed::new(host);
        let first = made(&bed, "web1", &kind);
        let second = bed.storage("web2", &kind);
        second.clone_from(&bed.machine("web1").join("root"), None, &mut Silent).unwrap();
        second.forget_identity().unwrap();
        let place = bed.outside("root-web2");
        let other = Map { first: 2_000_000, count: 65_536 };
        second.mount(&place, Some(other)).unwrap();
        use std::os::unix::fs::MetadataExt;
        // Another range, and no file has changed its owner on the disk.
        assert_eq!(fs::metadata(place.join("srv")).unwrap().uid(), other.first + 5);
        assert_eq!(fs::read_to_string(place.join("etc/machine-id")).unwrap(), "");
        second.unmount(&place).unwrap();
        let root = bed.mount("web2", &kind);
        looks_right(&root);
        root.inside("echo second > /etc/own");
        second.unmount(&root.place).unwrap();
        let root = bed.mount("web1", &kind);
        looks_right(&root);
        assert_eq!(fs::read_to_string(root.path("etc/machine-id")).unwrap().len(), 33);
        first.unmount(&root.place).unwrap();
        let (one, two) = (first.record().unwrap().project, second.record().unwrap().project);
        assert!(one.is_none() || one != two);
        first.remove().unwrap();
        let root = bed.mount("web2", &kind);
        assert_eq!(root.inside("busybox cat /etc/own"), "second\n");
        second.unmount(&root.place).unwrap();
    }
}

#[test]
fn an_archive_brings_the_machine_to_another_host() {
    for (host, kind) in [("ext4", overlay()), ("ext4", disk(128)), ("xfs", overlay())] {
        let bed = Bed::new(host);
        let _first = made(&bed, "web1", &kind);
        let bytes = archive(&bed, "web1", true);
        assert!(bytes.len() < 8 << 20, "{} bytes", bytes.len());
        // A host without anything of it.
        let away = Bed::empty("ext4");
        let import = Import::open(bytes.as_slice()).unwrap();
        assert_eq!((import.head.name.as_str(), import.definition.as_str()), ("web1", "image = \"app:1\"\n"));
        let storage = away.storage("new", &kind);
        import.store(&storage, &mut Silent).unwrap();
        let root = away.mount("new", &kind);
        looks_right(&root);
        assert_eq!(attribute(&root, "etc/own", c"user.taste"), b"sweet");
        let capability = attribute(&root, "etc/motd", c"security.capability");
        assert_eq!(capability[20..], MAP.first.to_le_bytes(), "{capability:?}");
        assert!(taken(&root.path("sparse")) < 100 << 10);
        storage.unmount(&root.place).unwrap();
        if kind == disk(128) {
            let file = away.machine("new").join("root/disk.img");
            tool("e2fsck", &["-fn", file.to_str().unwrap()]);
            assert!(taken(&file) < 64 << 20);
            assert!(away.images.records().unwrap().is_empty());
        } else {
            assert_eq!(away.images.records().unwrap()[0].reference, format!("localhost/{IMAGE}"));
            assert!(away.images.verify().unwrap().is_empty());
        }
        assert_eq!(names(&away.machine("new")), ["root"]);
        storage.remove().unwrap();
    }
}

#[test]
fn an_archive_without_its_image_needs_it() {
    let bed = Bed::new("ext4");
    let storage = made(&bed, "web1", &overlay());
    let bytes = archive(&bed, "web1", false);
    let away = Bed::empty("ext4");
    let told = Import::open(bytes.as_slice())
        .unwrap()
        .store(&away.storage("new", &overlay()), &mut Silent)
        .unwrap_err()
        .to_string();
    assert!(told.contains("app:1") && told.contains("pull"), "{told}");
    assert_eq!(names(&away.machine("new")), [""; 0]);
    // Here it is there.
    Import::open(bytes.as_slice()).unwrap().store(&bed.storage("new", &overlay()), &mut Silent).unwrap();
    let root = bed.mount("new", &overlay());
    looks_right(&root);
    storage.unmount(&root.place).unwrap();
}

/// The same archive, compressed again after `change`.
fn changed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut plain = Vec::new();
    let limits = locule_images::unpack::Limits::default();
    let mut reader = locule_images::compress::reader(bytes, &limits).unwrap();
    std::io::Read::read_to_end(&mut reader, &mut plain).unwrap();
    change(&mut plain);
    let mut writer = Compression::Zstd.writer(Vec::new()).unwrap();
    writer.write_all(&plain).unwrap();
    writer.finish().unwrap()
}

#[test]
fn damage_is_found_and_nothing_is_left() {
    let find = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).rposition(|at| at == text).unwrap();
    for kind in [overlay(), disk(64)] {
        let bed = Bed::new("ext4");
        let _storage = made(&bed, "web1", &kind);
        let good = archive(&bed, "web1", true);
        let flipped = changed(&good, |plain| {
            let at = find(plain, b"mine\n");
            plain[at] ^= 1;
        });
        let cut = changed(&good, |plain| {
            let at = find(plain, b"sha256\0");
            plain.truncate(at);
            plain.resize(at + 1024, 0);
        });
        let short = good[..good.len() / 2].to_vec();
        for (bytes, words) in [(flipped, "damaged"), (cut, "cut off"), (short, "")] {
            let storage = bed.storage("new", &kind);
            let told = Import::open(bytes.as_slice())
                .and_then(|import| import.store(&storage, &mut Silent))
                .unwrap_err();
            assert!(told.to_string().contains(words), "{told}");
            assert_eq!(names(&bed.machine("new")), [""; 0]);
        }
        Import::open(good.as_slice()).unwrap().store(&bed.storage("new", &kind), &mut Silent).unwrap();
    }
}

#[test]
fn hostile_archives_stay_inside() {
    let bed = Bed::new("ext4");
    let storage = made(&bed, "web1", &overlay());
    let record = Record { project: None, ..storage.record().unwrap() };
    let head = serde_json::json!({
        "version": 1, "name": "evil", "created": "", "image": false, "storage": record,
    });
    let outside = bed.outside("outside");
    fs::write(outside.join("file"), "untouched").unwrap();
    let tree = bed.outside("evil");
    fs::write(tree.join("file"), "evil").unwrap();
    let link = bed.outside("linked");
    std::os::unix::fs::symlink(&outside, link.join("etc")).unwrap();
    let build = |trees: &[(&std::path::Path, &str)]| {
        let mut archive = Archive::new(locule_images::digest::Hashing::new(
            Vec::new(),
            locule_images::digest::Hasher::sha256(),
        ));
        archive.document("locule-machine.json", head.to_string().as_bytes()).unwrap();
        archive.document("machine.toml", b"image = \"app:1\"\n").unwrap();
        for (tree, name) in trees {
            let open = fs::File::open(tree).unwrap();
            archive.tree(std::os::fd::AsFd::as_fd(&open), name, Form::Whole).unwrap();
        }
        archive.begin("sha256", Digest::of(b"").hex().len() as u64 + 1).unwrap();
        let digest = format!("{}\n", archive.out().so_far().hex());
        archive.data(digest.as_bytes(), digest.len() as u64).unwrap();
        archive.finish().unwrap().finish().0
    };
    let take = |bytes: &[u8]| {
        let storage = bed.storage("new", &overlay());
        let taken = Import::open(bytes).and_then(|import| import.store(&storage, &mut Silent));
        assert_eq!(names(&outside), ["file"]);
        assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "untouched");
        taken
    };
    for name in ["root/../../outside", "/root/upper/../../x", "root/work", "elsewhere", "root/trees/../upper"]
    {
        let told = take(&build(&[(&tree, name)])).unwrap_err();
        assert!(
            told.to_string().contains("not of a machine") || told.to_string().contains(".."),
            "{name}: {told}"
        );
        assert_eq!(names(&bed.machine("new")), [""; 0]);
    }
    // One tree twice: a link from the first time is no way out.
    let told = take(&build(&[(&link, "root/upper"), (&tree, "root/skeleton"), (&tree, "root/upper/etc")]))
        .unwrap_err();
    assert!(told.to_string().contains("twice"), "{told}");
    // A link with a directory of its name behind it stays inside of the machine.
    let twice = take(&build(&[(&link, "root/upper"), (&tree, "root/upper/etc")]));
    if twice.is_ok() {
        bed.storage("new", &overlay()).remove().unwrap();
    }
    let told = take(b"not an archive at all, whatever it is").unwrap_err();
    assert!(told.to_string().contains("locule export"), "{told}");
}
