//! seccomp(2): installing a filter, and asking what the kernel knows.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`, in the width of the system call.
const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
const TSYNC: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
const TSYNC_ESRCH: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH as u32;
const WAIT_KILLABLE: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;

/// Puts the calling thread under `program`; with `NEW_LISTENER` among the flags, returns the listener.
///
/// no_new_privs is the caller's: without it and without `CAP_SYS_ADMIN` this is `EACCES`.
/// Allocates nothing and makes exactly one system call, the last one that the filter does not see.
pub fn install(program: &[libc::sock_filter], mut flags: u32) -> nix::Result<Option<OwnedFd>> {
    if flags & TSYNC != 0 && flags & NEW_LISTENER != 0 {
        // Both answer by the return value; ESRCH (5.7) instead of a thread id keeps them apart.
        flags |= TSYNC_ESRCH;
    }
    let len = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let fprog = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: fprog points to len instructions that outlive the call; the kernel only reads them.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &fprog) };
    match Errno::result(ret)? {
        // SAFETY: with NEW_LISTENER the kernel returns a fresh descriptor that nothing else owns.
        fd if flags & NEW_LISTENER != 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        0 => Ok(None),
        // TSYNC alone: the id of a thread that could not follow.
        _ => Err(Errno::ESRCH),
    }
}

/// Whether the kernel knows the `SECCOMP_RET_*` action.
pub fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one u32 that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &action) };
    ret == 0
}

/// Whether the kernel knows the `SECCOMP_FILTER_FLAG_*` flag; installs nothing.
pub fn flag_available(flag: u32) -> bool {
    // The kernel refuses this one without a listener, known or not.
    let flags = if flag & WAIT_KILLABLE != 0 { flag | NEW_LISTENER } else { flag };
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: a null program is never read through: flags are checked first (EINVAL), then it is EFAULT.
    let ret = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing) };
    Errno::result(ret) == Err(Errno::EFAULT)
}
