//! Whose a cgroup is: a container that ended is told from one that took over its place.
//!
//! Owns the mark on a cgroup's directory. A cgroup without processes can be taken over, as with runc, and
//! systemd makes a new scope under an old name: neither the path nor the directory says whose it is then, but
//! the last to come signs it. Never trusts a mark that a container could write.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::Cgroup;
use crate::error::{Context, Result};
use crate::sys::fs::{set_xattr, xattr};

/// Only root on the host can write it; without its rights the directory's number alone must tell.
const MARK: &CStr = c"trusted.locule";

/// What tells one cgroup at a path from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Inode number of the directory, which the kernel gives to no other cgroup until the next boot.
    inode: u64,
    /// Who signed it, where that was possible.
    owner: Option<String>,
}

impl Identity {
    /// Whether `dir` is the cgroup that was meant, and still that container's.
    ///
    /// What cannot be told is an error: taken for another's, it would never be removed.
    pub(super) fn fits(&self, dir: BorrowedFd<'_>) -> nix::Result<bool> {
        if nix::sys::stat::fstat(dir)?.st_ino != self.inode {
            return Ok(false);
        }
        let Some(owner) = &self.owner else { return Ok(true) };
        match xattr(dir, MARK) {
            Ok(mark) => Ok(mark == owner.as_bytes()),
            // Unsigned by now, or not to be read by this caller: then the directory alone tells.
            Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES) => Ok(true),
            Err(errno) => Err(errno),
        }
    }
}

impl Cgroup {
    /// Makes it that of `owner`, a text that no other container has: from here on the record of whoever had it
    /// before leads nowhere.
    pub fn claim(&mut self, owner: &str) -> Result<()> {
        let stat = nix::sys::stat::fstat(&self.fd)
            .doing(|| format!("looking at cgroup {}", self.record.path.display()))?;
        let signed = set_xattr(&self.fd, MARK, owner.as_bytes()).is_ok();
        self.record.identity = Some(Identity { inode: stat.st_ino, owner: signed.then(|| owner.to_owned()) });
        Ok(())
    }
}
