//! clone3(2) with a fork-like return, and pidfds.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// clone3(2): `CLONE_INTO_CGROUP` of linux/sched.h; libc's constant is truncated to 0 on glibc targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `CLONE_NEWTIME`; shares its bit with the exit signal of clone(2), hence clone3 and unshare only.
pub const CLONE_NEWTIME: u64 = 0x80;

/// One side of a [`clone3`].
#[derive(Debug)]
pub enum Cloned {
    /// This is the caller; the child's pid in the caller's pid namespace, and its pidfd.
    Parent(i32, OwnedFd),
    /// This is the child.
    Child,
}

/// clone3(2) as fork(2) with `flags` of `CLONE_NEW*` and `CLONE_PARENT`, born in `cgroup` if given.
///
/// Memory is copied, never shared. The caller must be single-threaded, as this runtime always
/// is where it clones: locks that another thread holds would stay locked in the child.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Cloned> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain integers; all-zero is its documented default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the kernel refuses an exit signal (EINVAL) and takes the caller's own.
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child gets its own copy of this stack; args outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match Errno::result(ret)? {
        0 => Ok(Cloned::Child),
        // SAFETY: the kernel stored a fresh descriptor that nothing else owns.
        pid => Ok(Cloned::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// pidfd_open(2).
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel returned a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// pidfd_send_signal(2).
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    // SAFETY: a null siginfo asks for the default one.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(ret).map(drop)
}

/// setns(2); `flags` of `CLONE_NEW*` choose namespaces when `fd` is a pidfd (5.8), else check its kind.
pub fn setns(fd: impl AsFd, flags: u64) -> nix::Result<()> {
    // SAFETY: plain integers.
    Errno::result(unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags as i32) }).map(drop)
}

/// unshare(2) with flags that `nix` does not know (time namespaces).
pub fn unshare(flags: u64) -> nix::Result<()> {
    // SAFETY: plain integers; the caller is single-threaded.
    Errno::result(unsafe { libc::unshare(flags as i32) }).map(drop)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// exit(2) with this code.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

impl Exit {
    /// The shell's convention: the code, or 128 and the signal.
    pub fn shell_code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

impl Exit {
    /// From the status that wait(2) reports for a process that has ended.
    pub fn from_status(status: i32) -> Exit {
        match libc::WIFSIGNALED(status) {
            true => Exit::Signal(libc::WTERMSIG(status)),
            false => Exit::Code(libc::WEXITSTATUS(status)),
        }
    }
}

/// How the process of `pidfd` ended, as wait(2) reports it, once it was reaped by whomever (`PIDFD_GET_INFO`, 6.15).
///
/// `None` while it was not reaped; `ENOTTY` and `EINVAL` on kernels that do not tell.
pub fn pidfd_exit(pidfd: impl AsFd) -> nix::Result<Option<Exit>> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `_IOWR(0xff, 11, struct pidfd_info)` with the structure's first published size.
    const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
    /// `struct pidfd_info`: mask, cgroupid, eleven ids, exit_code.
    #[repr(C)]
    struct Info {
        mask: u64,
        cgroupid: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    let mut info = Info { mask: PIDFD_INFO_EXIT, cgroupid: 0, ids: [0; 11], exit_code: 0 };
    // SAFETY: the request's size is that of the structure, which is live and plain integers.
    Errno::result(unsafe {
        libc::ioctl(pidfd.as_fd().as_raw_fd(), PIDFD_GET_INFO as libc::Ioctl, &raw mut info)
    })?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then(|| Exit::from_status(info.exit_code)))
}

/// waitpid(2) on one child until it ends; `ECHILD` when it is not ours.
pub fn wait(pid: i32) -> nix::Result<Exit> {
    let mut status = 0;
    loop {
        // SAFETY: status is a live integer.
        match Errno::result(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Ok(_) if libc::WIFEXITED(status) => return Ok(Exit::Code(libc::WEXITSTATUS(status))),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(Exit::Signal(libc::WTERMSIG(status))),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reaps one ended child, if there is one: its pid and how it ended.
pub fn reap_any() -> nix::Result<Option<(i32, Exit)>> {
    let mut status = 0;
    // SAFETY: status is a live integer.
    match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })? {
        0 => Ok(None),
        pid if libc::WIFSIGNALED(status) => Ok(Some((pid, Exit::Signal(libc::WTERMSIG(status))))),
        pid => Ok(Some((pid, Exit::Code(libc::WEXITSTATUS(status))))),
    }
}
