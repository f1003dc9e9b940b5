//! Reads and writes below a descriptor of a procfs root, proof against fakes mounted over it.
//!
//! The root should be a private mount (fsopen(2)) that no container can reach. Every file is opened
//! beneath it without crossing a mount or following a magic link, and checked to be procfs.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fs::openat2;

/// Inode of a procfs root (`PROC_ROOT_INO`), so that a bind mount of a part of procfs is not taken for it.
const ROOT_INODE: u64 = 1;

/// Which part of procfs a path is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// `/proc/self`.
    Own,
    /// `/proc/thread-self`.
    Thread,
    /// `/proc/PID`.
    Pid(i32),
    /// `/proc/sys`.
    Sys,
}

impl Base {
    fn name(self) -> String {
        match self {
            Base::Own => "self".into(),
            Base::Thread => "thread-self".into(),
            Base::Pid(pid) => pid.to_string(),
            Base::Sys => "sys".into(),
        }
    }
}

/// Checks that `root` is the root of a procfs (CVE-2019-16884, CVE-2025-52881).
pub fn verify_root(root: impl AsFd) -> Result<()> {
    let magic = fstatfs(&root).doing(|| "checking the procfs handle")?.filesystem_type();
    let inode = fstat(&root).doing(|| "checking the procfs handle")?.st_ino;
    if magic != PROC_SUPER_MAGIC || inode != ROOT_INODE {
        return Err(Error::new(Kind::System, "checking the procfs handle: this is not the root of a procfs"));
    }
    Ok(())
}

/// Opens `path` below `base`.
///
/// The base is opened first: `self` and `thread-self` are plain symlinks of procfs, while nothing
/// behind them may be one.
pub fn open(root: impl AsFd, base: Base, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let within = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;
    let dir = openat2(root, base.name(), OFlag::O_PATH | OFlag::O_DIRECTORY, 0, within)?;
    let file = openat2(&dir, path, flags | OFlag::O_NOCTTY, 0, within | libc::RESOLVE_NO_SYMLINKS)?;
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(nix::errno::Errno::EXDEV);
    }
    Ok(file)
}

/// Writes `text` with one write(2).
pub fn write(root: impl AsFd, base: Base, path: &str, text: &str) -> nix::Result<()> {
    let file = open(root, base, path, OFlag::O_WRONLY)?;
    match nix::unistd::write(&file, text.as_bytes())? {
        length if length == text.len() => Ok(()),
        _ => Err(nix::errno::Errno::EIO),
    }
}

/// Reads a small file whole.
pub fn read(root: impl AsFd, base: Base, path: &str) -> nix::Result<String> {
    let file = open(root, base, path, OFlag::O_RDONLY)?;
    let mut text = Vec::with_capacity(128);
    let mut chunk = [0u8; 1024];
    loop {
        match nix::unistd::read(&file, &mut chunk)? {
            0 => break,
            length => text.extend_from_slice(&chunk[..length]),
        }
    }
    String::from_utf8(text).map_err(|_| nix::errno::Errno::EILSEQ)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::errno::Errno;

    use super::*;

    #[test]
    fn only_a_procfs_root_passes() {
        assert!(verify_root(File::open("/proc").unwrap()).is_ok());
        assert!(verify_root(File::open("/proc/sys").unwrap()).is_err());
        assert!(verify_root(File::open("/").unwrap()).is_err());
    }

    #[test]
    fn paths_stay_below_and_links_are_refused() {
        let root = File::open("/proc").unwrap();
        assert!(read(&root, Base::Own, "stat").unwrap().contains('('));
        assert_eq!(read(&root, Base::Thread, "comm").unwrap(), read(&root, Base::Thread, "comm").unwrap());
        assert_eq!(read(&root, Base::Sys, "../version"), Err(Errno::EXDEV));
        assert_eq!(read(&root, Base::Own, "/etc/passwd"), Err(Errno::EXDEV));
        assert_eq!(read(&root, Base::Own, "exe"), Err(Errno::ELOOP));
        assert_eq!(read(&root, Base::Own, "fd/0"), Err(Errno::ELOOP));
    }
}
