//! Both kinds of disk: made, mounted for a range of ids, limited, grown, emptied, removed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use locule_images::rootfs::Map;
use locule_machines::definition::{Disk, Size};

use crate::bed::{Bed, IMAGE, MAP, disk, names, overlay};
use crate::{taken, tool};

/// What every root file system made of the image is like, seen from the host.
#[track_caller]
fn looks_right(root: &crate::bed::Root) {
    assert_eq!(fs::read_to_string(root.path("etc/motd")).unwrap(), "welcome");
    let owned = fs::metadata(root.path("etc/user")).unwrap();
    assert_eq!((owned.uid(), owned.gid()), (MAP.first + 1000, MAP.first + 1001));
    assert_eq!(owned.mode() & 0o7777, 0o4750);
    assert_eq!(fs::metadata(&root.place).unwrap().uid(), MAP.first);
    assert_eq!(
        fs::metadata(root.path("bin/true")).unwrap().ino(),
        fs::metadata(root.path("bin/busybox")).unwrap().ino()
    );
    let motd = std::ffi::CString::new(root.path("etc/motd").to_str().unwrap()).unwrap();
    assert_eq!(locule_images::sys::fs::lgetxattr(&motd, c"user.colour").unwrap(), b"blue");
    assert_eq!(fs::metadata(root.path("hole")).unwrap().len(), 4 << 20);
}

#[test]
fn an_overlay_keeps_the_images_ids() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let bed = Bed::new(kind);
        let storage = bed.storage("web1", &overlay());
        storage.create(IMAGE, Some(MAP)).unwrap();
        {
            let root = bed.mount("web1", &overlay());
            looks_right(&root);
            // Once, however often.
            storage.mount(&root.place, Some(MAP)).unwrap();
            root.inside(
                "echo mine > /etc/own; mkdir /srv; busybox chown 33:34 /etc/motd; ln /etc/own /srv/own",
            );
            assert_eq!(fs::metadata(root.path("etc/own")).unwrap().uid(), MAP.first);
            storage.unmount(&root.place).unwrap();
            storage.unmount(&root.place).unwrap();
            assert_eq!(names(&root.place), [""; 0]);
        }
        let upper = bed.machine("web1").join("root/upper");
        assert_eq!(fs::metadata(upper.join("etc/own")).unwrap().uid(), 0, "{kind}");
        assert_eq!(fs::metadata(upper.join("etc/motd")).unwrap().uid(), 33, "{kind}");
        // Another range, and nothing was changed for it.
        let place = bed.outside("other");
        storage.mount(&place, Some(Map { first: 900_000, count: 65_536 })).unwrap();
        assert_eq!(fs::metadata(place.join("etc/own")).unwrap().uid(), 900_000);
        assert_eq!(fs::metadata(place.join("etc/motd")).unwrap().gid(), 900_034);
        storage.unmount(&place).unwrap();
        storage.remove().unwrap();
        assert_eq!(names(&bed.machine("web1")), [""; 0]);
        assert_eq!(names(&bed.data().join("images/pins")), [""; 0]);
    }
}

#[test]
fn a_disk_is_a_file_system_of_its_own() {
    let bed = Bed::new("ext4");
    let storage = bed.storage("db", &disk(256));
    storage.create(IMAGE, Some(MAP)).unwrap();
    let file = bed.machine("db").join("root/disk.img");
    assert_eq!(fs::metadata(&file).unwrap().len(), 256 << 20);
    assert!(taken(&file) < 40 << 20, "{} bytes of a new disk are written", taken(&file));
    let root = bed.mount("db", &disk(256));
    looks_right(&root);
    assert!(taken(&root.path("hole")) < 100 << 10, "zeros were written down");
    root.inside("echo mine > /etc/own; busybox yes | busybox head -c 10485760 > /big");
    // The size that is shown inside is the limit.
    let shown = tool("stat", &["-f", "-c", "%b %S", root.place.to_str().unwrap()]);
    let numbers: Vec<u64> = shown.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!((200 << 20..=256 << 20).contains(&(numbers[0] * numbers[1])), "{shown}");
    let usage = storage.usage().unwrap();
    assert!(usage.most_bytes.unwrap() <= 256 << 20);
    assert!(usage.bytes.unwrap() > 10 << 20);
    // It cannot be removed while it is mounted, and not be mounted twice by mistake.
    assert!(storage.remove().unwrap_err().to_string().contains("mounted"));
    let other = bed.outside("second");
    storage.mount(&other, Some(MAP)).unwrap();
    assert_eq!(
        fs::metadata(other.join("etc/own")).unwrap().ino(),
        fs::metadata(root.path("etc/own")).unwrap().ino()
    );
    assert_eq!(tool("losetup", &["-j", file.to_str().unwrap()]).lines().count(), 1);
    storage.unmount(&other).unwrap();
    storage.unmount(&root.place).unwrap();
    // What the closed file system says of itself is what the open one said.
    let closed = storage.usage().unwrap();
    assert!(closed.bytes.unwrap() > 10 << 20, "{closed:?}");
    assert_eq!(tool("losetup", &["-j", file.to_str().unwrap()]), "");
    let checked = tool("e2fsck", &["-fn", file.to_str().unwrap()]);
    assert!(!checked.contains("WARNING"), "{checked}");
    storage.remove().unwrap();
    assert_eq!(names(&bed.machine("db")), [""; 0]);
}

#[test]
fn a_disk_grows_in_use_and_gives_back_what_is_removed() {
    let bed = Bed::new("xfs");
    let storage = bed.storage("db", &disk(64));
    storage.create(IMAGE, None).unwrap();
    let file = bed.machine("db").join("root/disk.img");
    // Stopped.
    storage.resize(Size(128 << 20)).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), 128 << 20);
    let root = bed.mount("db", &disk(128));
    // Mounted: the kernel asks for CAP_SYS_RESOURCE, which the lane may lack.
    match storage.resize(Size(300 << 20)) {
        Ok(()) => {}
        Err(err) => {
            assert!(err.to_string().contains("stop the machine first"), "{err}");
            assert_eq!(fs::metadata(&file).unwrap().len(), 128 << 20);
            storage.unmount(&root.place).unwrap();
            storage.resize(Size(300 << 20)).unwrap();
            storage.mount(&root.place, Some(MAP)).unwrap();
        }
    }
    assert!(storage.usage().unwrap().most_bytes.unwrap() > 250 << 20);
    let big = root.path("big");
    root.inside("busybox yes | busybox head -c 157286400 > /big");
    tool("sync", &["-f", root.place.to_str().unwrap()]);
    let full = taken(&file);
    assert!(full > 150 << 20);
    fs::remove_file(&big).unwrap();
    tool("sync", &["-f", root.place.to_str().unwrap()]);
    let given = storage.compact().unwrap();
    assert!(given > 140 << 20, "{given}");
    assert!(taken(&file) < 60 << 20);
    let refused = storage.resize(Size(64 << 20)).unwrap_err().to_string();
    assert!(refused.contains("cannot become smaller") && refused.contains("locule compact"), "{refused}");
    assert_eq!(fs::metadata(&file).unwrap().len(), 300 << 20);
    storage.unmount(&root.place).unwrap();
    tool("e2fsck", &["-fn", file.to_str().unwrap()]);
}

#[test]
fn a_limit_that_the_file_system_lacks_is_refused() {
    for (kind, word) in [("ext4", "prjquota"), ("btrfs", "ext4 and XFS"), ("xfs", "pquota")] {
        let bed = Bed::new(kind);
        let limited = Disk { size: Some(Size(10 << 20)), ..overlay() };
        let storage = bed.storage("web1", &limited);
        let told = storage.create(IMAGE, Some(MAP)).unwrap_err().to_string();
        assert!(told.contains(word) && told.contains("storage kind disk"), "{told}");
        assert_eq!(names(&bed.machine("web1")), [""; 0]);
        // The claim of a project went, too.
        let claims = bed.data().join("claims/projid");
        assert!(!claims.exists() || names(&claims).is_empty());
    }
}

#[test]
fn files_of_an_overlay_belong_to_a_project() {
    // The kernel of this lane has no quotas; of ext4 it takes projects only with them, of XFS also without.
    for kind in ["xfs"] {
        let bed = Bed::new(kind);
        let storage = bed.storage("web1", &overlay());
        storage.create(IMAGE, Some(MAP)).unwrap();
        let id = storage.record().unwrap().project.unwrap();
        assert_eq!(names(&bed.data().join("claims/projid")), [id.to_string()]);
        let root = bed.mount("web1", &overlay());
        root.inside(
            "mkdir /srv; echo 1 > /srv/file; mv /srv/file /etc/file; echo 2 >> /etc/motd; mv /etc/motd /motd",
        );
        storage.unmount(&root.place).unwrap();
        let upper = bed.machine("web1").join("root/upper");
        for name in ["", "srv", "etc/file", "motd"] {
            let file = fs::File::open(upper.join(name)).unwrap();
            assert_eq!(locule_machines::sys::files::project(&file).unwrap().0, id, "{kind}: {name}");
        }
        let other = bed.storage("web2", &overlay());
        other.create(IMAGE, Some(MAP)).unwrap();
        assert_ne!(other.record().unwrap().project.unwrap(), id);
        storage.remove().unwrap();
        assert_eq!(names(&bed.data().join("claims/projid")).len(), 1);
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    let bed = Bed::sized("ext4", 48 << 20);
    let filler = bed.data().join("filler");
    // Full but for some hundred kilobytes.
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - (600 << 10)).unwrap();
    let storage = bed.storage("crowded", &disk(512));
    let told = storage.create(IMAGE, Some(MAP)).unwrap_err().to_string();
    assert!(told.contains("ENOSPC") && told.contains("--data"), "{told}");
    assert_eq!(names(&bed.machine("crowded")), [""; 0]);
    assert_eq!(tool("losetup", &["-l", "-n", "-O", "BACK-FILE"]).matches("/crowded/").count(), 0);
    fs::remove_file(filler).unwrap();
}

#[test]
fn the_host_is_an_image_too() {
    let bed = Bed::new("ext4");
    let storage = bed.storage("web1", &overlay());
    storage.create("host", Some(MAP)).unwrap();
    let root = bed.mount("web1", &overlay());
    root.inside("echo mine > /etc/own; echo mine > /usr/own; test -x /usr/bin/env");
    storage.unmount(&root.place).unwrap();
    let trees = bed.machine("web1").join("root/trees");
    assert_eq!(fs::metadata(trees.join("usr/upper/own")).unwrap().uid(), 0);
    storage.remove().unwrap();
}
