//! Writes of the guest that KVM keeps in a ring until the monitor looks ("coalesced MMIO").

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::VcpuFd;

/// The architecture's page, which is the ring.
const PAGE: usize = 4096;
/// Entries of the ring.
const ROOM: u32 = ((PAGE - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>()) as u32;

/// A write that the guest did not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Guest-physical address.
    pub address: u64,
    bytes: [u8; 8],
    length: usize,
}

impl Write {
    /// What was written.
    pub fn data(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The ring: one a machine, whichever processor wrote.
#[derive(Debug)]
pub struct Posted(NonNull<kvm_coalesced_mmio_ring>);

// SAFETY: the pointer is to a mapping that it owns; taking wants it exclusively, and the kernel only adds.
unsafe impl Send for Posted {}

impl Posted {
    /// The ring of the machine that `vcpu` is of.
    pub fn new(vcpu: &VcpuFd) -> io::Result<Posted> {
        // SAFETY: a new mapping, wherever there is room, of the page that KVM has for this; it keeps the machine.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                PAGE as libc::off_t * libc::off_t::from(KVM_COALESCED_MMIO_PAGE_OFFSET),
            )
        };
        match NonNull::new(page) {
            Some(page) if page.as_ptr() != libc::MAP_FAILED => Ok(Posted(page.cast())),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Hands over what is there by now, in the order in which it was written; what comes meanwhile stays.
    pub fn take<E>(&mut self, mut each: impl FnMut(Write) -> Result<(), E>) -> Result<(), E> {
        let ring = self.0.as_ptr();
        // SAFETY: both are aligned words of the mapping; the kernel reads and writes them at any time.
        let (first, last) = unsafe {
            (AtomicU32::from_ptr(&raw mut (*ring).first), AtomicU32::from_ptr(&raw mut (*ring).last))
        };
        // The kernel fills an entry before it moves `last`.
        let end = last.load(Ordering::Acquire) % ROOM;
        let mut at = first.load(Ordering::Relaxed) % ROOM;
        while at != end {
            // SAFETY: the entries follow the header, `at` is one of them, and the kernel leaves those before `last`.
            let entry = unsafe { ring.add(1).cast::<kvm_coalesced_mmio>().add(at as usize).read_volatile() };
            at = (at + 1) % ROOM;
            first.store(at, Ordering::Release);
            let length = (entry.len as usize).min(entry.data.len());
            each(Write { address: entry.phys_addr, bytes: entry.data, length })?;
        }
        Ok(())
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, which nobody else knows.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}
