//! The calling thread's ids of files, mask, working directory and one capability.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_FSETID: u32 = 4;
/// `SECBIT_NO_SETUID_FIXUP`: the kernel leaves the capabilities alone when ids change.
const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives the calling thread a working directory and a mask of its own, and makes `directory` that directory.
pub fn own_directory(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::unshare(libc::CLONE_FS) })?;
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::fchdir(directory.as_raw_fd()) }).map(drop)
}

/// Lets ids change without capabilities; needs CAP_SETPCAP.
pub fn keep_capabilities() -> Result<(), Errno> {
    // SAFETY: no memory is involved; the flags belong to the calling thread.
    let bits = Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS) })?;
    let bits = bits as libc::c_ulong | NO_SETUID_FIXUP;
    // SAFETY: as above.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }).map(drop)
}

/// Leaves the thread without supplementary groups; needs CAP_SETGID.
pub fn no_groups() -> Result<(), Errno> {
    // SAFETY: an empty list needs no memory. The system call, unlike the function of the C library, is for
    // this thread alone.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<libc::gid_t>()) };
    Errno::result(result).map(drop)
}

/// The thread's own user id, and that of files.
pub fn user() -> (u32, u32) {
    // SAFETY: no memory is involved; -1 changes nothing and the present id is returned.
    unsafe { (libc::geteuid(), libc::setfsuid(u32::MAX) as u32) }
}

/// The thread's own group id, and that of files.
pub fn group() -> (u32, u32) {
    // SAFETY: as above.
    unsafe { (libc::getegid(), libc::setfsgid(u32::MAX) as u32) }
}

/// Sets the user who owns what this thread makes.
pub fn set_user(id: u32) -> Result<(), Errno> {
    // SAFETY: no memory is involved. Failure is not told, so the id is read back.
    let now = unsafe {
        libc::setfsuid(id);
        libc::setfsuid(u32::MAX) as u32
    };
    if now == id { Ok(()) } else { Err(Errno::EOVERFLOW) }
}

/// Sets the group that owns what this thread makes.
pub fn set_group(id: u32) -> Result<(), Errno> {
    // SAFETY: as above.
    let now = unsafe {
        libc::setfsgid(id);
        libc::setfsgid(u32::MAX) as u32
    };
    if now == id { Ok(()) } else { Err(Errno::EOVERFLOW) }
}

/// Sets the mask of what this thread makes; see [`own_directory`].
pub fn set_mask(mask: u32) {
    // SAFETY: no memory is involved.
    unsafe { libc::umask(mask & 0o777) };
}

/// Turns CAP_FSETID of the thread on, where it may have it, or off.
pub fn set_fsetid(on: bool) -> Result<(), Errno> {
    let header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut sets = [Sets::default(); 2];
    const { assert!(size_of::<Sets>() == 12) };
    // SAFETY: both live for the call and are what version 3 asks for.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    let bit = 1 << CAP_FSETID;
    sets[0].effective =
        if on { sets[0].effective | bit & sets[0].permitted } else { sets[0].effective & !bit };
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) }).map(drop)
}
