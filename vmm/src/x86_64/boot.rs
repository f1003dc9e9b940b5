//! What a kernel finds when it is entered: memory map, command line, initial file system, ACPI's root.

use std::fs::File;

use vm_memory::{Bytes as _, GuestAddress};

use super::{acpi, layout};
use crate::memory::{HIGH_START, Memory};
use crate::{Doing as _, Error, Result};

/// How the first processor enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode without paging, by Xen's PVH convention.
    Pvh {
        /// The first instruction.
        address: u64,
    },
    /// 64-bit mode, by Linux's boot protocol.
    Long {
        /// The first instruction.
        address: u64,
    },
}

/// What a range of the memory map is; numbers of E820 and of PVH alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Usable.
    Memory = 1,
    /// To be left alone.
    Reserved = 2,
    /// ACPI's tables.
    Acpi = 3,
}

/// The memory map: start, length, kind.
pub fn memory_map(memory: &Memory) -> Vec<(u64, u64, Kind)> {
    let mut map =
        vec![(0, layout::LOW_MEMORY_END, Kind::Memory), (layout::ACPI, layout::ACPI_ROOM, Kind::Acpi)];
    for (start, length) in memory.ranges() {
        if start == 0 {
            map.push((layout::HIGH_MEMORY, length.saturating_sub(layout::HIGH_MEMORY), Kind::Memory));
            map.push((layout::PCI_CONFIGURATION, layout::PCI_CONFIGURATION_LENGTH, Kind::Reserved));
        } else {
            debug_assert_eq!(start, HIGH_START);
            map.push((start, length, Kind::Memory));
        }
    }
    map
}

/// An initial file system in the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initramfs {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

/// Copies an initial file system to the end of the memory below 4 GiB, `kernel_end` being the end of the kernel
/// with all that it unpacks before it reads its memory map.
pub fn load_initramfs(memory: &Memory, file: &File, kernel_end: u64) -> Result<Initramfs> {
    let doing = "loading the initramfs";
    let length = file.metadata().doing(doing)?.len();
    if length == 0 {
        return Err(Error::refused(doing, "it is empty"));
    }
    let room = length.next_multiple_of(4096);
    let low_end = memory.ranges()[0].1;
    let address = low_end.checked_sub(room).filter(|address| *address >= kernel_end).ok_or_else(|| {
        Error::refused(
            doing,
            format!("{} MiB of memory do not hold it beside the kernel: give more", low_end >> 20),
        )
    })?;
    memory.copy_file(file, 0, address, length)?;
    Ok(Initramfs { address, length })
}

/// Writes the command line.
pub fn write_command_line(memory: &Memory, text: &str) -> Result<()> {
    let doing = "writing the kernel's command line";
    if text.len() >= layout::COMMAND_LINE_ROOM {
        return Err(Error::refused(doing, format!("it has {} bytes, at most 2047 are read", text.len())));
    }
    if text.contains(['\0', '\n']) {
        return Err(Error::refused(doing, "it has a line break or a zero byte"));
    }
    put(memory, layout::COMMAND_LINE, &[text.as_bytes(), b"\0"].concat())
}

/// Writes ACPI's tables.
pub fn write_acpi(memory: &Memory, vcpus: u8, serial: bool) -> Result<()> {
    put(memory, layout::ACPI, &acpi::tables(vcpus, serial))
}

/// Writes what a PVH kernel is told.
pub fn write_start_info(memory: &Memory, initramfs: Option<Initramfs>) -> Result<()> {
    let map = memory_map(memory);
    let mut info = Vec::new();
    let modules = initramfs.map_or(0, |_| layout::MODULES);
    for word in [0x336e_c578u32, 1, 0, u32::from(initramfs.is_some())] {
        info.extend(word.to_le_bytes());
    }
    for address in [modules, layout::COMMAND_LINE, layout::ACPI, layout::MEMORY_MAP] {
        info.extend(address.to_le_bytes());
    }
    info.extend((map.len() as u32).to_le_bytes());
    info.extend([0; 4]);
    put(memory, layout::START_INFO, &info)?;
    let mut table = Vec::new();
    for (start, length, kind) in map {
        table.extend(start.to_le_bytes());
        table.extend(length.to_le_bytes());
        table.extend((kind as u32).to_le_bytes());
        table.extend([0; 4]);
    }
    put(memory, layout::MEMORY_MAP, &table)?;
    if let Some(initramfs) = initramfs {
        let mut list = Vec::new();
        for word in [initramfs.address, initramfs.length, 0, 0] {
            list.extend(word.to_le_bytes());
        }
        put(memory, layout::MODULES, &list)?;
    }
    Ok(())
}

/// Writes bytes into the guest's memory.
pub fn put(memory: &Memory, address: u64, bytes: &[u8]) -> Result<()> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(|error| {
        Error::refused(format!("writing to the guest's memory at {address:#x}"), error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_leaves_out_the_hole_and_tells_all_memory() {
        let memory = Memory::new(64 << 20).unwrap();
        let map = memory_map(&memory);
        assert_eq!(map[2], (0x10_0000, (64 << 20) - 0x10_0000, Kind::Memory));
        let big = Memory::new(4 << 30).unwrap();
        let map = memory_map(&big);
        assert_eq!(map.last(), Some(&(HIGH_START, 1 << 30, Kind::Memory)));
        for pair in map.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
    }

    #[test]
    fn command_lines_that_kernels_would_cut_are_refused() {
        let memory = Memory::new(16 << 20).unwrap();
        assert!(write_command_line(&memory, &"x".repeat(2047)).is_ok());
        assert!(write_command_line(&memory, &"x".repeat(2048)).is_err());
        assert!(write_command_line(&memory, "a\nb").is_err());
    }

    #[test]
    fn an_initramfs_must_fit() {
        let memory = Memory::new(16 << 20).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert!(load_initramfs(&memory, &file, 0).is_err());
        file.set_len(5000).unwrap();
        let place = load_initramfs(&memory, &file, 0x10_0000).unwrap();
        assert_eq!(place, Initramfs { address: (16 << 20) - 8192, length: 5000 });
        file.set_len(15 << 20).unwrap();
        assert!(load_initramfs(&memory, &file, 2 << 20).is_err());
    }
}
