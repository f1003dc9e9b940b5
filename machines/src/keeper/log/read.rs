//! Logs read back: the last lines, those since a moment, and what comes.
//!
//! Owns the order of the files and the way of following through rotations. Never writes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use locule_runtime::sys::clone::pidfd_open;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{DIR, FILE, Stream};
use crate::keeper::record::Keeper;
use crate::{Context, Machine, Result, watch};

/// What of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The last so many lines.
    pub tail: Option<usize>,
    /// Those at this time or later, RFC 3339 in UTC.
    pub since: Option<String>,
    /// Those before this time.
    pub until: Option<String>,
    /// And what comes, until nobody keeps the machine any more.
    pub follow: bool,
}

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was read, RFC 3339.
    pub time: &'a str,
    /// Where it came from.
    pub stream: Stream,
    /// Whether its line ends here.
    pub whole: bool,
    /// The text.
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes a line of a log apart; `None` where it is none (the disk was full, say).
    pub fn parse(line: &'a [u8]) -> Option<Record<'a>> {
        let line = line.strip_suffix(b"\n")?;
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let whole = match parts.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Record { time, stream, whole, text: parts.next()? })
    }
}

/// Reads the log of `machine`, record by record; `each` ends it by an error.
pub fn read(
    machine: &Machine,
    wanted: &Wanted,
    each: &mut dyn FnMut(&Record<'_>) -> Result<()>,
) -> Result<()> {
    let dir = machine.dir().join(DIR);
    // Before the first look, so that nothing falls between.
    let watch = if wanted.follow { Some(Watch::new(machine, &dir)?) } else { None };
    let files = files(&dir)?;
    let skip = match wanted.tail {
        Some(tail) => count(&files, wanted)?.saturating_sub(tail),
        None => 0,
    };
    let mut seen = 0;
    let mut last: Option<Tail> = None;
    let mut show = |line: &[u8]| match Record::parse(line) {
        Some(record) if within(&record, wanted) => {
            let shown = seen >= skip;
            seen += usize::from(record.whole);
            if shown { each(&record) } else { Ok(()) }
        }
        _ => Ok(()),
    };
    for (path, file) in files {
        let mut tail = Tail::new(path, file)?;
        tail.lines(&mut show)?;
        last = Some(tail);
    }
    let Some(watch) = watch else { return Ok(()) };
    loop {
        // Asked first: what was written before the end is read after it.
        let kept = watch.kept();
        follow(&dir, &mut last, &mut show)?;
        if !kept {
            return Ok(());
        }
        watch.wait()?;
    }
}

fn within(record: &Record<'_>, wanted: &Wanted) -> bool {
    // Times of one form compare as text.
    wanted.since.as_deref().is_none_or(|since| record.time >= since)
        && wanted.until.as_deref().is_none_or(|until| record.time < until)
}

fn count(files: &[(PathBuf, File)], wanted: &Wanted) -> Result<usize> {
    let mut lines = 0;
    for (path, file) in files {
        let again = File::open(path).doing(|| format!("reading {}", path.display()))?;
        // Rotated since: then the one that was opened is counted.
        let same = again.metadata().ok().zip(file.metadata().ok()).is_some_and(|(a, b)| a.ino() == b.ino());
        let file =
            if same { again } else { file.try_clone().doing(|| format!("reading {}", path.display()))? };
        Tail::new(path.clone(), file)?.lines(&mut |line| {
            lines += usize::from(
                Record::parse(line).is_some_and(|record| record.whole && within(&record, wanted)),
            );
            Ok(())
        })?;
    }
    Ok(lines)
}

/// The files, oldest first.
fn files(dir: &Path) -> Result<Vec<(PathBuf, File)>> {
    let mut found = Vec::new();
    for number in 0.. {
        let path = match number {
            0 => dir.join(FILE),
            number => dir.join(format!("{FILE}.{number}")),
        };
        match File::open(&path) {
            Ok(file) => found.push((path, file)),
            // The newest alone may be missing: between two steps of a rotation.
            Err(err) if err.kind() == std::io::ErrorKind::NotFound && number == 0 => {}
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => break,
            Err(err) => return Err(err).doing(|| format!("opening {}", path.display())),
        }
    }
    found.reverse();
    Ok(found)
}

/// Reads on in the newest file, and goes over to the next where it was rotated away.
fn follow(dir: &Path, last: &mut Option<Tail>, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let newest = dir.join(FILE);
    if let Some(tail) = last {
        tail.lines(show)?;
    }
    let Ok(file) = File::open(&newest) else { return Ok(()) };
    let doing = || format!("following {}", newest.display());
    let inode = file.metadata().doing(doing)?.ino();
    match last {
        Some(tail) if tail.inode == inode => Ok(()),
        _ => {
            // What was added to the old one between the read above and the rotation.
            if let Some(tail) = last {
                tail.lines(show)?;
            }
            let mut tail = Tail::new(newest, file)?;
            tail.lines(show)?;
            *last = Some(tail);
            Ok(())
        }
    }
}

/// A file that is read as it grows.
struct Tail {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
    /// A line that is not complete yet.
    begun: Vec<u8>,
}

impl Tail {
    fn new(path: PathBuf, file: File) -> Result<Tail> {
        let inode = file.metadata().doing(|| format!("reading {}", path.display()))?.ino();
        Ok(Tail { path, reader: BufReader::new(file), inode, begun: Vec::new() })
    }

    fn lines(&mut self, show: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        loop {
            let read = self
                .reader
                .read_until(b'\n', &mut self.begun)
                .doing(|| format!("reading {}", self.path.display()))?;
            if read == 0 || !self.begun.ends_with(b"\n") {
                return Ok(());
            }
            show(&self.begun)?;
            self.begun.clear();
        }
    }
}

/// Waits for more, and for the end of the keeper.
struct Watch {
    inotify: Inotify,
    keeper: Option<OwnedFd>,
}

impl Watch {
    fn new(machine: &Machine, dir: &Path) -> Result<Watch> {
        let doing = || format!("watching {}", dir.display());
        std::fs::create_dir_all(dir).doing(doing)?;
        let inotify = watch::new(InitFlags::IN_NONBLOCK, doing)?;
        inotify
            .add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
            .doing(doing)?;
        let keeper = Keeper::living(machine).and_then(|keeper| pidfd_open(keeper.keeper.pid).ok());
        Ok(Watch { inotify, keeper })
    }

    fn kept(&self) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        let mut fds = [PollFd::new(keeper.as_fd(), PollFlags::POLLIN)];
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
    }

    fn wait(&self) -> Result<()> {
        let mut fds = vec![PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.keeper.iter().map(|keeper| PollFd::new(keeper.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => drop(other.doing(|| "waiting for the log to grow")?),
        }
        while matches!(self.inotify.read_events(), Ok(events) if !events.is_empty()) {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Home;

    fn shown(machine: &Machine, wanted: &Wanted) -> String {
        let mut out = String::new();
        read(machine, wanted, &mut |record| {
            out.push_str(std::str::from_utf8(record.text).unwrap());
            out.push_str(if record.whole { "|" } else { "" });
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn files_are_read_from_old_to_new_and_cut_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Home::new(dir.path(), &dir.path().join("run")).machine("m").unwrap();
        let log = machine.dir().join(DIR);
        std::fs::create_dir_all(&log).unwrap();
        let write = |name: &str, text: &str| std::fs::write(log.join(name), text).unwrap();
        write("output.log.2", "2026-01-01T00:00:00Z stdout F a\n");
        write("output.log.1", "2026-01-02T00:00:00Z stderr P b\n2026-01-02T00:00:01Z stdout F  c\ngarbage\n");
        write("output.log", "2026-01-03T00:00:00Z stdout F d\n2026-01-03T00:00:01Z stdout P unfinish");
        assert_eq!(shown(&machine, &Wanted::default()), "a|b c|d|");
        assert_eq!(shown(&machine, &Wanted { tail: Some(2), ..Wanted::default() }), "b c|d|");
        assert_eq!(shown(&machine, &Wanted { tail: Some(0), ..Wanted::default() }), "");
        assert_eq!(shown(&machine, &Wanted { tail: Some(9), ..Wanted::default() }), "a|b c|d|");
        let since = Some("2026-01-02T00:00:01Z".to_owned());
        assert_eq!(shown(&machine, &Wanted { since: since.clone(), ..Wanted::default() }), " c|d|");
        assert_eq!(shown(&machine, &Wanted { until: since, ..Wanted::default() }), "a|b");
        // Nobody keeps it, so nothing more can come.
        assert_eq!(shown(&machine, &Wanted { follow: true, ..Wanted::default() }), "a|b c|d|");
    }

    #[test]
    fn no_logs_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Home::new(dir.path(), &dir.path().join("run")).machine("m").unwrap();
        assert_eq!(shown(&machine, &Wanted::default()), "");
    }
}
