//! The buffers of one request, and what moves between them and files.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// What one call of the kernel takes; more pieces than these are left for the next call.
const IOV_MAX: usize = 1024;

/// A view of `slices` without their record of dirty pages, which the caller keeps.
pub fn views<'a, B: BitmapSlice>(slices: &'a [VolatileSlice<'a, B>]) -> Vec<VolatileSlice<'a>> {
    slices
        .iter()
        .map(|slice| {
            // SAFETY: the same memory, for no longer than the slice itself may be used.
            unsafe { VolatileSlice::new(slice.ptr_guard_mut().as_ptr(), slice.len()) }
        })
        .collect()
}

fn pieces(slices: &[VolatileSlice<'_>]) -> Vec<libc::iovec> {
    slices
        .iter()
        .take(IOV_MAX)
        .map(|slice| libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() })
        .collect()
}

/// Reads from `offset` of the file into `into`: `preadv2(2)`. Returns the count of bytes.
pub fn read(file: BorrowedFd<'_>, into: &[VolatileSlice<'_>], offset: i64) -> Result<usize, Errno> {
    let pieces = pieces(into);
    // SAFETY: each piece is memory that may change at any time and that Rust holds no reference to.
    let count =
        unsafe { libc::preadv2(file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int, offset, 0) };
    Errno::result(count).map(|count| count as usize)
}

/// Writes `from` to the file, at `offset` or at its end: `pwritev2(2)`. Returns the count of bytes.
pub fn write(
    file: BorrowedFd<'_>,
    from: &[VolatileSlice<'_>],
    offset: i64,
    append: bool,
) -> Result<usize, Errno> {
    let pieces = pieces(from);
    let flags = if append { libc::RWF_APPEND } else { 0 };
    // SAFETY: as above; the kernel only reads the pieces.
    let count = unsafe {
        libc::pwritev2(file.as_raw_fd(), pieces.as_ptr(), pieces.len() as libc::c_int, offset, flags)
    };
    Errno::result(count).map(|count| count as usize)
}
