//! A machine's output on its way into a log.
//!
//! Owns the form of a line, which is that of the Container Runtime Interface (`TIME STREAM F TEXT`), as Kubernetes'
//! and Podman's log readers know it: plain text for grep, one record a line. `P` marks a piece whose line goes on in
//! the next record: what was read is written at once, whether or not the line is complete. Never parses the text.

mod journal;
pub mod read;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_runtime::time::rfc3339;

use crate::definition::{Log, LogDriver};
use crate::{Context, Result};

/// The directory of logs in a machine's directory.
pub const DIR: &str = "log";
/// The newest file; older ones have `.1`, `.2` after it.
pub const FILE: &str = "output.log";
const SIZE: u64 = 10 << 20;
const FILES: u32 = 3;

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in a log.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// How far a log was written: what it takes to undo what comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The inode of the newest file; 0 for a log that is no file.
    pub file: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Writes a log.
#[derive(Debug)]
pub struct Writer(Target);

#[derive(Debug)]
enum Target {
    File(Files),
    Journal(journal::Journal),
    Nowhere,
}

impl Writer {
    /// The log that `log` asks for, of the machine called `name` in `dir`.
    pub fn open(log: &Log, name: &str, dir: &Path) -> Result<Writer> {
        Ok(Writer(match log.driver {
            LogDriver::File => {
                let (most, files) = bounds(log);
                Target::File(Files::open(dir.join(DIR), most, files)?)
            }
            LogDriver::Journald => Target::Journal(journal::Journal::open(name)?),
            LogDriver::None => Target::Nowhere,
        }))
    }

    /// The log that another process opened so, and whose descriptor ([`Writer::fds`]) it sent.
    pub fn handed(log: &Log, name: &str, dir: &Path, fd: Option<OwnedFd>) -> std::io::Result<Writer> {
        let fd = || fd.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput));
        Ok(Writer(match log.driver {
            LogDriver::File => {
                let (most, files) = bounds(log);
                Target::File(Files::on(File::from(fd()?), dir.join(DIR), most, files)?)
            }
            LogDriver::Journald => Target::Journal(journal::Journal::on(fd()?, name)?),
            LogDriver::None => Target::Nowhere,
        }))
    }

    /// What it holds open.
    pub fn fds(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Target::File(files) => Some(files.file.as_fd()),
            Target::Journal(journal) => Some(journal.as_fd()),
            Target::Nowhere => None,
        }
    }

    /// How far it is written.
    pub fn mark(&self) -> std::io::Result<Mark> {
        match &self.0 {
            // Asked anew each time: its owner may have cut it.
            Target::File(files) => {
                files.file.metadata().map(|about| Mark { file: about.ino(), length: about.len() })
            }
            Target::Journal(_) | Target::Nowhere => Ok(Mark { file: 0, length: 0 }),
        }
    }

    /// Undoes what was written after `mark`, by one [`write`](Writer::write) at most. A journal keeps what it has.
    pub fn rewind(&mut self, mark: Mark) -> std::io::Result<()> {
        match &mut self.0 {
            Target::File(files) => files.rewind(mark),
            Target::Journal(_) | Target::Nowhere => Ok(()),
        }
    }

    /// Writes what was just read from `stream`.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.0 {
            Target::File(files) => files.write(&records(stream, bytes, &rfc3339(SystemTime::now()))),
            Target::Journal(journal) => {
                pieces(bytes).try_for_each(|(text, whole)| journal.send(stream, text, whole))
            }
            Target::Nowhere => Ok(()),
        }
    }
}

/// Most bytes of a file, and most files.
fn bounds(log: &Log) -> (u64, u32) {
    (log.size.map_or(SIZE, |size| size.0), log.files.unwrap_or(FILES).max(1))
}

/// `bytes` cut into lines without their ends; the flag tells whether the line is complete.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(|piece| match piece.strip_suffix(b"\n") {
        // A terminal ends its lines by both.
        Some(line) => (line.strip_suffix(b"\r").unwrap_or(line), true),
        None => (piece, false),
    })
}

fn records(stream: Stream, bytes: &[u8], time: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 64);
    for (text, whole) in pieces(bytes) {
        for part in
            [time.as_bytes(), b" ", stream.name().as_bytes(), if whole { b" F " } else { b" P " }, text]
        {
            out.extend_from_slice(part);
        }
        out.push(b'\n');
    }
    out
}

/// A log in files, of which the newest grows.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    file: File,
    length: u64,
    most: u64,
    files: u32,
}

impl Files {
    fn open(dir: PathBuf, most: u64, files: u32) -> Result<Files> {
        let doing = || format!("opening {}", dir.join(FILE).display());
        std::fs::create_dir_all(&dir).doing(doing)?;
        let file = newest(&dir).doing(doing)?;
        Files::on(file, dir.clone(), most, files).doing(doing)
    }

    fn on(file: File, dir: PathBuf, most: u64, files: u32) -> std::io::Result<Files> {
        let length = file.metadata()?.len();
        Ok(Files { dir, file, length, most, files })
    }

    fn rewind(&mut self, mark: Mark) -> std::io::Result<()> {
        let about = self.file.metadata()?;
        self.length = match mark {
            Mark { file: 0, .. } => return Ok(()),
            Mark { file, length } if file == about.ino() && length <= about.len() => length,
            // The write needed another file, and all in there is its own.
            _ => 0,
        };
        self.file.set_len(self.length)
    }

    fn write(&mut self, records: &[u8]) -> std::io::Result<()> {
        if self.length > 0 && self.length + records.len() as u64 > self.most {
            self.rotate()?;
        }
        self.file.write_all(records)?;
        self.length += records.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let numbered = |number: u32| match number {
            0 => self.dir.join(FILE),
            number => self.dir.join(format!("{FILE}.{number}")),
        };
        for number in (0..self.files).rev() {
            let moved = match number + 1 == self.files {
                true => std::fs::remove_file(numbered(number)),
                false => std::fs::rename(numbered(number), numbered(number + 1)),
            };
            match moved {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        self.file = newest(&self.dir)?;
        self.length = 0;
        Ok(())
    }
}

fn newest(dir: &Path) -> std::io::Result<File> {
    File::options().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_record_and_a_piece_says_so() {
        let text = |bytes: &[u8]| String::from_utf8(records(Stream::Stderr, bytes, "T")).unwrap();
        assert_eq!(
            text(b"one\ntwo\r\n\nthr"),
            "T stderr F one\nT stderr F two\nT stderr F \nT stderr P thr\n"
        );
        assert_eq!(text(b"\n"), "T stderr F \n");
        assert_eq!(text(b""), "");
    }

    #[test]
    fn rotates_by_size_and_keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(DIR);
        let mut files = Files::open(log.clone(), 100, 3).unwrap();
        for number in 0..10 {
            files.write(format!("{number} {}\n", "x".repeat(57)).as_bytes()).unwrap();
        }
        let first = |name: &str| std::fs::read_to_string(log.join(name)).unwrap().chars().next();
        assert_eq!(first(FILE), Some('9'));
        assert_eq!(first("output.log.1"), Some('8'));
        assert_eq!(first("output.log.2"), Some('7'));
        assert_eq!(std::fs::read_dir(&log).unwrap().count(), 3);
        // A writer that comes later goes on where the last one ended.
        let mut files = Files::open(log.clone(), 100, 3).unwrap();
        files.write(b"more\n").unwrap();
        assert!(std::fs::read_to_string(log.join(FILE)).unwrap().ends_with("\nmore\n"));
        assert_eq!(first(FILE), Some('9'));
    }

    #[test]
    fn a_write_is_undone_whether_or_not_it_needed_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log { size: Some(crate::definition::Size(100)), ..Log::default() };
        let text = |name: &str| std::fs::read_to_string(dir.path().join(DIR).join(name)).unwrap();
        let mut writer = Writer::open(&log, "m", dir.path()).unwrap();
        writer.write(Stream::Stdout, b"one\n").unwrap();
        let before = (writer.mark().unwrap(), text(FILE));
        writer.write(Stream::Stdout, b"two\n").unwrap();
        // Who undoes it is another one than who wrote it.
        let mut writer = Writer::open(&log, "m", dir.path()).unwrap();
        writer.rewind(before.0).unwrap();
        assert_eq!(text(FILE), before.1);
        writer.write(Stream::Stdout, &[b'x'; 90]).unwrap();
        assert_eq!(text(&format!("{FILE}.1")), before.1);
        let mut writer = Writer::open(&log, "m", dir.path()).unwrap();
        writer.rewind(before.0).unwrap();
        assert_eq!(text(FILE), "");
        assert_eq!(text(&format!("{FILE}.1")), before.1);
        // A mark of no file says nothing about one.
        writer.write(Stream::Stdout, b"three\n").unwrap();
        writer.rewind(Mark { file: 0, length: 0 }).unwrap();
        assert!(text(FILE).ends_with("three\n"));
    }

    #[test]
    fn one_file_alone_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(dir.path().to_owned(), 10, 1).unwrap();
        files.write(b"12345678\n").unwrap();
        files.write(b"abc\n").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), "abc\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
