//! Reading and writing straight from and to the guest's memory.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use vm_memory::VolatileSlice;

/// The kernel's limit (`UIO_MAXIOV`).
const MOST: usize = 1024;

/// What the kernel wants of the slices. Slices beyond its limit are left out: the call is short then.
fn vectors(slices: &[VolatileSlice]) -> Vec<libc::iovec> {
    slices
        .iter()
        .take(MOST)
        .map(|slice| libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() })
        .collect()
}

fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// writev(2) from the slices.
pub fn write(to: BorrowedFd, from: &[VolatileSlice]) -> io::Result<usize> {
    let vectors = vectors(from);
    // SAFETY: every vector is a slice that is mapped as long as `from` is borrowed; that the guest may change
    // the bytes meanwhile is what volatile memory is.
    count(unsafe { libc::writev(to.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) })
}

/// preadv(2) at `offset` bytes of the file.
pub fn pread(from: BorrowedFd, into: &[VolatileSlice], offset: i64) -> io::Result<usize> {
    let vectors = vectors(into);
    // SAFETY: as in `write`; the guest reads what the kernel writes.
    count(unsafe { libc::preadv(from.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32, offset) })
}

/// pwritev(2) at `offset` bytes of the file.
pub fn pwrite(to: BorrowedFd, from: &[VolatileSlice], offset: i64) -> io::Result<usize> {
    let vectors = vectors(from);
    // SAFETY: as in `write`.
    count(unsafe { libc::pwritev(to.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32, offset) })
}
