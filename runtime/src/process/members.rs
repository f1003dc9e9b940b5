//! The processes of a container that has a pid namespace of its own, but no cgroup.
//!
//! Owns a descriptor of that namespace; finds its processes by a walk over /proc, so that a user
//! without any cgroup still has `ps` and `kill --all`. Never the first choice: a walk can miss what is
//! born meanwhile.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FileStat, fstat};

use crate::contract;
use crate::error::{Context, Error, Result};
use crate::sys::clone::{pidfd_open, pidfd_signal};
use crate::sys::fs::{namespace_above, openat2};

/// The processes of one pid namespace and of those below it.
#[derive(Debug)]
pub struct Members(OwnedFd);

impl Members {
    /// Those of the pid namespace of process `init`.
    pub fn of(init: i32) -> Result<Members> {
        namespace(init).map(Members).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ESRCH => contract::not_running(),
            errno => Error::sys(errno, format!("opening the pid namespace of process {init}")),
        })
    }

    /// Their pids, as the caller sees them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let doing = || "listing processes in /proc";
        let own = fstat(&self.0).doing(doing)?;
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc").doing(doing)? {
            let name = entry.doing(doing)?.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
                && has(&own, pid)
            {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Sends `signal` to process `pid` if it is one of them; one that has ended is no error.
    pub fn signal(&self, pid: i32, signal: i32) -> Result<()> {
        let doing = || format!("sending signal {signal} to process {pid}");
        let own = fstat(&self.0).doing(doing)?;
        let pidfd = match pidfd_open(pid) {
            // EINVAL: a thread has the number now.
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(()),
            other => other.doing(doing)?,
        };
        // Only now is the number pinned.
        match has(&own, pid).then(|| pidfd_signal(&pidfd, signal)) {
            None | Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
            Some(other) => other.doing(doing),
        }
    }
}

fn namespace(pid: i32) -> nix::Result<OwnedFd> {
    openat2(AT_FDCWD, format!("/proc/{pid}/ns/pid"), OFlag::O_RDONLY, 0, 0)
}

/// Whether `pid` is in the namespace or in one below. A process that may not be looked at is not.
fn has(own: &FileStat, pid: i32) -> bool {
    let mut at = namespace(pid);
    while let Ok(fd) = at {
        match fstat(&fd) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (own.st_dev, own.st_ino) => return true,
            Ok(_) => at = namespace_above(&fd),
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn own_process_is_a_member_of_its_namespace() {
        let me = std::process::id() as i32;
        let members = Members::of(me).unwrap();
        assert!(members.pids().unwrap().contains(&me));
        members.signal(me, 0).unwrap();
        assert_eq!(Members::of(i32::MAX).unwrap_err().kind(), Kind::NotRunning);
    }
}
