//! A file system in a file, an image store on it, and machines' directories.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use locule_images::compress::Compression;
use locule_images::import::Import;
use locule_images::manifest::Platform;
use locule_images::rootfs::Map;
use locule_images::unpack::Options;
use locule_machines::definition::{Disk, DiskKind, Size};
use locule_machines::storage::Storage;

use crate::tool;

/// The range of ids that tests use.
pub const MAP: Map = Map { first: 700_000, count: 65_536 };
/// The image that every bed has.
pub const IMAGE: &str = "app:1";

pub struct Bed {
    dir: tempfile::TempDir,
    mounted: bool,
    pub images: locule_images::Store,
}

impl Bed {
    /// On a new file system of type `kind`; `plain` is the directory of temporary files.
    pub fn new(kind: &str) -> Bed {
        Bed::sized(kind, 1 << 30)
    }

    /// Without any image.
    pub fn empty(kind: &str) -> Bed {
        Bed::bare(kind, 1 << 30)
    }

    pub fn sized(kind: &str, size: u64) -> Bed {
        let bed = Bed::bare(kind, size);
        bed.import();
        bed
    }

    fn bare(kind: &str, size: u64) -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let mounted = kind != "plain";
        if mounted {
            let file = dir.path().join("fs.img");
            File::create(&file).unwrap().set_len(size).unwrap();
            let file = file.to_str().unwrap();
            match kind {
                "ext4" => tool("mkfs.ext4", &["-q", "-F", file]),
                "xfs" => tool("mkfs.xfs", &["-q", "-m", "reflink=1", file]),
                "btrfs" => tool("mkfs.btrfs", &["-q", file]),
                other => panic!("{other}"),
            };
            tool("mount", &["-o", "loop", file, data.to_str().unwrap()]);
        }
        let images = locule_images::Store::open(&data.join("images")).unwrap();
        Bed { dir, mounted, images }
    }

    fn import(&self) {
        let tree = self.dir.path().join("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
        symlink("busybox", tree.join("bin/sh")).unwrap();
        fs::hard_link(tree.join("bin/busybox"), tree.join("bin/true")).unwrap();
        fs::write(tree.join("etc/motd"), "welcome").unwrap();
        fs::write(tree.join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(tree.join("etc/user"), "theirs").unwrap();
        chown(tree.join("etc/user"), Some(1000), Some(1001)).unwrap();
        fs::set_permissions(tree.join("etc/user"), fs::Permissions::from_mode(0o4750)).unwrap();
        let motd = CString::new(tree.join("etc/motd").to_str().unwrap()).unwrap();
        locule_images::sys::fs::lsetxattr(&motd, c"user.colour", b"blue").unwrap();
        let hole = File::create(tree.join("hole")).unwrap();
        hole.set_len(4 << 20).unwrap();
        let options = Options::here();
        let import = Import {
            name: Some(format!("localhost/{IMAGE}").parse().unwrap()),
            platform: Platform::here(),
            compression: Compression::None,
            options: &options,
        };
        import.path(&self.images, &tree).unwrap();
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A directory that is not on the file system.
    pub fn outside(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn machine(&self, name: &str) -> PathBuf {
        let dir = self.data().join("machines").join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub fn storage(&self, name: &str, disk: &Disk) -> Storage<'_> {
        Storage::open(&self.machine(name), disk, &self.images).unwrap()
    }

    /// Mounts a machine's root file system and gives its place.
    pub fn mount(&self, name: &str, disk: &Disk) -> Root {
        let place = self.outside(&format!("root-{name}"));
        self.storage(name, disk).mount(&place, Some(MAP)).unwrap();
        Root { place }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg(self.data()).status();
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.data())
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

/// A mounted root file system; unmounted at its end.
pub struct Root {
    pub place: PathBuf,
}

impl Root {
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// A program that sees it as a machine does: root of its own range, in a user namespace.
    #[track_caller]
    pub fn inside(&self, script: &str) -> String {
        let userns = locule_images::sys::userns::mapped(MAP.first, MAP.count).unwrap();
        let userns = format!("--user=/proc/{}/fd/{}", std::process::id(), userns.as_raw_fd());
        let root = self.place.to_str().unwrap();
        let words = ["--setuid", "0", "--setgid", "0", "chroot", root, "/bin/sh", "-ec", script];
        tool("nsenter", &[&[userns.as_str()], &words[..]].concat())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).stderr(std::process::Stdio::null()).status();
    }
}

pub fn overlay() -> Disk {
    Disk { kind: DiskKind::Overlay, ..Disk::default() }
}

pub fn disk(mebibytes: u64) -> Disk {
    Disk { kind: DiskKind::Disk, size: Some(Size(mebibytes << 20)), ..Disk::default() }
}

/// Names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .map(|name: std::ffi::OsString| AsRef::<OsStr>::as_ref(&name).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
