//! The tape: a tar archive as a stream of checked entries, in bounded memory.
//!
//! Owns the reading of headers: ustar, GNU long names and sparse files, PAX records. Where GNU tar
//! and Go's archive/tar would read the same bytes differently, the archive is refused, so that
//! nothing can be hidden from one of them (CVE-2025-62518, CVE-2026-33055). Never touches a file.

use std::io::{ErrorKind, Read};

use crate::error::{Context, Error, Result};
use crate::unpack::limits::Limits;
use crate::unpack::pax;

/// Size of a tape block.
pub const BLOCK: usize = 512;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// A symbolic link.
    SymLink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Dir,
    /// A named pipe.
    Fifo,
}

/// One entry of the archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it makes.
    pub kind: Kind,
    /// Where, as it stands in the archive.
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Permission and set-id bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Size of the file as it is read later.
    pub size: u64,
    /// Where the data on the tape belongs, for a sparse file: offset and length.
    pub regions: Option<Vec<(u64, u64)>>,
}

/// The reader.
#[derive(Debug)]
pub struct Tape<R> {
    inner: R,
    limits: Limits,
    entries: u64,
    /// Data of the current entry that was not read yet, and the padding behind it.
    left: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> Tape<R> {
    /// Reads the archive in `inner`.
    pub fn new(inner: R, limits: Limits) -> Self {
        Tape { inner, limits, entries: 0, left: 0, padding: 0, ended: false }
    }

    /// The next entry; `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        let mut long_path: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        let mut records: Option<pax::Records> = None;
        loop {
            self.skip_data()?;
            let Some(block) = self.block()? else {
                let pending = long_path.is_some() || long_link.is_some() || records.is_some();
                return if pending { Err(bad("it ends after an extended header")) } else { Ok(None) };
            };
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(bad(&format!("it has more than {} entries", self.limits.entries)));
            }
            checksum(&block)?;
            let size = number(&block[124..136]).filter(|size| *size >= 0);
            let size = size.ok_or_else(|| bad("an entry's size is no number, or negative"))? as u64;
            match block[156] {
                b'L' | b'K' => {
                    let mut text = self.header_data(size)?;
                    if let Some(end) = text.iter().position(|b| *b == 0) {
                        text.truncate(end);
                    }
                    let place = if block[156] == b'L' { &mut long_path } else { &mut long_link };
                    if place.replace(text).is_some() {
                        return Err(bad("two long names stand before one entry"));
                    }
                }
                b'x' | b'X' => {
                    let text = self.header_data(size)?;
                    if records.replace(pax::parse(&text)?).is_some() {
                        return Err(bad("two PAX headers stand before one entry"));
                    }
                }
                b'g' => {
                    let text = self.header_data(size)?;
                    // GNU tar applies these to all that follows, Go to nothing.
                    if pax::parse(&text)?.changes_entries() {
                        return Err(bad("a global PAX header changes entries, which not every reader heeds"));
                    }
                }
                // The name of a volume.
                b'V' => self.expect_data(size),
                flag => return self.entry(&block, flag, size, long_path, long_link, records).map(Some),
            }
        }
    }

    /// Reads data of the current entry.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize> {
        let most = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let n = read_some(&mut self.inner, &mut buf[..most])?;
        if n == 0 {
            return Err(bad("it is cut off inside a file"));
        }
        self.left -= n as u64;
        Ok(n)
    }

    /// The underlying reader. After an entry was given it stands right behind its header.
    pub fn reader(&self) -> &R {
        &self.inner
    }

    /// The underlying reader, for what stands behind the end of the archive.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn expect_data(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_data(&mut self) -> Result<()> {
        let mut scratch = [0u8; 8192];
        while self.left > 0 {
            self.read_data(&mut scratch)?;
        }
        // umoci ends an archive right behind the data, without padding: nothing is missing then.
        let mut padding = std::mem::take(&mut self.padding) as usize;
        while padding > 0 {
            match read_some(&mut self.inner, &mut scratch[..padding])? {
                0 => break,
                n => padding -= n,
            }
        }
        Ok(())
    }

    /// The data of an extended header.
    fn header_data(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > self.limits.header {
            return Err(bad(&format!("an extended header is larger than {} bytes", self.limits.header)));
        }
        self.expect_data(size);
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read_data(&mut data[filled..])?;
        }
        Ok(data)
    }

    /// A header block; `None` at the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.raw_block()? else {
            self.ended = true;
            return Ok(None);
        };
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        self.ended = true;
        match self.raw_block()? {
            Some(next) if next.iter().any(|b| *b != 0) => {
                Err(bad("entries stand behind a single empty block, where readers disagree"))
            }
            _ => Ok(None),
        }
    }

    fn raw_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match read_some(&mut self.inner, &mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(bad("it is cut off inside a header")),
                n => filled += n,
            }
        }
        Ok(Some(block))
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        size: u64,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        records: Option<pax::Records>,
    ) -> Result<Entry> {
        let records = records.unwrap_or_default();
        if (long_path.is_some() && records.path.is_some()) || (long_link.is_some() && records.link.is_some())
        {
            return Err(bad("an entry has both a GNU and a PAX name"));
        }
        let path = records.path.or(long_path).unwrap_or_else(|| short_path(block));
        let link = records.link.or(long_link).unwrap_or_else(|| until_nul(&block[157..257]));
        let mut kind = match flag {
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymLink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => return Err(bad(&format!("an entry of type {:?} is not supported", other as char))),
        };
        // As before ustar, and still with GNU tar and Go: a file whose name ends in a slash.
        if kind == Kind::File && path.ends_with(b"/") {
            kind = Kind::Dir;
        }
        let name = || String::from_utf8_lossy(&path).into_owned();
        if path.len() > self.limits.path || link.len() > self.limits.path {
            return Err(bad(&format!("a path is longer than {} bytes", self.limits.path)));
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(bad(&format!("a path holds a NUL byte: {}", name())));
        }
        let on_tape = records.size.unwrap_or(size);
        match kind {
            Kind::File => self.expect_data(on_tape),
            // Some writers give the size of the file that is linked to; nothing of it is on the tape.
            Kind::HardLink => self.expect_data(0),
            _ if on_tape != 0 => {
                return Err(bad(&format!("{} has data, which not every reader skips", name())));
            }
            _ => self.expect_data(0),
        }
        let field = |from: usize, to: usize, what: &str| {
            number(&block[from..to]).ok_or_else(|| bad(&format!("the {what} of {} is no number", name())))
        };
        let id = |given: Option<u64>, from: usize, what: &str| {
            let id = match given {
                Some(id) => i64::try_from(id).unwrap_or(i64::MAX),
                None => field(from, from + 8, what)?,
            };
            // The highest number means "leave it" to chown(2).
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| bad(&format!("the {what} of {} is out of range: {id}", name())))
        };
        let mut entry = Entry {
            kind,
            mode: (field(100, 108, "mode")? as u32) & 0o7777,
            uid: id(records.uid, 108, "owner")?,
            gid: id(records.gid, 116, "group")?,
            mtime: match records.mtime {
                Some(mtime) => mtime,
                None => (field(136, 148, "time")?, 0),
            },
            xattrs: records.xattrs,
            device: (0, 0),
            size: if kind == Kind::File { on_tape } else { 0 },
            regions: None,
            link,
            path: path.clone(),
        };
        if matches!(kind, Kind::Char | Kind::Block) {
            let part = |from: usize, what: &str| {
                field(from, from + 8, what).and_then(|n| {
                    u32::try_from(n).map_err(|_| bad(&format!("the {what} of {} is out of range", name())))
                })
            };
            entry.device = (part(329, "device number")?, part(337, "device number")?);
        }
        if flag == b'S' {
            self.old_sparse(block, &mut entry)?;
        } else if let Some(sparse) = records.sparse {
            if kind != Kind::File {
                return Err(bad("an entry that is no file is sparse"));
            }
            if let Some(real) = sparse.name.clone() {
                entry.path = real;
            }
            entry.regions = Some(match sparse.regions {
                Some(regions) => regions,
                None => self.sparse_map()?,
            });
            entry.size = sparse.size.ok_or_else(|| bad("a sparse file has no size"))?;
        }
        self.check_regions(&entry)?;
        Ok(entry)
    }

    /// GNU's old format: four regions in the header, more in blocks behind it.
    fn old_sparse(&mut self, block: &[u8; BLOCK], entry: &mut Entry) -> Result<()> {
        let mut regions = Vec::new();
        let size = number(&block[483..495]).and_then(|size| u64::try_from(size).ok());
        entry.size = size.ok_or_else(|| bad("a sparse file has no size"))?;
        let mut more = block[482] != 0;
        old_regions(&block[386..482], &mut regions)?;
        while more {
            if regions.len() > self.limits.regions {
                return Err(bad("a sparse file has too many regions"));
            }
            let next = self.raw_block()?.ok_or_else(|| bad("it is cut off inside a header"))?;
            old_regions(&next[..504], &mut regions)?;
            more = next[504] != 0;
        }
        entry.regions = Some(regions);
        Ok(())
    }

    /// PAX format 1.0: the map stands in front of the data, one decimal number a line, in whole blocks.
    fn sparse_map(&mut self) -> Result<Vec<(u64, u64)>> {
        let refuse = || bad("a sparse file's map cannot be read");
        let mut numbers: Vec<u64> = Vec::new();
        let mut current: Option<u64> = None;
        loop {
            let mut block = [0u8; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(refuse()),
                    n => filled += n,
                }
            }
            for byte in block {
                match byte {
                    b'0'..=b'9' => {
                        let digit = u64::from(byte - b'0');
                        let value = current.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
                        current = Some(value.ok_or_else(refuse)?);
                    }
                    b'\n' => numbers.push(current.take().ok_or_else(refuse)?),
                    _ => return Err(refuse()),
                }
                let count = numbers.first().copied().unwrap_or(u64::MAX);
                if numbers.len() > 1 + 2 * self.limits.regions {
                    return Err(bad("a sparse file has too many regions"));
                }
                if count != u64::MAX && numbers.len() as u64 == count.saturating_mul(2).saturating_add(1) {
                    return Ok(numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
                }
            }
        }
    }

    fn check_regions(&self, entry: &Entry) -> Result<()> {
        let Some(regions) = &entry.regions else { return Ok(()) };
        if regions.len() > self.limits.regions || entry.size > self.limits.sparse {
            return Err(bad("a sparse file is larger than allowed"));
        }
        let mut end = 0;
        let mut sum = 0u64;
        for (offset, length) in regions {
            if *offset < end || offset.checked_add(*length).is_none_or(|end| end > entry.size) {
                return Err(bad("the regions of a sparse file overlap or lie outside"));
            }
            end = offset + length;
            sum += length;
        }
        if sum != self.left {
            return Err(bad("the regions of a sparse file are not as long as its data"));
        }
        Ok(())
    }
}

fn old_regions(pairs: &[u8], regions: &mut Vec<(u64, u64)>) -> Result<()> {
    for pair in pairs.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let read = |text| number(text).and_then(|n| u64::try_from(n).ok());
        match (read(&pair[..12]), read(&pair[12..])) {
            (Some(offset), Some(length)) => regions.push((offset, length)),
            _ => return Err(bad("a sparse file's map cannot be read")),
        }
    }
    Ok(())
}

/// A refusal of the archive.
pub(super) fn bad(why: &str) -> Error {
    Error::corrupt(format!("reading the archive: {why}"))
}

fn read_some(inner: &mut impl Read, buf: &mut [u8]) -> Result<usize> {
    loop {
        match inner.read(buf) {
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            other => return other.doing(|| "reading the archive"),
        }
    }
}

/// A header's checksum: the sum of its bytes with its own field as blanks; old writers summed signed bytes.
fn checksum(block: &[u8; BLOCK]) -> Result<()> {
    let blanked = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let (unsigned, signed) =
        blanked.fold((0i64, 0i64), |(u, s), b| (u + i64::from(b), s + i64::from(b as i8)));
    match number(&block[148..156]) {
        Some(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => Err(bad("a header's checksum is wrong: it is damaged, or no tar archive")),
    }
}

/// A number of a header: octal text, or two's complement with the first bit set as GNU has it.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // 0x80 begins a positive number, 0xff a negative one.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, byte) in field.iter().enumerate() {
            let byte = if i == 0 && !negative { byte & 0x7f } else { *byte };
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let text = field.split(|b| *b == 0).next().unwrap_or_default();
    let text = text.trim_ascii();
    text.iter().try_fold(0i64, |sum, b| match b {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

fn until_nul(field: &[u8]) -> Vec<u8> {
    field.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Name with ustar's prefix; GNU's magic has other things in that place.
fn short_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    if &block[257..263] != b"ustar\0" || prefix.is_empty() {
        return name;
    }
    [prefix, vec![b'/'], name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xbf; 12]), None);
        assert_eq!(number(b"0000x00\0"), None);
    }
}
