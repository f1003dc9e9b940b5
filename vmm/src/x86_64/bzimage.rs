//! Linux's compressed image: its header, and its 64-bit entry.
//!
//! Offsets are those of `Documentation/arch/x86/boot.rst` (protocol 2.12 and above).

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use super::boot::{Entry, Initramfs, memory_map, put};
use super::layout;
use crate::memory::Memory;
use crate::{Error, Result};

const SETUP_SECTORS: usize = 0x1f1;
const HEADER_LENGTH: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const LOADER: usize = 0x210;
const RAMDISK: usize = 0x218;
const COMMAND_LINE: usize = 0x228;
const XLOADFLAGS: usize = 0x236;
const PAYLOAD: usize = 0x248;
const PREFERRED: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// The image's head that holds all of these.
const HEAD: usize = 0x268;

// Of the zero page only.
const ROOT_POINTER: usize = 0x70;
const MAP_ENTRIES: usize = 0x1e8;
const MAP: usize = 0x2d0;

const ENTERED_IN_64_BIT: u16 = 1;
/// Where the 64-bit entry lies in the protected-mode code.
const LONG_ENTRY: u64 = 0x200;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Where the protected-mode code begins in the file.
    pub code: usize,
    /// Where it wants to be loaded.
    pub preferred: u64,
    /// Bytes of memory that it uses from there before it reads its memory map.
    pub init_size: u64,
    /// The compressed kernel in the file.
    pub payload: std::ops::Range<usize>,
    /// It has a 64-bit entry.
    pub long: bool,
}

fn number<const N: usize>(image: &[u8], at: usize) -> Option<[u8; N]> {
    image.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    number(image, at).map(u32::from_le_bytes)
}

fn u16_at(image: &[u8], at: usize) -> Option<u16> {
    number(image, at).map(u16::from_le_bytes)
}

/// Reads the header; none if this is no bzImage, or one older than protocol 2.10.
pub fn header(image: &[u8]) -> Option<Header> {
    if image.len() < HEAD || u16_at(image, VERSION)? < 0x20a || number::<4>(image, MAGIC)? != *b"HdrS" {
        return None;
    }
    let sectors = match image[SETUP_SECTORS] {
        0 => 4,
        some => usize::from(some),
    };
    let code = (sectors + 1) * 512;
    let start = code.checked_add(u32_at(image, PAYLOAD)? as usize)?;
    let end = start.checked_add(u32_at(image, PAYLOAD + 4)? as usize)?;
    if code >= image.len() || end > image.len() {
        return None;
    }
    Some(Header {
        code,
        preferred: number(image, PREFERRED).map(u64::from_le_bytes)?,
        init_size: u32_at(image, INIT_SIZE)?.into(),
        payload: start..end,
        long: u16_at(image, XLOADFLAGS)? & ENTERED_IN_64_BIT != 0,
    })
}

/// Copies the code into memory; where it is entered, and the end of what it uses.
pub fn load(memory: &Memory, image: &[u8], header: &Header) -> Result<(Entry, u64)> {
    let doing = "loading the kernel";
    if !header.long {
        return Err(Error::refused(doing, "this bzImage has no 64-bit entry: take an x86-64 kernel"));
    }
    let code = &image[header.code..];
    let end = header.preferred.checked_add(header.init_size.max(code.len() as u64));
    let fits =
        |end: &u64| memory.check_range(GuestAddress(header.preferred), (*end - header.preferred) as usize);
    let end = end.filter(|_| header.preferred >= layout::HIGH_MEMORY).filter(fits).ok_or_else(|| {
        Error::refused(
            doing,
            format!(
                "it needs {} MiB from {:#x} on: give more memory",
                header.init_size >> 20,
                header.preferred
            ),
        )
    })?;
    put(memory, header.preferred, code)?;
    Ok((Entry::Long { address: header.preferred + LONG_ENTRY }, end))
}

/// Writes the zero page, page tables and descriptors of the 64-bit entry.
pub fn write_zero_page(memory: &Memory, image: &[u8], initramfs: Option<Initramfs>) -> Result<()> {
    let mut page = [0u8; 4096];
    let end = (MAGIC + usize::from(image[HEADER_LENGTH])).clamp(HEAD, 0x290);
    let end = end.min(image.len());
    page[SETUP_SECTORS..end].copy_from_slice(&image[SETUP_SECTORS..end]);
    // A loader without a number of its own.
    page[LOADER] = 0xff;
    let mut word = |at: usize, value: u32| page[at..at + 4].copy_from_slice(&value.to_le_bytes());
    word(COMMAND_LINE, layout::COMMAND_LINE as u32);
    if let Some(initramfs) = initramfs {
        word(RAMDISK, initramfs.address as u32);
        word(RAMDISK + 4, initramfs.length as u32);
    }
    word(ROOT_POINTER, layout::ACPI as u32);
    let map = memory_map(memory);
    page[MAP_ENTRIES] = map.len() as u8;
    for (index, (start, length, kind)) in map.into_iter().enumerate() {
        let entry = &mut page[MAP + 20 * index..][..20];
        entry[..8].copy_from_slice(&start.to_le_bytes());
        entry[8..16].copy_from_slice(&length.to_le_bytes());
        entry[16..].copy_from_slice(&(kind as u32).to_le_bytes());
    }
    put(memory, layout::ZERO_PAGE, &page)?;
    write_page_tables(memory)
}

/// Maps the first GiB onto itself in 2 MiB pages.
fn write_page_tables(memory: &Memory) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let entry = |address: u64, value: u64| {
        memory
            .write_obj(value, GuestAddress(address))
            .map_err(|error| Error::refused("writing the first page tables", error.to_string()))
    };
    let (second, third) = (layout::PAGE_TABLES + 0x1000, layout::PAGE_TABLES + 0x2000);
    entry(layout::PAGE_TABLES, second | PRESENT_WRITABLE)?;
    entry(second, third | PRESENT_WRITABLE)?;
    for index in 0..512 {
        entry(third + index * 8, index << 21 | PRESENT_WRITABLE | LARGE)?;
    }
    // The boot protocol's selectors: code 0x10, data 0x18; then a task state.
    for (index, descriptor) in
        [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x008f_8b00_0000_ffff].iter().enumerate()
    {
        entry(layout::GDT + index as u64 * 8, *descriptor)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Vec<u8> {
        let mut image = vec![0u8; 0x2000];
        image[SETUP_SECTORS] = 3;
        image[HEADER_LENGTH] = 0x66;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x20fu16.to_le_bytes());
        image[XLOADFLAGS] = 1;
        image[PREFERRED..PREFERRED + 8].copy_from_slice(&0x100_0000u64.to_le_bytes());
        image[INIT_SIZE..INIT_SIZE + 4].copy_from_slice(&0x10_0000u32.to_le_bytes());
        image[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&16u32.to_le_bytes());
        image
    }

    #[test]
    fn a_header_is_read_and_garbage_is_none() {
        let header = header(&image()).unwrap();
        assert_eq!((header.code, header.preferred, header.payload), (2048, 0x100_0000, 2048..2064));
        assert!(super::header(&image()[..0x260]).is_none());
        let mut far = image();
        far[PAYLOAD..PAYLOAD + 4].fill(0xff);
        assert!(super::header(&far).is_none());
        assert!(super::header(&[]).is_none());
    }

    #[test]
    fn it_is_loaded_where_it_wants_to_be_or_refused() {
        let memory = Memory::new(32 << 20).unwrap();
        let image = image();
        let header = header(&image).unwrap();
        let (entry, end) = load(&memory, &image, &header).unwrap();
        assert_eq!((entry, end), (Entry::Long { address: 0x100_0200 }, 0x110_0000));
        write_zero_page(&memory, &image, Some(Initramfs { address: 0x1f0_0000, length: 5 })).unwrap();
        let small = Memory::new(16 << 20).unwrap();
        assert!(load(&small, &image, &header).is_err());
        assert!(load(&memory, &image, &Header { preferred: u64::MAX, ..header.clone() }).is_err());
        assert!(load(&memory, &image, &Header { preferred: 0, ..header }).is_err());
    }
}
