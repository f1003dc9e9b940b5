//! Files by descriptor: opened by one name below a directory, or anew through `/proc/self/fd`.

use std::ffi::CStr;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Attributes of a file, as `statx(2)` gives them.
pub type Stat = libc::statx;

const MASK: u32 = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

/// Opens the one name `name` in `dir`: `openat2(2)`, which follows no link and leaves neither the directory
/// nor its descendants.
pub fn open_beneath(dir: BorrowedFd<'_>, name: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: all zero is a valid `open_how`.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    how.flags = (flags | libc::O_CLOEXEC) as u32 as u64;
    how.mode = mode as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
    loop {
        // SAFETY: name and structure live for the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                name.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match Errno::result(result) {
            // SAFETY: a new descriptor that nobody else knows.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
            // Somewhere a directory moved at that moment.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The attributes of the file that `fd` is.
pub fn stat(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

/// The attributes of what has the one name `name` in `dir`.
pub fn stat_name(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, Errno> {
    statx(dir, name, libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT)
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<Stat, Errno> {
    let mut stat = MaybeUninit::<Stat>::zeroed();
    // SAFETY: name and buffer live for the call, and all zero is a valid `statx`.
    let result = unsafe { libc::statx(dir.as_raw_fd(), name.as_ptr(), flags, MASK, stat.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: filled in, and valid before.
    Ok(unsafe { stat.assume_init() })
}

/// The file system's own numbers.
pub fn statfs(fd: BorrowedFd<'_>) -> Result<libc::statfs64, Errno> {
    let mut stat = MaybeUninit::<libc::statfs64>::zeroed();
    // SAFETY: the buffer lives for the call, and all zero is valid.
    Errno::result(unsafe { libc::fstatfs64(fd.as_raw_fd(), stat.as_mut_ptr()) })?;
    // SAFETY: filled in, and valid before.
    Ok(unsafe { stat.assume_init() })
}

/// Makes a directory.
pub fn mkdir(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<(), Errno> {
    // SAFETY: the name lives for the call.
    Errno::result(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// Makes a file of any kind but a directory or link.
pub fn mknod(dir: BorrowedFd<'_>, name: &CStr, mode: u32, device: u64) -> Result<(), Errno> {
    // SAFETY: the name lives for the call.
    Errno::result(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), mode, device) }).map(drop)
}

/// Makes a symbolic link.
pub fn symlink(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: both texts live for the call.
    Errno::result(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// Removes a name; `flags` may be `AT_REMOVEDIR`.
pub fn unlink(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<(), Errno> {
    // SAFETY: the name lives for the call.
    Errno::result(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// Renames: `renameat2(2)`.
pub fn rename(
    old: BorrowedFd<'_>,
    old_name: &CStr,
    new: BorrowedFd<'_>,
    new_name: &CStr,
    flags: u32,
) -> Result<(), Errno> {
    // SAFETY: both names live for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            old.as_raw_fd(),
            old_name.as_ptr(),
            new.as_raw_fd(),
            new_name.as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// Where the symbolic link `fd` points to.
pub fn readlink(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut target = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer has the length that is given.
    let count =
        unsafe { libc::readlinkat(fd.as_raw_fd(), c"".as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    target.truncate(Errno::result(count)? as usize);
    Ok(target)
}

/// Changes the owners of `fd` itself; `u32::MAX` leaves one as it is.
pub fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: an empty text is given.
    Errno::result(unsafe { libc::fchownat(fd.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) })
        .map(drop)
}

/// Changes access and modification time of `fd` itself.
pub fn set_times(fd: BorrowedFd<'_>, times: &[libc::timespec; 2]) -> Result<(), Errno> {
    // SAFETY: the two times live for the call. The C library's function refuses the empty text.
    let result = unsafe {
        libc::syscall(libc::SYS_utimensat, fd.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH)
    };
    Errno::result(result).map(drop)
}

/// Sets the length of an open file.
pub fn truncate(fd: BorrowedFd<'_>, size: i64) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::ftruncate64(fd.as_raw_fd(), size) }).map(drop)
}

/// `fallocate(2)`.
pub fn allocate(fd: BorrowedFd<'_>, mode: i32, offset: i64, length: i64) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::fallocate64(fd.as_raw_fd(), mode, offset, length) }).map(drop)
}

/// `lseek(2)`.
pub fn seek(fd: BorrowedFd<'_>, offset: i64, whence: i32) -> Result<i64, Errno> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::lseek64(fd.as_raw_fd(), offset, whence) })
}

/// `fsync(2)` or `fdatasync(2)`.
pub fn sync(fd: BorrowedFd<'_>, data_only: bool) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    let result =
        unsafe { if data_only { libc::fdatasync(fd.as_raw_fd()) } else { libc::fsync(fd.as_raw_fd()) } };
    Errno::result(result).map(drop)
}

/// `syncfs(2)`.
pub fn sync_all(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    Errno::result(unsafe { libc::syncfs(fd.as_raw_fd()) }).map(drop)
}

/// `copy_file_range(2)`.
pub fn copy(
    from: BorrowedFd<'_>,
    mut from_offset: i64,
    to: BorrowedFd<'_>,
    mut to_offset: i64,
    length: usize,
) -> Result<usize, Errno> {
    // SAFETY: both offsets live for the call.
    let count = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            &raw mut from_offset,
            to.as_raw_fd(),
            &raw mut to_offset,
            length,
            0,
        )
    };
    Errno::result(count).map(|count| count as usize)
}

/// Entries of an open directory from where it stands: `getdents64(2)`.
pub fn entries(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer has the length that is given.
    let count = unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), into.as_mut_ptr(), into.len()) };
    Errno::result(count).map(|count| count as usize)
}

/// This process's own descriptors as files: `/proc/self/fd`, which no jail takes away once it is open.
#[derive(Debug)]
pub struct Descriptors(OwnedFd);

impl Descriptors {
    /// Opens it; the process must be the one that serves, and see a `/proc`.
    pub fn open() -> Result<Descriptors, Errno> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the path lives for the call.
        let fd = Errno::result(unsafe { libc::open(c"/proc/self/fd".as_ptr(), flags) })?;
        // SAFETY: a new descriptor that nobody else knows.
        Ok(Descriptors(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Opens the file that `fd` is once more. The caller knows what kind of file it is: a device or a pipe
    /// would be opened too.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: i32) -> Result<OwnedFd, Errno> {
        let name = number(fd);
        loop {
            // SAFETY: the name lives for the call.
            let result =
                unsafe { libc::openat(self.0.as_raw_fd(), name.as_ptr().cast(), flags | libc::O_CLOEXEC) };
            match Errno::result(result) {
                // SAFETY: a new descriptor that nobody else knows.
                Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Changes the mode of the file that `fd` is.
    pub fn chmod(&self, fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
        let name = number(fd);
        // SAFETY: the name lives for the call.
        Errno::result(unsafe { libc::fchmodat(self.0.as_raw_fd(), name.as_ptr().cast(), mode, 0) }).map(drop)
    }

    /// Gives the file that `fd` is another name.
    pub fn link(&self, fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let old = number(fd);
        // SAFETY: both names live for the call.
        let result = unsafe {
            libc::linkat(
                self.0.as_raw_fd(),
                old.as_ptr().cast(),
                dir.as_raw_fd(),
                name.as_ptr(),
                libc::AT_SYMLINK_FOLLOW,
            )
        };
        Errno::result(result).map(drop)
    }
}

impl AsFd for Descriptors {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads an attribute of the file that `fd` is; of no bytes, its length. As the others below, it takes the
/// descriptor's number as a name in the working directory, which must be [`Descriptors`].
pub fn get_attribute(fd: BorrowedFd<'_>, name: &CStr, into: &mut [u8]) -> Result<usize, Errno> {
    let path = number(fd);
    // SAFETY: names and buffer live for the call, and the length is the buffer's.
    let count =
        unsafe { libc::getxattr(path.as_ptr().cast(), name.as_ptr(), into.as_mut_ptr().cast(), into.len()) };
    Errno::result(count).map(|count| count as usize)
}

/// Sets an attribute; `flags` as of `setxattr(2)`.
pub fn set_attribute(fd: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: i32) -> Result<(), Errno> {
    let path = number(fd);
    // SAFETY: as above.
    let result = unsafe {
        libc::setxattr(path.as_ptr().cast(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    };
    Errno::result(result).map(drop)
}

/// Removes an attribute.
pub fn remove_attribute(fd: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let path = number(fd);
    // SAFETY: as above.
    Errno::result(unsafe { libc::removexattr(path.as_ptr().cast(), name.as_ptr()) }).map(drop)
}

/// The names of all attributes, each ended by NUL; of no bytes, their length.
pub fn list_attributes(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    let path = number(fd);
    // SAFETY: as above.
    let count = unsafe { libc::listxattr(path.as_ptr().cast(), into.as_mut_ptr().cast(), into.len()) };
    Errno::result(count).map(|count| count as usize)
}

/// The descriptor's number as a C string, without an allocation.
fn number(fd: BorrowedFd<'_>) -> [u8; 12] {
    let mut text = [0; 12];
    let mut rest = fd.as_raw_fd().unsigned_abs();
    let mut end = 11;
    while {
        end -= 1;
        text[end] = b'0' + (rest % 10) as u8;
        rest /= 10;
        rest > 0
    } {}
    text.copy_within(end.., 0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_names() {
        for raw in [0, 7, 10, 4096, i32::MAX] {
            // SAFETY: never used as a descriptor.
            let text = number(unsafe { BorrowedFd::borrow_raw(raw) });
            assert_eq!(CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap(), raw.to_string());
        }
    }
}
