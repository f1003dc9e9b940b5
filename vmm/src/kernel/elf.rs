//! A kernel as ELF file with a PVH entry, mapped into the guest's memory and not copied.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use vm_memory::{Bytes as _, GuestAddress};

use crate::memory::Memory;
use crate::sys;
use crate::{Doing as _, Error, Result};

const PAGE: u64 = 4096;
/// The only things that are read of a file's head: header and program headers.
const HEADERS: usize = 4096;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;
/// Larger notes are no kernel's.
const NOTES: u64 = 64 << 10;
const DOING: &str = "loading the kernel";

/// A kernel in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// The first instruction.
    pub entry: u64,
    /// The end of its last segment, guest-physical.
    pub end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    in_file: u64,
    in_memory: u64,
}

fn refused(reason: impl Into<String>) -> Error {
    Error::refused(DOING, reason)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..at.saturating_add(N))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| refused("the ELF file is cut off"))
}

fn segments(head: &[u8]) -> Result<Vec<Segment>> {
    // 64 bits, little-endian, x86-64.
    if head.get(..6) != Some(b"\x7fELF\x02\x01") || u16::from_le_bytes(field(head, 18)?) != 62 {
        return Err(refused("it is no ELF file for x86-64"));
    }
    let table = u64::from_le_bytes(field(head, 32)?) as usize;
    let size = usize::from(u16::from_le_bytes(field(head, 54)?));
    let count = usize::from(u16::from_le_bytes(field(head, 56)?));
    if size != 56 {
        return Err(refused("its program headers have an unknown size"));
    }
    (0..count)
        .map(|index| {
            let at = table.saturating_add(index * size);
            let long = |offset| field(head, at.saturating_add(offset)).map(u64::from_le_bytes);
            Ok(Segment {
                kind: u32::from_le_bytes(field(head, at)?),
                offset: long(8)?,
                address: long(24)?,
                in_file: long(32)?,
                in_memory: long(40)?,
            })
        })
        .collect()
}

fn head(file: &File) -> Result<Vec<u8>> {
    let mut head = vec![0; HEADERS];
    let mut filled = 0;
    while filled < head.len() {
        match file.read_at(&mut head[filled..], filled as u64).doing(DOING)? {
            0 => break,
            more => filled += more,
        }
    }
    head.truncate(filled);
    Ok(head)
}

/// Where the kernel wants to be entered by PVH.
pub fn pvh_entry(file: &File) -> Result<u64> {
    entry(file, &segments(&head(file)?)?)
}

fn entry(file: &File, segments: &[Segment]) -> Result<u64> {
    for segment in segments.iter().filter(|segment| segment.kind == NOTE && segment.in_file <= NOTES) {
        let mut notes = vec![0; segment.in_file as usize];
        file.read_exact_at(&mut notes, segment.offset).doing(DOING)?;
        let mut rest = notes.as_slice();
        // Name and description follow in multiples of four bytes.
        while rest.len() >= 12 {
            let name = u32::from_le_bytes(field(rest, 0)?) as usize;
            let described = u32::from_le_bytes(field(rest, 4)?) as usize;
            let kind = u32::from_le_bytes(field(rest, 8)?);
            let start = name.next_multiple_of(4).saturating_add(12);
            if kind == PHYS32_ENTRY && rest.get(12..16) == Some(b"Xen\0") && described >= 4 {
                return Ok(u32::from_le_bytes(field(rest, start)?).into());
            }
            let next = start.saturating_add(described.next_multiple_of(4));
            rest = rest.get(next..).unwrap_or_default();
        }
    }
    Err(refused("it has no PVH entry (CONFIG_PVH): take another kernel, or its bzImage"))
}

/// Maps the kernel's segments into `memory`.
pub fn load(memory: &Memory, file: &File) -> Result<Loaded> {
    let length = file.metadata().doing(DOING)?.len();
    let segments = segments(&head(file)?)?;
    let entry = entry(file, &segments)?;
    let mut end = 0;
    for segment in segments.into_iter().filter(|segment| segment.kind == LOAD && segment.in_memory > 0) {
        end = end.max(place(memory, file, length, segment)?);
    }
    if end == 0 || entry >= end {
        return Err(refused("its entry lies outside of its segments"));
    }
    Ok(Loaded { entry, end })
}

/// Brings one segment into memory; its end there.
fn place(memory: &Memory, file: &File, length: u64, segment: Segment) -> Result<u64> {
    let in_file = segment.offset.checked_add(segment.in_file).filter(|end| *end <= length);
    if in_file.is_none() || segment.in_file > segment.in_memory {
        return Err(refused("a segment lies outside of the file"));
    }
    let end = segment.address.checked_add(segment.in_memory).filter(|end| *end <= memory.ranges()[0].1);
    let end = end.filter(|_| segment.address >= PAGE).ok_or_else(|| {
        refused(format!("a segment at {:#x} does not fit: give the guest more memory", segment.address))
    })?;
    if segment.in_file == 0 {
        return Ok(end);
    }
    let mappable = segment.address.is_multiple_of(PAGE) && segment.offset.is_multiple_of(PAGE);
    // Whole pages are mapped; the rest, up to whatever follows, is copied, since what comes after it is zero.
    let whole = if mappable { segment.in_file / PAGE * PAGE } else { 0 };
    if whole > 0 {
        sys::map_file(memory, segment.address, whole, file.as_fd(), segment.offset).doing(DOING)?;
    }
    let mut rest = vec![0; (segment.in_file - whole) as usize];
    file.read_exact_at(&mut rest, segment.offset + whole).doing(DOING)?;
    memory
        .write_slice(&rest, GuestAddress(segment.address + whole))
        .map_err(|error| refused(error.to_string()))?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A kernel with one segment of `code` at 1 MiB and a note with its entry.
    fn kernel(code: &[u8], entry: u32) -> File {
        let mut bytes = vec![0u8; 4096];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 2;
        let mut header = |at: usize, kind: u32, words: [u64; 4]| {
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            for (offset, word) in [8, 24, 32, 40].into_iter().zip(words) {
                bytes[at + offset..at + offset + 8].copy_from_slice(&word.to_le_bytes());
            }
        };
        header(64, LOAD, [4096, 0x10_0000, code.len() as u64, code.len() as u64 + 8192]);
        header(120, NOTE, [1024, 0, 20, 20]);
        bytes[1024..1028].copy_from_slice(&4u32.to_le_bytes());
        bytes[1028..1032].copy_from_slice(&4u32.to_le_bytes());
        bytes[1032..1036].copy_from_slice(&PHYS32_ENTRY.to_le_bytes());
        bytes[1036..1040].copy_from_slice(b"Xen\0");
        bytes[1040..1044].copy_from_slice(&entry.to_le_bytes());
        bytes.extend(code);
        // What follows a segment in the file must not follow it in memory.
        bytes.extend([0xee; 5000]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn segments_are_mapped_and_end_in_zero() {
        let memory = Memory::new(16 << 20).unwrap();
        let code: Vec<u8> = (0..10_000u32).map(|byte| byte as u8).collect();
        let loaded = load(&memory, &kernel(&code, 0x10_0010)).unwrap();
        assert_eq!(loaded, Loaded { entry: 0x10_0010, end: 0x10_0000 + 18_192 });
        let mut seen = vec![0; code.len() + 4096];
        memory.read_slice(&mut seen, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&seen[..code.len()], &code);
        assert!(seen[code.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn writes_of_the_guest_do_not_reach_the_file() {
        let memory = Memory::new(16 << 20).unwrap();
        let file = kernel(&[7; 8192], 0x10_0000);
        load(&memory, &file).unwrap();
        memory.write_slice(&[1; 100], GuestAddress(0x10_0000)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4096).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn broken_files_are_refused() {
        let memory = Memory::new(16 << 20).unwrap();
        let empty = tempfile::tempfile().unwrap();
        assert!(load(&memory, &empty).is_err());
        let cut = kernel(&[7; 8192], 0x10_0000);
        cut.set_len(6000).unwrap();
        assert!(load(&memory, &cut).is_err());
        let stray = kernel(&[7; 8192], 0x80_0000);
        assert!(load(&memory, &stray).is_err());
        let small = Memory::new(0x10_1000).unwrap();
        let error = load(&small, &kernel(&[7; 8192], 0x10_0000)).unwrap_err().to_string();
        assert!(error.contains("more memory"), "{error}");
    }
}
