//! Who may be in a cgroup: a further process of the container, another owner, the reason of a refusal.
//!
//! It moves nothing by itself but what it is told.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::{Gid, Uid, fchownat};

use super::{Cgroup, fs, own_cgroup};
use crate::contract::NOT_RUNNING;
use crate::error::{Context, Error, Kind, Result};
use crate::sys;

/// What cgroups(7) names where the kernel has no list of its own (before 4.15).
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Where systemd puts itself, and whoever was beside it, before it starts anything (systemd.special(7)).
const INIT_SCOPE: &str = "init.scope";

impl Cgroup {
    /// The directory for a further process: the cgroup `inner` below this one if named (`exec --cgroup`),
    /// else this one, or the one that `init` is in.
    ///
    /// The latter where an init has moved itself into a cgroup below and shared out controllers: this one takes no
    /// process any more then. Also where it is systemd, in its `init.scope`, and is about to: a process that came in
    /// between would keep it from that for as long as it lives, and whatever it starts would have no limits.
    pub fn exec_fd(&self, inner: Option<&Path>, init: i32) -> Result<OwnedFd> {
        let doing =
            |path: &Path| format!("adding pid to cgroup {} below {}", path.display(), self.path().display());
        let path = match inner {
            Some(inner) => {
                if inner.components().any(|part| part == Component::ParentDir) {
                    return Err(Error::invalid(format!(
                        "bad sub cgroup path: {:?} leads out of the container's",
                        inner.display()
                    )));
                }
                inner.strip_prefix("/").unwrap_or(inner).to_path_buf()
            }
            None if self.is_childless() => PathBuf::new(),
            None => match self.inner_cgroup_of(init)? {
                Some(inner) if inner == Path::new(INIT_SCOPE) || self.shares_out() => inner,
                _ => PathBuf::new(),
            },
        };
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let resolve = nix::libc::RESOLVE_BENEATH | nix::libc::RESOLVE_NO_SYMLINKS;
        sys::fs::openat2(self, name, flags, 0, resolve).map_err(|errno| {
            let err = Error::sys(errno, doing(name));
            if errno == Errno::ENOENT { err.hint("make the cgroup in the container first") } else { err }
        })
    }

    /// Whether there is no cgroup below it that an init could have moved into: one call where reading its place from
    /// /proc takes five. The kernel counts the directories of a cgroup as links, as older file systems do.
    fn is_childless(&self) -> bool {
        nix::sys::stat::fstat(self).is_ok_and(|stat| stat.st_nlink == 2)
    }

    fn shares_out(&self) -> bool {
        fs::read(self, "cgroup.subtree_control").is_ok_and(|list| !list.trim().is_empty())
    }

    /// Where below this cgroup a process is; `None` where it is in it, or elsewhere.
    fn inner_cgroup_of(&self, pid: i32) -> Result<Option<PathBuf>> {
        let path = match cgroup_of(pid) {
            Err(err) if err.kind() != Kind::NotRunning => return Ok(None),
            other => other?,
        };
        Ok(path.strip_prefix(self.path()).ok().filter(|p| !p.as_os_str().is_empty()).map(Path::to_path_buf))
    }

    /// Moves a process into it, for a kernel or a manager that could not clone into it.
    pub fn enter(&self, pid: i32) -> Result<()> {
        fs::write(self, "cgroup.procs", &pid.to_string()).map_err(|errno| self.join_error(errno))
    }

    /// What it means that a process cannot be put into it: also for clone3 with `CLONE_INTO_CGROUP`.
    pub fn join_error(&self, errno: Errno) -> Error {
        join_error(errno, self.path())
    }

    /// Hands it over to a user: the directory and the files that the kernel lists for delegation, so
    /// that an init in a user namespace can manage what is below.
    pub fn chown(&self, uid: u32, gid: Option<u32>) -> Result<()> {
        let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or(DELEGATED.to_owned());
        let (uid, gid) = (Some(Uid::from_raw(uid)), gid.map(Gid::from_raw));
        for name in std::iter::once(".").chain(list.lines()) {
            match fchownat(self.as_fd(), name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // The list names files of controllers that may be off.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => {
                    let doing = format!("changing the owner of {name} of cgroup {}", self.path().display());
                    return Err(Error::sys(errno, doing));
                }
            }
        }
        Ok(())
    }
}

/// The cgroup that a process is in.
pub(super) fn cgroup_of(pid: i32) -> Result<PathBuf> {
    let file = format!("/proc/{pid}/cgroup");
    match std::fs::read_to_string(&file) {
        Err(err) if matches!(err.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            Err(Error::new(Kind::NotRunning, format!("{NOT_RUNNING} (process {pid})")))
        }
        other => own_cgroup(&other.doing(|| format!("reading {file}"))?),
    }
}

pub(super) fn join_error(errno: Errno, path: &Path) -> Error {
    let err = Error::sys(errno, format!("putting a process into cgroup {}", path.display()));
    match errno {
        Errno::EBUSY => {
            err.hint("it shares out controllers, and so takes no processes: use a cgroup below it")
        }
        Errno::EOPNOTSUPP => {
            err.hint("it lies below a threaded cgroup or one with processes: choose another path")
        }
        Errno::EAGAIN => err.hint("pids.max of it, or of one above it, is reached"),
        Errno::EACCES | Errno::EPERM => err.hint("the cgroup is not delegated to this user"),
        Errno::ENODEV | Errno::ENOENT => err.hint("it was removed meanwhile"),
        _ => err,
    }
}
