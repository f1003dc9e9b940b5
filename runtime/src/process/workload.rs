//! The last steps of a container process, shared by init and `exec`: from a process of ours to the workload.
//!
//! Walks the attributes in the one order in which each still has the privilege that it needs, and
//! ends with execve(2). Touches no path but the working directory and the program.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::{AccessFlags, faccessat};

use super::channel::{Channel, Message};
use crate::attrs::{memory_policy, rlimits, sched, user};
use crate::contract;
use crate::error::{Context, Error, Result};
use crate::plan::ProcessPlan;
use crate::procfs::{Base, Proc};
use crate::seccomp::Compiled;
use crate::sys;
use crate::sys::fs::{openat2, read_limited};
use crate::sys::process;

/// A larger /etc/passwd is read so far: it is the image's, the memory may be the host's.
const LARGEST_PASSWD: usize = 1 << 20;

/// What the last steps need to know.
#[derive(Debug)]
pub struct Workload<'a> {
    /// The process.
    pub process: &'a ProcessPlan,
    /// The system call filter.
    pub seccomp: Option<&'a Compiled>,
    /// Execution domain.
    pub personality: Option<sched::Personality>,
    /// NUMA policy.
    pub memory_policy: Option<&'a memory_policy::MemoryPolicy>,
    /// Whether limits were already set from outside, where privilege over them is.
    pub limited_outside: bool,
    /// Descriptors beyond the standard ones that the workload keeps.
    pub preserve_fds: u32,
    /// procfs for writes.
    pub proc: &'a Proc,
    /// The creator.
    pub channel: &'a Channel,
    /// The start gate, for `create`.
    pub gate: Option<&'a OwnedFd>,
}

impl Workload<'_> {
    /// Applies everything but execve(2); returns the program's path and environment.
    ///
    /// Closes all descriptors but the workload's, the channel and the gate, whoever owns them: the
    /// caller must end this process without returning to those owners.
    pub fn prepare(&self) -> Result<(CString, Vec<CString>)> {
        let plan = self.process;
        plan.labels.apply(self.proc)?;
        if let Some(scheduler) = plan.scheduler {
            scheduler.apply()?;
        }
        if let Some(priority) = plan.io_priority {
            priority.apply()?;
        }
        if let Some(policy) = self.memory_policy {
            policy.apply()?;
        }
        if let Some(personality) = self.personality {
            personality.apply()?;
        }
        if !self.limited_outside {
            rlimits::apply(&plan.rlimits, 0)?;
            if let Some(score) = plan.oom_score {
                score.apply(self.proc, Base::Own)?;
            }
        }
        if plan.no_new_privileges {
            process::set_no_new_privs().doing(|| "setting no_new_privs")?;
        }
        if !plan.terminal {
            user::own_stdio(plan.user.uid)?;
        }
        plan.caps.before_setuid(plan.user.uid)?;
        // With root's rights or with the user's own, and before capabilities go: as runc, either may be needed.
        let entered = enter_plainly(&plan.cwd);
        plan.user.apply(self.proc)?;
        // What the document or the image names from here on, the working directory and the program, may
        // lead through /proc/self/fd: nothing of the host's may be open any more (CVE-2024-21626).
        // Close-on-exec would be too late, as execve(2) looks the program up first.
        let kept: Vec<BorrowedFd<'_>> =
            [self.channel.as_fd()].into_iter().chain(self.gate.map(AsFd::as_fd)).collect();
        process::close_all_but(3 + self.preserve_fds, &kept).doing(|| "closing the runtime's descriptors")?;
        if !entered {
            enter_directory(&plan.cwd)?;
        }
        // Without no_new_privs only CAP_SYS_ADMIN may load a filter.
        plan.caps.after_setuid(self.seccomp.is_some() && !plan.no_new_privileges)?;
        let mut env = plan.env.clone();
        if plan.var("HOME").is_none_or(<[u8]>::is_empty) {
            env.retain(|entry| !entry.to_bytes().starts_with(b"HOME="));
            let passwd = read_limited(AT_FDCWD, "/etc/passwd", LARGEST_PASSWD).unwrap_or_default();
            env.push(
                CString::new(format!("HOME={}", user::home_for(plan.user.uid, &passwd))).unwrap_or_default(),
            );
        }
        if plan.activated {
            env.retain(|entry| !entry.to_bytes().starts_with(b"LISTEN_PID="));
            env.push(CString::new(format!("LISTEN_PID={}", nix::unistd::getpid())).unwrap_or_default());
        }
        let program = find_program(plan)?;
        if self.notifies() {
            // While the creator is there to pass the descriptor on.
            self.load_filter()?;
        }
        Ok((program, env))
    }

    fn notifies(&self) -> bool {
        self.seccomp.is_some_and(|filter| filter.needs_listener)
    }

    fn load_filter(&self) -> Result<()> {
        let Some(filter) = self.seccomp else { return Ok(()) };
        let listener =
            sys::seccomp::install(&filter.program, filter.flags).doing(|| "loading the seccomp filter")?;
        match listener {
            Some(fd) => self.channel.send(&Message::Filter(fd)),
            None => Ok(()),
        }
    }

    /// execve(2); the error says which exit code the caller owes its user.
    ///
    ///
    /// The filter is loaded right before: a profile is written for the workload, and need not allow what the runtime
    /// does until then. Only `hooks`, those of startContainer, come after it, as with runc.
    pub fn execute(&self, program: &CStr, env: &[CString], hooks: impl FnOnce() -> Result<()>) -> Error {
        let loaded = if self.notifies() { Ok(()) } else { self.load_filter() };
        if let Err(err) = loaded.and_then(|()| hooks()) {
            return err;
        }
        let errno = process::execve(program, &self.process.args, env);
        contract::program_refused(&format!("exec {}", program.to_string_lossy()), errno)
    }
}

/// Enters a directory that no magic link leads to; whether it did. Descriptors of the host may be open.
fn enter_plainly(cwd: &Path) -> bool {
    openat2(AT_FDCWD, cwd, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, libc::RESOLVE_NO_MAGICLINKS)
        .and_then(nix::unistd::fchdir)
        .is_ok_and(|()| nix::unistd::getcwd().is_ok_and(|path| path.is_absolute()))
}

/// chdir(2), and a check that it did not lead out of the root (CVE-2024-21626).
fn enter_directory(cwd: &Path) -> Result<()> {
    let doing = || format!("changing to the working directory {}", cwd.display());
    nix::unistd::chdir(cwd).doing(doing)?;
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => {
            Err(Error::invalid(format!("{}: it is outside of the container's root", doing())))
        }
        Err(errno) => Err(errno).doing(doing),
    }
}

/// The program's path: as given when it has a slash, else searched for in the workload's own PATH.
fn find_program(plan: &ProcessPlan) -> Result<CString> {
    let Some(name) = plan.args.first() else { return Err(Error::invalid("process.args is empty")) };
    let bytes = name.to_bytes();
    let shown = name.to_string_lossy();
    let refused = |errno| contract::program_refused(&format!("exec: {shown:?}"), errno);
    if bytes.is_empty() {
        return Err(contract::program_missing(&shown));
    }
    if bytes.contains(&b'/') {
        return usable(name).map(|()| name.clone()).map_err(refused);
    }
    let mut denied = false;
    for dir in plan.var("PATH").unwrap_or_default().split(|b| *b == b':') {
        let dir = if dir.is_empty() { b"." } else { dir };
        let Ok(path) = CString::new([dir, b"/", bytes].concat()) else { continue };
        match usable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    Err(if denied { refused(Errno::EACCES) } else { contract::program_missing(&shown) })
}

/// Whether `path` is a file that this user may execute.
fn usable(path: &CStr) -> nix::Result<()> {
    let os = Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let fd = openat2(AT_FDCWD, os, OFlag::O_PATH, 0, 0)?;
    match crate::rootfs::is_dir(&fd)? {
        true => Err(Errno::EISDIR),
        // By the effective ids, as execve(2) looks: CAP_DAC_OVERRIDE counts.
        false => faccessat(AT_FDCWD, os, AccessFlags::X_OK, AtFlags::AT_EACCESS),
    }
}

/// Opens the root of the calling process.
pub fn own_root() -> Result<OwnedFd> {
    openat2(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(|| "opening the container's root")
}

/// Puts the descriptors that the caller handed over right behind the standard ones.
///
/// `fds` are in the wanted order; the numbers from 3 on are overwritten.
pub fn place_fds(fds: &[OwnedFd]) -> Result<()> {
    for (at, fd) in fds.iter().enumerate() {
        let number = 3 + at as i32;
        process::dup_to(fd, number).doing(|| format!("handing over descriptor {number}"))?;
    }
    Ok(())
}
