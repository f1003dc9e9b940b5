//! The guest's memory, behind one type: who maps it how (anonymous now, a snapshot's file later) is seen here only.

use std::ops::Deref;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};

use crate::{Error, Result};

/// End of the memory below 4 GiB; from here on are the devices.
pub const LOW_END: u64 = 0xc000_0000;
/// Where memory goes on that does not fit below.
pub const HIGH_START: u64 = 1 << 32;
/// Where memory that comes later may start: the largest block that Linux adds at once.
const GROWTH_ALIGNMENT: u64 = 2 << 30;

/// The memory of a guest; clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    map: Arc<GuestMemoryMmap>,
    /// Start of what the guest does not have from its start on.
    growth: Option<u64>,
}

impl Memory {
    /// Reserves `bytes` of memory. Pages come when they are touched.
    pub fn new(bytes: u64) -> Result<Memory> {
        Memory::growing(bytes, 0)
    }

    /// Reserves `bytes` of memory, and addresses for `growth` bytes that the guest may get later.
    pub fn growing(bytes: u64, growth: u64) -> Result<Memory> {
        let doing = || format!("reserving {} MiB of memory for the guest", (bytes + growth) >> 20);
        let low = bytes.min(LOW_END);
        let mut ranges = vec![(GuestAddress(0), low as usize)];
        if bytes > low {
            ranges.push((GuestAddress(HIGH_START), (bytes - low) as usize));
        }
        let end = if bytes > low { HIGH_START + (bytes - low) } else { HIGH_START };
        let start = (growth > 0).then(|| end.next_multiple_of(GROWTH_ALIGNMENT));
        ranges.extend(start.map(|start| (GuestAddress(start), growth as usize)));
        GuestMemoryMmap::from_ranges(&ranges)
            .map(|map| Memory { map: Arc::new(map), growth: start })
            .map_err(|error| Error::refused(doing(), error.to_string()))
    }

    /// Where guest-physical address `guest`, the start of a range, is mapped.
    pub fn host(&self, guest: u64) -> Result<*mut u8> {
        self.get_host_address(GuestAddress(guest))
            .map_err(|error| Error::refused("finding the guest's memory", error.to_string()))
    }

    /// Start and length in bytes of each range of guest-physical addresses that is memory from the start on.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        self.all().filter(|(start, _)| Some(*start) != self.growth).collect()
    }

    /// Start and length in bytes of the range that may become memory.
    pub fn growth(&self) -> Option<(u64, u64)> {
        self.all().find(|(start, _)| Some(*start) == self.growth)
    }

    fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        self.iter().map(|region| (region.start_addr().0, region.len()))
    }
}

impl Deref for Memory {
    type Target = GuestMemoryMmap;

    fn deref(&self) -> &GuestMemoryMmap {
        &self.map
    }
}
