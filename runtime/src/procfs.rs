//! `Proc`: the only way to read and write the kernel's files below /proc for a container.
//!
//! Owns a private, detached procfs mount, so that nothing mounted over /proc, no link and no fake
//! file of an image can catch a write meant for the kernel (CVE-2019-16884, CVE-2025-52881).
//! It is made on first use: a default container writes nothing there.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::fstat;

use crate::sys::{fs, mount, process};

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

/// A handle on procfs.
#[derive(Debug, Default)]
pub struct Proc(OnceCell<OwnedFd>);

impl Proc {
    /// A handle that mounts on first use.
    pub fn new() -> Proc {
        Proc::default()
    }

    /// A handle on the procfs whose root `dir` is; `ENOTSUP` where it is none.
    pub fn over(dir: OwnedFd) -> nix::Result<Proc> {
        verify(dir).map(|dir| Proc(OnceCell::from(dir)))
    }

    /// The root of the private mount; made now if this is the first use.
    ///
    /// Where mounting is refused the host's /proc serves, once it has been shown to be the root of
    /// a procfs; `ENOTSUP` where it is not.
    pub fn root(&self) -> nix::Result<BorrowedFd<'_>> {
        if let Some(fd) = self.0.get() {
            return Ok(fd.as_fd());
        }
        let attrs = mount::attr::NOSUID | mount::attr::NODEV | mount::attr::NOEXEC;
        let fd = match mount::detached(c"proc", &[], attrs) {
            Err(Errno::EPERM) => host_proc()?,
            other => other?,
        };
        Ok(self.0.get_or_init(|| fd).as_fd())
    }

    /// Opens `path` below `base`.
    ///
    /// The base is opened first: `self` and `thread-self` are plain symlinks of procfs, while nothing
    /// behind them may be one.
    pub fn open(&self, base: Base, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let within = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;
        let dir = fs::openat2(self.root()?, base.name(), OFlag::O_PATH | OFlag::O_DIRECTORY, 0, within)?;
        let file = fs::openat2(&dir, path, flags | OFlag::O_NOCTTY, 0, within | libc::RESOLVE_NO_SYMLINKS)?;
        if process::fs_magic(&file)? != libc::PROC_SUPER_MAGIC {
            return Err(Errno::EXDEV);
        }
        Ok(file)
    }

    /// Writes `text` to `path` below `base` in one write(2), as the kernel wants it.
    pub fn write(&self, base: Base, path: &str, text: &str) -> nix::Result<()> {
        let file = self.open(base, path, OFlag::O_WRONLY)?;
        match nix::unistd::write(&file, text.as_bytes())? {
            n if n == text.len() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    /// Reads `path` below `base`; longer files are cut after one page.
    pub fn read(&self, base: Base, path: &str) -> nix::Result<String> {
        let file = self.open(base, path, OFlag::O_RDONLY)?;
        let mut page = [0u8; 4096];
        let n = nix::unistd::read(&file, &mut page)?;
        Ok(String::from_utf8_lossy(&page[..n]).into_owned())
    }
}

/// The host's /proc, verified.
fn host_proc() -> nix::Result<OwnedFd> {
    verify(fs::openat2(AT_FDCWD, Path::new("/proc"), OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)?)
}

/// Lets a descriptor pass that is the root of a procfs (CVE-2019-16884, CVE-2025-52881).
fn verify(dir: OwnedFd) -> nix::Result<OwnedFd> {
    let is_root = process::fs_magic(&dir)? == libc::PROC_SUPER_MAGIC && fstat(&dir)?.st_ino == ROOT_INODE;
    if is_root { Ok(dir) } else { Err(Errno::ENOTSUP) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn only_a_procfs_root_passes() {
        assert!(Proc::over(File::open("/proc").unwrap().into()).is_ok());
        assert!(Proc::over(File::open("/proc/sys").unwrap().into()).is_err());
        assert!(Proc::over(File::open("/").unwrap().into()).is_err());
    }

    #[test]
    fn paths_stay_below_and_links_are_refused() {
        let proc = Proc::over(File::open("/proc").unwrap().into()).unwrap();
        assert!(proc.read(Base::Own, "stat").unwrap().contains('('));
        assert!(!proc.read(Base::Thread, "comm").unwrap().is_empty());
        assert_eq!(proc.read(Base::Sys, "../version"), Err(Errno::EXDEV));
        assert_eq!(proc.read(Base::Own, "/etc/passwd"), Err(Errno::EXDEV));
        assert_eq!(proc.read(Base::Own, "exe"), Err(Errno::ELOOP));
        assert_eq!(proc.read(Base::Own, "fd/0"), Err(Errno::ELOOP));
    }
}
