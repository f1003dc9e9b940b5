//! The last output of a machine, in a file of its runtime directory.
//!
//! Owns the file's form: how many bytes were ever written (eight, little-endian), then a ring of 64 KiB. It lies on a
//! tmpfs, so it costs a keeper no memory of its own and outlives it; a reader that follows needs no buffer either.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::{Context, Error, Machine, Result};

/// The file's name.
pub const FILE: &str = "console.ring";
/// How much is kept.
pub const SIZE: u64 = 64 * 1024;
const HEADER: u64 = 8;

/// The ring.
#[derive(Debug)]
pub struct Ring {
    file: File,
    total: u64,
}

impl Ring {
    /// Opens the ring in the runtime directory `run`, made where missing.
    pub fn open(run: &Path) -> Result<Ring> {
        let path = run.join(FILE);
        let doing = || format!("opening {}", path.display());
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .doing(doing)?;
        let total = total(&file).doing(doing)?;
        Ok(Ring { file, total })
    }

    /// Its descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many bytes were ever written.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The oldest position that is still there.
    pub fn oldest(&self) -> u64 {
        self.total.saturating_sub(SIZE)
    }

    /// Adds `bytes`.
    pub fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // What would be overwritten by its own end is not written at all.
        let skipped = bytes.len().saturating_sub(SIZE as usize);
        let mut at = self.total + skipped as u64;
        let mut rest = &bytes[skipped..];
        while !rest.is_empty() {
            let place = at % SIZE;
            let length = rest.len().min((SIZE - place) as usize);
            self.file.write_all_at(&rest[..length], HEADER + place)?;
            at += length as u64;
            rest = &rest[length..];
        }
        self.total = at;
        self.file.write_all_at(&at.to_le_bytes(), 0)
    }

    /// Forgets what was written after there were `total` bytes.
    pub fn rewind(&mut self, total: u64) {
        self.total = self.total.min(total);
    }

    /// Reads from `position` on: the bytes that were put into `buffer`, none at the end. A position that was
    /// overwritten meanwhile is moved to the oldest that is there.
    pub fn read(&self, position: &mut u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        *position = (*position).clamp(self.oldest(), self.total);
        let place = *position % SIZE;
        let there = (self.total - *position).min(SIZE - place).min(buffer.len() as u64) as usize;
        self.file.read_exact_at(&mut buffer[..there], HEADER + place)?;
        *position += there as u64;
        Ok(there)
    }
}

/// What `machine` last wrote, also when nothing of it runs any more.
pub fn last_output(machine: &Machine) -> Result<Vec<u8>> {
    let path = machine.run().join(FILE);
    let doing = || format!("reading {}", path.display());
    let file = match File::open(&path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(doing)?,
    };
    let ring = Ring { total: total(&file).doing(doing)?, file };
    let mut output = vec![0; (ring.total - ring.oldest()) as usize];
    let mut position = ring.oldest();
    let mut filled = 0;
    while filled < output.len() {
        match ring.read(&mut position, &mut output[filled..]).doing(doing)? {
            0 => return Err(Error::invalid(format!("{}: it ends early", doing()))),
            length => filled += length,
        }
    }
    Ok(output)
}

fn total(file: &File) -> std::io::Result<u64> {
    let mut bytes = [0; HEADER as usize];
    match file.read_at(&mut bytes, 0)? {
        8 => Ok(u64::from_le_bytes(bytes)),
        _ => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ring: &Ring, mut position: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let mut chunk = [0; 1000];
        loop {
            match ring.read(&mut position, &mut chunk).unwrap() {
                0 => return out,
                n => out.extend_from_slice(&chunk[..n]),
            }
        }
    }

    #[test]
    fn keeps_the_last_64_kib_across_openings() {
        let dir = tempfile::tempdir().unwrap();
        let mut written = Vec::new();
        for step in [1usize, 10, 1000, 40_000, 65_536, 7, 65_535, 200_000, 3] {
            let mut ring = Ring::open(dir.path()).unwrap();
            let bytes: Vec<u8> = (0..step).map(|n| (n * 7 + step) as u8).collect();
            ring.append(&bytes).unwrap();
            written.extend_from_slice(&bytes);
            assert_eq!(ring.total(), written.len() as u64);
            let kept = &written[written.len().saturating_sub(SIZE as usize)..];
            assert_eq!(all(&ring, 0), kept);
            assert_eq!(all(&ring, ring.total() - 1), &kept[kept.len() - 1..]);
        }
    }
}
