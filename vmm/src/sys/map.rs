//! The guest's memory, mappings inside of it, and memory that the guest only reads.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use vm_memory::{GuestAddress, GuestMemoryBackend as _, MmapRegion};

use crate::memory::Memory;

const PAGE: u64 = 4096;
/// A huge page of the processor's.
pub const HUGE: u64 = 2 << 20;

const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;
const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Maps `length` new bytes of zero, whose pages come when they are touched.
fn anonymous(length: usize) -> io::Result<*mut u8> {
    // SAFETY: a new mapping, wherever there is room.
    let host = unsafe { libc::mmap(std::ptr::null_mut(), length, PROTECTION, FLAGS, -1, 0) };
    if host == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(host.cast()) }
}

/// Memory that a guest shall have, whose pages come when they are touched.
#[derive(Debug)]
pub struct Mapping {
    host: *mut u8,
    length: usize,
}

// SAFETY: the pointer only names the mapping, which the value owns.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Reserves `length` bytes, whole pages, at an address that huge pages can begin at: only memory that lies so for
    /// the guest and the host alike has them in the tables of both. They are asked for, as each saves the guest up to
    /// 512 exits; where the host has them switched off, there are none.
    pub fn new(length: u64) -> io::Result<Mapping> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
        let length = usize::try_from(length).ok().filter(|length| *length > 0).ok_or_else(wrong)?;
        let room = length.checked_add(HUGE as usize).ok_or_else(wrong)?;
        let start = anonymous(room)?;
        let before = start.align_offset(HUGE as usize);
        // SAFETY: `before` is less than a huge page, and the mapping is one larger than `length`.
        let host = unsafe { start.add(before) };
        let mapping = Mapping { host, length };
        let after = HUGE as usize - before;
        // SAFETY: what lies before and after the part that is kept was mapped above, and nobody knows of it.
        unsafe {
            if before > 0 {
                libc::munmap(start.cast(), before);
            }
            if after > 0 {
                libc::munmap(host.add(length).cast(), after);
            }
        }
        // SAFETY: the mapping's own range; neither call changes what it holds, and either may be unknown to the kernel.
        unsafe {
            libc::madvise(host.cast(), length, libc::MADV_HUGEPAGE);
            libc::prctl(libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME, host, length, c"guest".as_ptr());
        }
        Ok(mapping)
    }

    /// The mapping as `vm-memory` knows it, to be dropped before the mapping is.
    pub fn region(&self) -> io::Result<MmapRegion> {
        // SAFETY: the range is mapped with these, and stays so for as long as this value lives.
        unsafe { MmapRegion::build_raw(self.host, self.length, PROTECTION, FLAGS) }
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; whoever had a region of it is gone.
        unsafe { libc::munmap(self.host.cast(), self.length) };
    }
}

/// Maps `length` bytes of a file, private to this process, in place of the guest's memory at `guest`: what the
/// guest does not write stays the page cache's. All three numbers are multiples of the page size.
pub fn map_file(memory: &Memory, guest: u64, length: u64, file: BorrowedFd, offset: u64) -> io::Result<()> {
    let host = range(memory, guest, length)?;
    if !offset.is_multiple_of(PAGE) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the range lies in one region of the guest's memory (checked), which stays as large as it is; what
    // is replaced is memory that only volatile accesses reach.
    let mapped = unsafe {
        libc::mmap(
            host.cast(),
            length as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives pages of the guest's memory back to the host: they read as zero, or as the kernel's file, from now on.
pub fn discard(memory: &Memory, guest: u64, length: u64) -> io::Result<()> {
    let host = range(memory, guest, length)?;
    // SAFETY: the range lies in the guest's memory, which only volatile accesses reach.
    match unsafe { libc::madvise(host.cast(), length as usize, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The host's address of whole pages that lie in one region.
fn range(memory: &Memory, guest: u64, length: u64) -> io::Result<*mut u8> {
    if !guest.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) || length == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    memory
        .get_slice(GuestAddress(guest), length as usize)
        .map(|slice| slice.ptr_guard_mut().as_ptr())
        .map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Memory of the monitor that the guest reads without an exit, such as the configuration of PCI functions.
#[derive(Debug)]
pub struct Window {
    host: *mut u8,
    length: usize,
}

// SAFETY: the pointer is to a mapping that the window owns; accesses are atomic.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// `length` bytes of zero, whole pages.
    pub fn new(length: usize) -> io::Result<Window> {
        Ok(Window { host: anonymous(length)?, length })
    }

    /// Where it is mapped.
    pub fn host(&self) -> *mut u8 {
        self.host
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Writes the aligned word at `offset`; beyond the end is nothing.
    pub fn set(&self, offset: usize, value: u32) {
        if !offset.is_multiple_of(4) || offset + 4 > self.length {
            return;
        }
        // SAFETY: inside the mapping and aligned (checked); the guest reads it at any time, so it is atomic.
        unsafe { &*self.host.add(offset).cast::<AtomicU32>() }.store(value.to_le(), Ordering::Release);
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, which nobody else knows any more.
        unsafe { libc::munmap(self.host.cast(), self.length) };
    }
}
