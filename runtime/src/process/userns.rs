//! User namespaces made for their id maps alone, as idmapped mounts want them.

use std::os::fd::OwnedFd;

use nix::fcntl::{AT_FDCWD, OFlag};

use crate::attrs::idmap;
use crate::error::{Context, Result};
use crate::spec::IdMapping;
use crate::sys::clone::{Cloned, clone3, pidfd_signal, wait};
use crate::sys::fs::{openat2, write_at};

/// A descriptor of a new user namespace with these maps; needs privilege over the ids outside.
pub fn with_maps(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    match clone3(libc::CLONE_NEWUSER as u64, None).doing(|| "making a user namespace for id maps")? {
        // Holds the namespace until it has been opened, and is killed then.
        Cloned::Child => loop {
            nix::unistd::pause();
        },
        Cloned::Parent(pid, pidfd) => {
            let made = write_and_open(pid, uids, gids);
            let _ = pidfd_signal(&pidfd, libc::SIGKILL);
            let _ = wait(pid);
            made
        }
    }
}

fn write_and_open(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd> {
    for (file, maps) in [("uid_map", uids), ("gid_map", gids)] {
        let text = idmap::text(maps);
        write_at(AT_FDCWD, format!("/proc/{pid}/{file}"), &text)
            .doing(|| format!("writing {text:?} to {file}"))?;
    }
    of(pid)
}

/// The user namespace of process `pid`.
pub fn of(pid: i32) -> Result<OwnedFd> {
    openat2(AT_FDCWD, format!("/proc/{pid}/ns/user"), OFlag::O_RDONLY, 0, 0)
        .doing(|| format!("opening the user namespace of process {pid}"))
}
