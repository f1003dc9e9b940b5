//! The guest's memory, behind one type: who maps it how (anonymous now, a snapshot's file later) is seen here only.

use std::ops::Deref;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};

use crate::{Error, Result};

/// End of the memory below 4 GiB; from here on are the devices.
pub const LOW_END: u64 = 0xc000_0000;
/// Where memory goes on that does not fit below.
pub const HIGH_START: u64 = 1 << 32;

/// The memory of a guest; clones share it.
#[derive(Clone, Debug)]
pub struct Memory(Arc<GuestMemoryMmap>);

impl Memory {
    /// Reserves `bytes` of memory. Pages come when they are touched.
    pub fn new(bytes: u64) -> Result<Memory> {
        let doing = || format!("reserving {} MiB of memory for the guest", bytes >> 20);
        let low = bytes.min(LOW_END);
        let mut ranges = vec![(GuestAddress(0), low as usize)];
        if bytes > low {
            ranges.push((GuestAddress(HIGH_START), (bytes - low) as usize));
        }
        GuestMemoryMmap::from_ranges(&ranges)
            .map(|map| Memory(Arc::new(map)))
            .map_err(|error| Error::refused(doing(), error.to_string()))
    }

    /// Where guest-physical address `guest`, the start of a range, is mapped.
    pub fn host(&self, guest: u64) -> Result<*mut u8> {
        self.get_host_address(GuestAddress(guest))
            .map_err(|error| Error::refused("finding the guest's memory", error.to_string()))
    }

    /// Start and length in bytes of each range of guest-physical addresses that is memory.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        self.iter().map(|region| (region.start_addr().0, region.len())).collect()
    }
}

impl Deref for Memory {
    type Target = GuestMemoryMmap;

    fn deref(&self) -> &GuestMemoryMmap {
        &self.0
    }
}
