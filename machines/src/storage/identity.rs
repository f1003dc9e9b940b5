//! What makes a root file system that of one machine alone.
//!
//! Owns what a copy must not have of the original: the machine id (machine-id(5)), which then is made anew at the
//! next boot. Paths inside belong to the machine: no link is followed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use locule_images::sys::fs::{BENEATH, openat2};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{Storage, disk, open_dir};
use crate::definition::DiskKind;
use crate::{Context, Result};

/// Emptied: systemd and dbus fill it at boot.
const EMPTIED: &str = "etc/machine-id";
/// A copy of it that older systems have as a file of its own.
const REMOVED: (&str, &str) = ("var/lib/dbus", "machine-id");

impl Storage<'_> {
    /// Takes away what the root file system knows of which machine it is. Nothing of the machine may run.
    pub fn forget_identity(&self) -> Result<()> {
        let doing = || format!("taking the identity from {}", self.root.display());
        match self.record()?.kind {
            DiskKind::Disk => {
                let live = disk::Disk::new(&self.root).attach(false)?;
                forget(live.root.as_fd()).doing(doing)?;
                locule_images::sys::fs::syncfs(&live.root).doing(doing)
            }
            DiskKind::Overlay => {
                // What the image itself says is the same for all machines that are made from it.
                let upper = self.root.join("upper");
                match upper.is_dir() {
                    true => forget(open_dir(&upper)?.as_fd()).doing(doing),
                    false => Ok(()),
                }
            }
        }
    }
}

fn forget(root: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    match openat2(root, EMPTIED.as_bytes(), flags, 0, BENEATH).map(File::from) {
        Ok(file) => {
            let regular = file.metadata().is_ok_and(|meta| meta.is_file());
            if regular {
                nix::unistd::ftruncate(&file, 0)?;
            }
        }
        Err(errno) if is_absent(errno) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    match openat2(root, REMOVED.0.as_bytes(), flags, 0, BENEATH) {
        Ok(dir) => match unlinkat(&dir, REMOVED.1, UnlinkatFlags::NoRemoveDir) {
            Err(errno) if !is_absent(errno) => Err(errno),
            _ => Ok(()),
        },
        Err(errno) if is_absent(errno) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// It is not there, or something else is: a link, a directory, a whiteout.
fn is_absent(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR | Errno::EISDIR | Errno::ENXIO | Errno::EXDEV
    )
}
