//! Root file systems of machines: made, mounted, measured, limited, saved and copied.
//!
//! Owns what stands in `root` and `snapshots` of a machine's directory. Ids of files are those of the inside, and
//! mounts are idmapped: nothing changes its owner when a machine gets another range. Whatever is there under its
//! own name is whole; what a kill leaves has another name and is removed by the next call.
//!
//! ```text
//! root/storage.json   what it was made as
//! root/upper …        overlay: the machine's own files; for the image host also skeleton and trees/*/upper
//! root/disk.img       disk: the file system
//! snapshots/NAME/     a copy of root, machine.toml and snapshot.json
//! ```

mod archive;
mod copy;
mod disk;
mod identity;
mod image;
mod overlay;
mod project;
mod record;
mod snapshot;

use std::fs::{self, DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use locule_images::Store;
use locule_images::rootfs::Map;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

pub use archive::{Head, Import, export};
pub use copy::{Progress, Silent};
pub use record::Record;
pub use snapshot::{Hold, REST, SNAPSHOTS, Snapshot};

use crate::definition::{Disk, DiskKind, Size};
use crate::{Context, Error, Kind, Result, lift};

/// The directory of a machine that its storage owns.
pub const ROOT: &str = "root";

/// How much of a disk is in use; what is not known is absent, and so is a limit that is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Usage {
    /// Bytes in use.
    pub bytes: Option<u64>,
    /// Most bytes.
    pub most_bytes: Option<u64>,
    /// Inodes in use.
    pub inodes: Option<u64>,
    /// Most inodes.
    pub most_inodes: Option<u64>,
}

/// The root file system of one machine.
#[derive(Debug)]
pub struct Storage<'a> {
    dir: PathBuf,
    root: PathBuf,
    disk: Disk,
    images: &'a Store,
}

impl<'a> Storage<'a> {
    /// The storage of the machine in the directory `dir`, as `disk` of its definition has it.
    pub fn open(dir: &Path, disk: &Disk, images: &'a Store) -> Result<Storage<'a>> {
        if disk.kind == DiskKind::Disk && disk.inodes.is_some() {
            return Err(Error::unsupported("disk.inodes of the storage kind disk")
                .hint("its file system has an inode for each 16 KiB; the kind overlay can limit them"));
        }
        Ok(Storage { dir: dir.to_owned(), root: dir.join(ROOT), disk: disk.clone(), images })
    }

    /// What it was made as.
    pub fn record(&self) -> Result<Record> {
        Record::read(&self.root).map_err(|err| match err.errno() {
            Some(Errno::ENOENT) => Error::new(
                Kind::NotFound,
                format!("{} has no root file system: its making was interrupted", self.dir.display()),
            )
            .hint("remove the machine with locule rm and make it again"),
            _ => err,
        })
    }

    /// Makes it from the image called `image`; on failure nothing is left.
    pub fn create(&self, image: &str, map: Option<Map>) -> Result<()> {
        self.create_with(image, map, &mut Silent)
    }

    /// Makes it, and tells of the bytes that are copied.
    pub fn create_with(&self, image: &str, _map: Option<Map>, progress: &mut dyn Progress) -> Result<()> {
        if Record::read(&self.root).is_ok() {
            return Err(Error::new(Kind::Exists, format!("{} is there already", self.root.display())));
        }
        // What an interrupted call left.
        self.clear(&self.root)?;
        let made = self.build(image, progress);
        if made.is_err() {
            let _ = self.remove();
        }
        made.map_err(|err| match err.errno() {
            Some(Errno::ENOSPC | Errno::EDQUOT) => {
                err.hint("make room on the host's disk, or choose another directory with --data")
            }
            _ => err,
        })
    }

    fn build(&self, image: &str, progress: &mut dyn Progress) -> Result<()> {
        let share = self.images.share().map_err(lift)?;
        let mut made = Record {
            kind: self.disk.kind,
            image: image.to_owned(),
            record: None,
            layers: None,
            run: None,
            project: None,
        };
        if image != locule_images::host::NAME {
            let image = self.images.find(image).map_err(lift)?;
            made.record = Some(image.record);
            made.layers = Some(image.config.rootfs.diff_ids);
            made.run = image.config.config;
        }
        make_dir(&self.root)?;
        if let Some(layers) = &made.layers {
            self.images.pin(&self.root, layers).map_err(lift)?;
        }
        drop(share);
        // Held until the record names it.
        let claim = match self.disk.kind {
            DiskKind::Overlay => {
                let root = open_dir(&self.root)?;
                let claim = project::adopt(&self.dir, &root)?;
                made.project = claim.as_ref().map(|claim| claim.id);
                if let Err(err) = project::limit(&self.dir, &root, made.project, &self.disk) {
                    claim.into_iter().for_each(project::Claim::release);
                    return Err(err);
                }
                claim
            }
            DiskKind::Disk => {
                disk::Disk::new(&self.root).make(self.disk.size, |root| {
                    image::fill(self.images, made.layers.as_deref(), root, &self.root, progress)
                })?;
                // It has all of them in it.
                made.layers = None;
                self.images.unpin(&self.root).map_err(lift)?;
                None
            }
        };
        made.write(&self.root)?;
        drop(claim);
        record::sync_dir(&self.dir)
    }

    /// Mounts it on the directory `target`, its limits in force; once, however often it is called.
    pub fn mount(&self, target: &Path, map: Option<Map>) -> Result<()> {
        if is_mount_point(target)? {
            return Ok(());
        }
        let record = self.record()?;
        if record.kind != self.disk.kind {
            return Err(Error::invalid(format!("disk.kind of {}", self.dir.display()))
                .hint("the kind of a disk cannot be changed: export the machine and import it anew"));
        }
        match record.kind {
            DiskKind::Overlay => {
                project::limit(&self.dir, open_dir(&self.root)?, record.project, &self.disk)?;
                overlay::mount(&self.root, self.images, &record.image, record.layers.as_deref(), target, map)
            }
            DiskKind::Disk => {
                let disk = disk::Disk::new(&self.root);
                // It was saved before it grew, or `set` while it was closed.
                if let Some(size) = self.disk.size
                    && disk.size()? < size.0
                {
                    disk.grow(size)?;
                }
                disk.mount(target, map)
            }
        }
    }

    /// Unmounts it from `target`, if it is mounted there.
    pub fn unmount(&self, target: &Path) -> Result<()> {
        unmount(target)
    }

    /// Puts another size in force, also while it is mounted.
    pub fn resize(&self, size: Size) -> Result<()> {
        let disk = Disk { size: Some(size), ..self.disk.clone() };
        Storage { disk, dir: self.dir.clone(), root: self.root.clone(), images: self.images }.limit()
    }

    /// Puts the definition's limits in force, also while it is mounted.
    pub fn limit(&self) -> Result<()> {
        let record = self.record()?;
        match (record.kind, self.disk.size) {
            (DiskKind::Overlay, size) => {
                let root = open_dir(&self.root)?;
                let used =
                    record.project.and_then(|id| project::usage(&root, id)).map_or(0, |quota| quota.bytes);
                match size {
                    Some(size) if used > size.0 => Err(Error::invalid(format!(
                        "limiting the disk of {} to {size}: it has {used} bytes on it",
                        self.dir.display()
                    ))
                    .hint("remove files inside first")),
                    _ => project::limit(&self.dir, root, record.project, &self.disk),
                }
            }
            (DiskKind::Disk, Some(size)) => disk::Disk::new(&self.root).grow(size),
            (DiskKind::Disk, None) => Ok(()),
        }
    }

    /// How much is in use.
    pub fn usage(&self) -> Result<Usage> {
        let record = self.record()?;
        match (record.kind, record.project) {
            (DiskKind::Disk, _) => disk::Disk::new(&self.root).usage(),
            (DiskKind::Overlay, None) => Ok(Usage::default()),
            (DiskKind::Overlay, Some(id)) => {
                let limit = |most: u64| (most > 0).then_some(most);
                Ok(project::usage(open_dir(&self.root)?, id).map_or_else(Usage::default, |quota| Usage {
                    bytes: Some(quota.bytes),
                    most_bytes: limit(quota.most_bytes),
                    inodes: Some(quota.inodes),
                    most_inodes: limit(quota.most_inodes),
                }))
            }
        }
    }

    /// Gives room that is not used back to the host; how many bytes that were.
    pub fn compact(&self) -> Result<u64> {
        match self.record()?.kind {
            DiskKind::Disk => disk::Disk::new(&self.root).compact(),
            // Files that are removed inside are removed outside.
            DiskKind::Overlay => Ok(0),
        }
    }

    /// Removes it with all snapshots.
    pub fn remove(&self) -> Result<()> {
        let record = Record::read(&self.root).ok();
        if record.as_ref().is_some_and(|record| record.kind == DiskKind::Disk)
            && disk::Disk::new(&self.root).live()?.is_some()
        {
            return Err(Error::new(Kind::State, format!("removing {}: it is mounted", self.root.display()))
                .hint("stop the machine first"));
        }
        self.clear_rests()?;
        self.clear(&self.root)?;
        if let Some(id) = record.and_then(|record| record.project) {
            project::release(&self.dir, id);
        }
        let snapshots = self.dir.join(SNAPSHOTS);
        if let Ok(entries) = fs::read_dir(&snapshots) {
            for entry in entries.flatten() {
                let _ = self.images.unpin(&entry.path().join(ROOT));
            }
        }
        remove_tree(&snapshots)
    }

    /// The machine's directory is about to be called `dir`: what is kept for it is kept for that name, too.
    pub fn renaming(&self, dir: &Path) -> Result<()> {
        for root in self.pinned()? {
            let record = Record::read(&self.dir.join(&root))?;
            if let Some(layers) = &record.layers {
                self.images.pin(&dir.join(&root), layers).map_err(lift)?;
            }
        }
        Ok(())
    }

    /// The machine's directory was called `old` before.
    pub fn renamed(&self, old: &Path) -> Result<()> {
        for root in self.pinned()? {
            self.images.unpin(&old.join(&root)).map_err(lift)?;
        }
        self.record()?.project.map_or(Ok(()), |id| project::moved(&self.dir, id))
    }

    /// All `root` directories, relative to the machine's.
    fn pinned(&self) -> Result<Vec<PathBuf>> {
        let saved =
            self.snapshots()?.into_iter().map(|saved| Path::new(SNAPSHOTS).join(saved.name).join(ROOT));
        Ok(saved.chain([PathBuf::from(ROOT)]).collect())
    }

    /// Removes a `root` and lets its layers go.
    fn clear(&self, root: &Path) -> Result<()> {
        remove_tree(root)?;
        self.images.unpin(root).map_err(lift)
    }
}

/// Unmounts whatever is on `target`.
pub fn unmount(target: &Path) -> Result<()> {
    // As often as something is mounted there: a mount that was cut off may lie below another.
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno).doing(|| format!("unmounting {}", target.display())),
        }
    }
}

/// Removes a directory of ours, whatever modes are inside; nothing, if there is none.
fn remove_tree(path: &Path) -> Result<()> {
    let doing = || format!("removing {}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let parent = match File::open(parent) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.doing(doing)?,
    };
    let name = std::os::unix::ffi::OsStrExt::as_bytes(name);
    locule_images::unpack::tree::remove_all(std::os::fd::AsFd::as_fd(&parent), name, 0).map(drop).doing(doing)
}

fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).doing(|| format!("making {}", path.display()))
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).doing(|| format!("opening {}", path.display()))
}

/// Whether something is mounted on the directory.
fn is_mount_point(path: &Path) -> Result<bool> {
    let doing = || format!("looking at {}", path.display());
    let own = fs::symlink_metadata(path).doing(doing)?;
    let above = path.parent().map_or(Ok(own.clone()), fs::symlink_metadata).doing(doing)?;
    Ok(own.dev() != above.dev())
}
