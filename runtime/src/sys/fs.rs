//! Files by descriptor: openat2(2), small reads and whole writes.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// A path as the kernel wants it; a NUL byte inside is `EINVAL`.
pub fn cstring(path: impl AsRef<Path>) -> nix::Result<CString> {
    CString::new(path.as_ref().as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
}

/// openat2(2), with `resolve` of `libc::RESOLVE_*`; close-on-exec is always added.
///
/// `EAGAIN` (a rename or mount raced with `..` resolution) is retried a bounded number of times.
pub fn openat2(
    dir: impl AsFd,
    path: impl AsRef<Path>,
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
                dir.as_fd().as_raw_fd(),
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

/// Opens `name` below `dir` and reads it whole; for kernel files, which are small.
pub fn read_at(dir: impl AsFd, name: impl AsRef<Path>) -> nix::Result<String> {
    let fd = openat2(dir, name, OFlag::O_RDONLY, 0, 0)?;
    let mut text = Vec::with_capacity(512);
    let mut chunk = [0u8; 4096];
    loop {
        match nix::unistd::read(&fd, &mut chunk) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&chunk[..n]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    String::from_utf8(text).map_err(|_| Errno::EILSEQ)
}

/// As [`read_at`] for a file that others made: reads `limit` bytes at most, and from a regular file
/// only (`EINVAL`), so that neither a FIFO nor a device can hold or fill this process.
pub fn read_limited(dir: impl AsFd, name: impl AsRef<Path>, limit: usize) -> nix::Result<String> {
    let fd = openat2(dir, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, 0, 0)?;
    if nix::sys::stat::fstat(&fd)?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let mut text = Vec::new();
    std::fs::File::from(fd)
        .take(limit as u64)
        .read_to_end(&mut text)
        .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Opens the existing file `name` below `dir` and writes `text` with one write(2), as kernel files want.
pub fn write_at(dir: impl AsFd, name: impl AsRef<Path>, text: &str) -> nix::Result<()> {
    let fd = openat2(dir, name, OFlag::O_WRONLY, 0, 0)?;
    loop {
        match nix::unistd::write(&fd, text.as_bytes()) {
            Ok(n) if n == text.len() => return Ok(()),
            Ok(_) => return Err(Errno::EIO),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// fsetxattr(2): gives the file of `fd` an extended attribute, or another value of it.
pub fn set_xattr(fd: impl AsFd, name: &std::ffi::CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: the name is NUL-terminated, and the value is read for its length only.
    let ret = unsafe {
        libc::fsetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(ret).map(drop)
}

/// fgetxattr(2), for values of up to 1 KiB (`ERANGE` above).
pub fn xattr(fd: impl AsFd, name: &std::ffi::CStr) -> nix::Result<Vec<u8>> {
    let mut value = vec![0u8; 1024];
    // SAFETY: the name is NUL-terminated, and the kernel writes at most as much as the buffer holds.
    let ret = unsafe {
        libc::fgetxattr(fd.as_fd().as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(Errno::result(ret)? as usize);
    Ok(value)
}

/// The namespace above the one that `fd` refers to (ioctl_ns(2), NS_GET_PARENT); `EPERM` where it
/// is none that the caller can see.
pub fn namespace_above(fd: impl AsFd) -> nix::Result<OwnedFd> {
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: the request takes no argument.
    let above = Errno::result(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_PARENT) })?;
    // SAFETY: the kernel returned a fresh descriptor (close-on-exec) that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(above) })
}

/// The `CLONE_NEW*` flag of the namespace that `fd` refers to (ioctl_ns(2), NS_GET_NSTYPE, 4.11).
pub fn namespace_kind(fd: impl AsFd) -> nix::Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) }).map(|kind| kind as u64)
}

/// The number of the mount that `fd` is on, which no other mount has while that exists (statx(2), `STATX_MNT_ID`).
pub fn mount_id(fd: impl AsFd) -> nix::Result<u64> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty NUL-terminated string, and the buffer lives for the call.
    let ret = unsafe {
        libc::statx(
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            stat.as_mut_ptr(),
        )
    };
    Errno::result(ret)?;
    // SAFETY: filled in, and all zero was valid before.
    Ok(unsafe { stat.assume_init() }.stx_mnt_id)
}
