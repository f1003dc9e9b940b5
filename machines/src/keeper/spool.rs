//! What was taken from a machine and is not yet in its log.
//!
//! read(2) loses what it took with a process that is killed before it wrote. Here the kernel itself moves the bytes
//! (splice(2)) into a file of the runtime directory, whose length therefore says what was taken; its header says how
//! long log and ring were before. Whoever comes next sets both back to that and writes them again: each byte is in a
//! log of files once, whenever kill -9 comes. A journal takes nothing back, and may have the last piece twice.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};

use super::log::{Mark, Stream};
use super::protocol::LONGEST;
use crate::{Context, Result};

/// The file's name.
const FILE: &str = "output.spool";
/// Stream, file and length of the log, total of the ring: eight bytes each, little-endian.
const HEADER: usize = 32;

/// The state before the bytes in the spool were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Where the bytes come from.
    pub stream: Stream,
    /// How far the log was written.
    pub log: Mark,
    /// How much the ring had ever held.
    pub ring: u64,
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    file: File,
}

impl Spool {
    /// Opens the spool in the runtime directory `run`, made where missing.
    pub fn open(run: &Path) -> Result<Spool> {
        let path = run.join(FILE);
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).doing(|| format!("opening {}", path.display()))?;
        Ok(Spool { file })
    }

    /// Its descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What somebody took and did not [`settle`](Spool::settle).
    pub fn pending(&self) -> std::io::Result<Option<(Before, Vec<u8>)>> {
        let length = self.file.metadata()?.len() as usize;
        if length <= HEADER {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        self.file.read_exact_at(&mut header, 0)?;
        let mut bytes = vec![0; length - HEADER];
        self.file.read_exact_at(&mut bytes, HEADER as u64)?;
        Ok(Some((Before::of(&header), bytes)))
    }

    /// Takes what `pipe` holds, at most [`LONGEST`] bytes: none at its end.
    ///
    /// # Errors
    /// `EAGAIN` where it holds nothing, `ENOSPC` where the spool has no room; then nothing was taken.
    pub fn take<'a>(
        &self,
        before: &Before,
        pipe: impl AsFd,
        bytes: &'a mut [u8; LONGEST],
    ) -> nix::Result<&'a [u8]> {
        let failed = |err: std::io::Error| err.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        self.file.write_all_at(&before.header(), 0).map_err(failed)?;
        let mut at = HEADER as i64;
        let length = splice(pipe, None, &self.file, Some(&mut at), LONGEST, SpliceFFlags::SPLICE_F_NONBLOCK)?;
        self.file.read_exact_at(&mut bytes[..length], HEADER as u64).map_err(failed)?;
        Ok(&bytes[..length])
    }

    /// What was taken is written.
    pub fn settle(&self) -> std::io::Result<()> {
        self.file.set_len(HEADER as u64)
    }
}

impl Before {
    fn header(&self) -> [u8; HEADER] {
        let words = [u64::from(self.stream == Stream::Stderr), self.log.file, self.log.length, self.ring];
        let mut header = [0; HEADER];
        for (place, word) in header.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        header
    }

    fn of(header: &[u8; HEADER]) -> Before {
        let (words, _) = header.as_chunks::<8>();
        let [stream, file, length, ring] = [0, 1, 2, 3].map(|number| u64::from_le_bytes(words[number]));
        let stream = if stream == 0 { Stream::Stdout } else { Stream::Stderr };
        Before { stream, log: Mark { file, length }, ring }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_not_settled_is_found_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, mut end) = std::io::pipe().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        assert_eq!(spool.pending().unwrap(), None);
        let before = Before { stream: Stream::Stderr, log: Mark { file: 7, length: 1 << 40 }, ring: 9 };
        let mut bytes = [0; LONGEST];
        assert_eq!(spool.take(&before, &pipe, &mut bytes), Err(Errno::EAGAIN));
        assert_eq!(spool.pending().unwrap(), None, "nothing was there");
        end.write_all(b"text").unwrap();
        assert_eq!(spool.take(&before, &pipe, &mut bytes), Ok(&b"text"[..]));
        let again = Spool::open(dir.path()).unwrap();
        assert_eq!(again.pending().unwrap(), Some((before, b"text".to_vec())));
        again.settle().unwrap();
        assert_eq!(Spool::open(dir.path()).unwrap().pending().unwrap(), None);
    }
}
