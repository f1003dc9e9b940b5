//! Files by descriptor: openat2(2), extended attributes, device nodes, syncfs(2), cloned data.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Links are resolved inside the root, and none of the kernel's magic ones.
pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// No link anywhere, and nothing above.
pub const BENEATH: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// Bytes as the kernel wants a path; a NUL byte inside is `EINVAL`.
pub fn cstring(bytes: &[u8]) -> nix::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// openat2(2), with `resolve` of `libc::RESOLVE_*`; close-on-exec is always added.
///
/// `EAGAIN` (a rename raced with the resolution of `..`) is retried a bounded number of times.
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlag,
    mode: u32,
    resolve: u64,
) -> nix::Result<OwnedFd> {
    let path = cstring(path)?;
    // SAFETY: open_how is plain integers; all-zero is its documented default.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | OFlag::O_CLOEXEC).bits() as u64;
    how.mode = u64::from(mode);
    how.resolve = resolve;
    let mut last = Errno::EAGAIN;
    for _ in 0..128 {
        // SAFETY: path is NUL-terminated and how outlives the call; the size matches the struct.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &how,
                size_of::<libc::open_how>(),
            )
        };
        match Errno::result(ret) {
            // SAFETY: the kernel returned a fresh descriptor that nothing else owns.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => last = errno,
            Err(errno) => return Err(errno),
        }
    }
    Err(last)
}

/// fsetxattr(2).
pub fn fsetxattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: name is NUL-terminated; the value's pointer and length belong together.
    let ret =
        unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(ret).map(drop)
}

/// lsetxattr(2).
pub fn lsetxattr(path: &CStr, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: path and name are NUL-terminated; the value's pointer and length belong together.
    let ret = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(ret).map(drop)
}

/// llistxattr(2): the names of `path`'s attributes.
pub fn llistxattr(path: &CStr) -> nix::Result<Vec<CString>> {
    let mut names = vec![0u8; 1 << 16];
    // SAFETY: the buffer is as long as said.
    let ret = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(Errno::result(ret)? as usize);
    Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty()).filter_map(|n| CString::new(n).ok()).collect())
}

/// lgetxattr(2).
pub fn lgetxattr(path: &CStr, name: &CStr) -> nix::Result<Vec<u8>> {
    let mut value = vec![0u8; 1 << 16];
    // SAFETY: the strings are NUL-terminated and the buffer is as long as said.
    let ret =
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(Errno::result(ret)? as usize);
    Ok(value)
}

/// flistxattr(2), for a descriptor that was opened for reading or writing.
pub fn flistxattr(fd: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let mut names = vec![0u8; 1 << 16];
    // SAFETY: the buffer is as long as said.
    let ret = unsafe { libc::flistxattr(fd.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(Errno::result(ret)? as usize);
    Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty()).filter_map(|n| CString::new(n).ok()).collect())
}

/// fgetxattr(2).
pub fn fgetxattr(fd: BorrowedFd<'_>, name: &CStr) -> nix::Result<Vec<u8>> {
    let mut value = vec![0u8; 1 << 16];
    // SAFETY: name is NUL-terminated and the buffer is as long as said.
    let ret =
        unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(Errno::result(ret)? as usize);
    Ok(value)
}

/// syncfs(2): all of the file system that `fd` lies on.
pub fn syncfs(fd: impl AsFd) -> nix::Result<()> {
    // SAFETY: a plain descriptor.
    Errno::result(unsafe { libc::syncfs(fd.as_fd().as_raw_fd()) }).map(drop)
}
