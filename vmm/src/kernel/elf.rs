//! A kernel as ELF file with a PVH entry, in the guest's memory.
//!
//! What it only reads is mapped, so that it is the page cache's and all machines' that have this kernel. What it writes as
//! it boots is its own whatever is done, and is copied: to huge pages, without two faults for each small one. That is its
//! data, and also its code, in nearly every page of which Linux replaces instructions (alternatives, ftrace).

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use crate::memory::Memory;
use crate::sys;
use crate::sys::HUGE;
use crate::{Doing as _, Error, Result};

const PAGE: u64 = 4096;
/// More sections are no kernel's.
const SECTIONS: usize = 1024;
/// Bytes of a section's header.
const SECTION: usize = 64;
/// `SHF_EXECINSTR`.
const EXECUTABLE: u64 = 4;
/// `PF_W`.
const WRITABLE: u32 = 2;
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
    flags: u32,
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
                flags: u32::from_le_bytes(field(head, at.saturating_add(4))?),
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

/// Start and end in the file of each section with code; none where the file does not tell.
fn code(file: &File, head: &[u8]) -> Result<Vec<(u64, u64)>> {
    let table = u64::from_le_bytes(field(head, 40)?);
    let size = usize::from(u16::from_le_bytes(field(head, 58)?));
    let count = usize::from(u16::from_le_bytes(field(head, 60)?));
    if size != SECTION || count > SECTIONS {
        return Ok(Vec::new());
    }
    let mut headers = vec![0; count * SECTION];
    file.read_exact_at(&mut headers, table).doing(DOING)?;
    let mut found = Vec::new();
    for header in headers.as_chunks::<SECTION>().0 {
        let long = |offset| field(header, offset).map(u64::from_le_bytes);
        if long(8)? & EXECUTABLE != 0 {
            let start = long(24)?;
            found.push((start, start.saturating_add(long(32)?)));
        }
    }
    Ok(found)
}

/// Brings the kernel's segments into `memory`, of which nothing was touched yet.
pub fn load(memory: &Memory, file: &File) -> Result<Loaded> {
    let length = file.metadata().doing(DOING)?.len();
    let head = head(file)?;
    let segments = segments(&head)?;
    let entry = entry(file, &segments)?;
    let code = code(file, &head)?;
    let mut end = 0;
    for segment in segments.into_iter().filter(|segment| segment.kind == LOAD && segment.in_memory > 0) {
        end = end.max(place(memory, file, length, segment, &code)?);
    }
    if end == 0 || entry >= end {
        return Err(refused("its entry lies outside of its segments"));
    }
    Ok(Loaded { entry, end })
}

/// Brings one segment into memory; its end there.
fn place(memory: &Memory, file: &File, length: u64, segment: Segment, code: &[(u64, u64)]) -> Result<u64> {
    let in_file = segment.offset.checked_add(segment.in_file).filter(|end| *end <= length);
    if in_file.is_none() || segment.in_file > segment.in_memory {
        return Err(refused("a segment lies outside of the file"));
    }
    let end = segment.address.checked_add(segment.in_memory).filter(|end| *end <= memory.ranges()[0].1);
    let end = end.filter(|_| segment.address >= PAGE).ok_or_else(|| {
        refused(format!("a segment at {:#x} does not fit: give the guest more memory", segment.address))
    })?;
    let (from, to) = read_only(&segment, code);
    if from < to {
        let offset = segment.offset + from;
        sys::map_file(memory, segment.address + from, to - from, file.as_fd(), offset).doing(DOING)?;
    }
    for (from, to) in [(0, from), (to, segment.in_file)] {
        memory.copy_file(file, segment.offset + from, segment.address + from, to - from)?;
    }
    Ok(end)
}

/// The part of a segment, from and to in bytes from its start, that nobody writes: what follows the code of one that is not
/// writable, as far as it fills huge pages, which mapped pages and copied ones cannot share.
fn read_only(segment: &Segment, code: &[(u64, u64)]) -> (u64, u64) {
    let end = segment.offset + segment.in_file;
    let within = code.iter().filter(|(start, _)| (segment.offset..end).contains(start));
    let code_end = within.map(|(_, end)| *end).max().unwrap_or(end);
    if segment.flags & WRITABLE != 0 || code_end >= end || !segment.offset.is_multiple_of(PAGE) {
        return (0, 0);
    }
    let from = (segment.address + (code_end - segment.offset)).next_multiple_of(HUGE);
    let to = (segment.address + segment.in_file) / HUGE * HUGE;
    if from < to && segment.address.is_multiple_of(PAGE) {
        (from - segment.address, to - segment.address)
    } else {
        (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use vm_memory::{Bytes as _, GuestAddress};

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
    fn segments_are_copied_and_end_in_zero() {
        let memory = Memory::new(16 << 20).unwrap();
        let code: Vec<u8> = (0..10_000u32).map(|byte| byte as u8).collect();
        let loaded = load(&memory, &kernel(&code, 0x10_0010)).unwrap();
        assert_eq!(loaded, Loaded { entry: 0x10_0010, end: 0x10_0000 + 18_192 });
        let mut seen = vec![0; code.len() + 4096];
        memory.read_slice(&mut seen, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&seen[..code.len()], &code);
        assert!(seen[code.len()..].iter().all(|byte| *byte == 0));
    }

    /// A kernel with sections: code that ends in the second page of its segment, and much that is only read.
    fn with_sections(much: usize) -> File {
        let mut file = kernel(&vec![7; much], 0x10_0000);
        let table = file.metadata().unwrap().len();
        let mut sections = vec![0; 2 * SECTION];
        for (at, word) in [(8, EXECUTABLE), (24, 4096), (32, 5000)] {
            sections[SECTION + at..SECTION + at + 8].copy_from_slice(&word.to_le_bytes());
        }
        file.write_all(&sections).unwrap();
        file.write_all_at(&table.to_le_bytes(), 40).unwrap();
        file.write_all_at(&[64, 0, 2, 0], 58).unwrap();
        file
    }

    #[test]
    fn what_is_only_read_is_mapped_and_writes_of_the_guest_do_not_reach_the_file() {
        let memory = Memory::new(16 << 20).unwrap();
        let file = with_sections((7 << 20) - 4096);
        load(&memory, &file).unwrap();
        let seen = |at| memory.read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!([seen(0x10_0000), seen(0x20_0000), seen(0x7f_efff)], [7; 3]);
        // A change of the file is seen where it is mapped and nobody wrote.
        memory.write_slice(&[1; 100], GuestAddress(0x40_0000)).unwrap();
        file.write_all_at(&vec![9; (7 << 20) - 4096], 4096).unwrap();
        assert_eq!([seen(0x10_0000), seen(0x20_0000), seen(0x60_0000 - 1)], [7, 9, 9]);
        assert_eq!([seen(0x60_0000), seen(0x7f_efff), seen(0x40_0000)], [7, 7, 1]);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 4096 + (3 << 20)).unwrap();
        assert_eq!(byte, [9]);
    }

    #[test]
    fn only_whole_huge_pages_behind_the_code_are_mapped() {
        let segment = |flags| Segment {
            kind: LOAD,
            flags,
            offset: HUGE,
            address: 16 << 20,
            in_file: 27 << 20,
            in_memory: 27 << 20,
        };
        let code = [(HUGE, HUGE + (16 << 20)), (100 << 20, 101 << 20)];
        assert_eq!(read_only(&segment(5), &code), (16 << 20, 26 << 20));
        assert_eq!(read_only(&segment(5), &[(HUGE, HUGE + 1)]), (2 << 20, 26 << 20));
        assert_eq!(read_only(&segment(6), &code), (0, 0));
        assert_eq!(read_only(&segment(5), &[]), (0, 0));
        assert_eq!(read_only(&segment(5), &[(HUGE, 28 << 20)]), (0, 0));
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
