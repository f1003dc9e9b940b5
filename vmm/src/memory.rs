//! The guest's memory, behind one type: who maps it how (anonymous now, a snapshot's file later) is seen here only.

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use vm_memory::{
    Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _,
    GuestRegionCollection, GuestRegionMmap,
};

use crate::sys::Mapping;
use crate::{Doing as _, Error, Result};

/// End of the memory below 4 GiB; from here on are the devices.
pub const LOW_END: u64 = 0xc000_0000;
/// Where memory goes on that does not fit below.
pub const HIGH_START: u64 = 1 << 32;
/// Where memory that comes later may start: the largest block that Linux adds at once.
const GROWTH_ALIGNMENT: u64 = 2 << 30;
/// How much of a file is copied at once.
const BLOCK: usize = 64 << 10;

/// What the clones of a guest's memory share.
#[derive(Debug)]
struct Shared {
    map: GuestMemoryMmap,
    /// Dropped after the regions of them.
    _mappings: Vec<Mapping>,
}

/// The memory of a guest; clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    shared: Arc<Shared>,
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
        let mut ranges = vec![(0, low)];
        if bytes > low {
            ranges.push((HIGH_START, bytes - low));
        }
        let end = if bytes > low { HIGH_START + (bytes - low) } else { HIGH_START };
        let start = (growth > 0).then(|| end.next_multiple_of(GROWTH_ALIGNMENT));
        ranges.extend(start.map(|start| (start, growth)));
        let mut mappings = Vec::new();
        let mut regions = Vec::new();
        for (start, length) in ranges {
            let mapping = Mapping::new(length).doing(doing())?;
            let region = GuestRegionMmap::new(mapping.region().doing(doing())?, GuestAddress(start));
            regions
                .push(region.ok_or_else(|| Error::refused(doing(), "it is more than there are addresses"))?);
            mappings.push(mapping);
        }
        let map = GuestRegionCollection::from_regions(regions)
            .map_err(|error| Error::refused(doing(), error.to_string()))?;
        Ok(Memory { shared: Arc::new(Shared { map, _mappings: mappings }), growth: start })
    }

    /// Copies `length` bytes from `offset` of a file to guest-physical address `guest`, where there are zeros yet: those
    /// of the file take no memory.
    pub fn copy_file(&self, file: &File, offset: u64, guest: u64, length: u64) -> Result<()> {
        let doing = "reading a file into the guest's memory";
        let mut block = vec![0; BLOCK];
        let mut done = 0;
        while done < length {
            let block = &mut block[..BLOCK.min((length - done) as usize)];
            file.read_exact_at(block, offset + done).doing(doing)?;
            if block.iter().any(|byte| *byte != 0) {
                self.write_slice(block, GuestAddress(guest + done))
                    .map_err(|error| Error::refused(doing, error.to_string()))?;
            }
            done += block.len() as u64;
        }
        Ok(())
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
        &self.shared.map
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::sys::HUGE;

    #[test]
    fn huge_pages_of_host_and_guest_begin_together() {
        let memory = Memory::growing(3 << 20, 5 << 20).unwrap();
        let starts: Vec<u64> = memory.all().map(|(start, _)| start).collect();
        assert_eq!(starts, [0, HIGH_START]);
        for start in starts {
            assert_eq!((memory.host(start).unwrap() as u64) % HUGE, start % HUGE);
        }
        memory.write_obj(7u8, GuestAddress((3 << 20) - 1)).unwrap();
    }

    #[test]
    fn a_file_is_copied_from_any_byte_to_any_byte() {
        let memory = Memory::new(4 << 20).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..200_000u32).map(|at| if at / 70_000 == 1 { 0 } else { at as u8 }).collect();
        file.write_all(&bytes).unwrap();
        memory.copy_file(&file, 3, 5, 199_990).unwrap();
        let mut seen = vec![9; 199_992];
        memory.read_slice(&mut seen, GuestAddress(4)).unwrap();
        assert_eq!(seen, [&[0], &bytes[3..199_993], &[0]].concat());
        assert!(memory.copy_file(&file, 0, 0, 200_001).is_err());
    }
}
