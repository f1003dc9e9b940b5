//! What happened to machines: lines of JSON in a file of the runtime directory, for whoever looks or waits.
//!
//! Owns `RUN/.machines/.events` and its older part `.events.1`. Each act appends one line under a lock on the file; a
//! full one becomes the older part. Nobody has to run for that, and nobody waits for a reader.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use locule_runtime::time::rfc3339;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};

use crate::{Context, Result, watch};

const FILE: &str = ".events";
const OLDER: &str = ".events.1";
/// Bytes after which a file becomes the older part.
const FULL: u64 = 4 << 20;

/// One thing that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// To which machine.
    pub machine: String,
    /// What, in one word: `create`, `start`, `stop`, `die`, `oom`, `restart`, `set`, `rename`, `remove`, …
    pub event: String,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Tells that `event` happened to `machine`, whose state root is `run`. A failure costs a warning: the act itself went
/// through.
pub fn tell(run: &Path, machine: &str, event: &str, attributes: &[(&str, String)]) {
    let event = Event {
        time: rfc3339(SystemTime::now()),
        machine: machine.to_owned(),
        event: event.to_owned(),
        attributes: attributes.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
    };
    if let Err(err) = append(&run.join(".machines"), &event, FULL) {
        locule_runtime::warn::warn(err.to_string());
    }
}

fn append(dir: &Path, event: &Event, full: u64) -> Result<()> {
    let path = dir.join(FILE);
    let doing = || format!("writing {}", path.display());
    let mut line = serde_json::to_vec(event).doing(doing)?;
    line.push(b'\n');
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).doing(doing)?;
    loop {
        let mut options = File::options();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&path).doing(doing)?;
        file.lock().doing(doing)?;
        let about = file.metadata().doing(doing)?;
        // Another may have made it the older part while this one waited for the lock.
        if std::fs::metadata(&path).map_or(true, |now| now.ino() != about.ino()) {
            continue;
        }
        if about.len() > 0 && about.len() + line.len() as u64 > full {
            std::fs::rename(&path, dir.join(OLDER)).doing(doing)?;
            continue;
        }
        return file.write_all(&line).doing(doing);
    }
}

/// A reader of events, from the oldest that are kept to those that are still to come.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    changes: Inotify,
    file: Option<BufReader<File>>,
    /// The older part is read first.
    older: bool,
    /// The file read now is the older part, and gets no more lines.
    left: bool,
    partial: String,
}

impl Reader {
    /// Reads the events of the state root `run`: those that are kept, too, or only those that come.
    pub fn new(run: &Path, kept: bool) -> Result<Reader> {
        let dir = run.join(".machines");
        let doing = || format!("watching {}", dir.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir).doing(doing)?;
        let changes = watch::new(InitFlags::IN_NONBLOCK, doing)?;
        let what = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        changes.add_watch(&dir, what).doing(doing)?;
        let mut reader = Reader {
            dir: dir.clone(),
            changes,
            file: None,
            older: kept,
            left: false,
            partial: String::new(),
        };
        if !kept {
            reader.file = reader.open(FILE)?;
            if let Some(file) = &mut reader.file {
                file.seek(SeekFrom::End(0)).doing(doing)?;
            }
        }
        Ok(reader)
    }

    /// Readable when there may be another event.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// The next event; `None` when there is none yet. A line that is none is passed over.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            if self.file.is_none() {
                self.file = match std::mem::take(&mut self.older) {
                    true => self.open(OLDER)?.or(self.open(FILE)?),
                    false => self.open(FILE)?,
                };
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            file.read_line(&mut self.partial).doing(|| format!("reading {}", self.dir.display()))?;
            if self.partial.ends_with('\n') {
                let line = std::mem::take(&mut self.partial);
                match serde_json::from_str(&line) {
                    Ok(event) => return Ok(Some(event)),
                    Err(_) => continue,
                }
            }
            // Its end so far. Once it is the older part nobody writes to it: then one more look finds its real end.
            if self.left {
                (self.file, self.left) = (None, false);
                continue;
            }
            self.left = self.was_replaced()?;
            if self.left {
                continue;
            }
            if self.changes.read_events().is_err() {
                return Ok(None);
            }
        }
    }

    fn was_replaced(&self) -> Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        let doing = || format!("looking at {}", self.dir.display());
        let ours = file.get_ref().metadata().doing(doing)?.ino();
        Ok(std::fs::metadata(self.dir.join(FILE)).is_ok_and(|now| now.ino() != ours))
    }

    fn open(&self, name: &str) -> Result<Option<BufReader<File>>> {
        let path = self.dir.join(name);
        match File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err).doing(|| format!("opening {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn event(number: usize) -> Event {
        Event { time: "t".into(), machine: format!("m{number}"), event: "start".into(), ..Event::default() }
    }

    fn rest(reader: &mut Reader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_event().unwrap()).map(|event| event.machine).collect()
    }

    #[test]
    fn events_come_in_order_over_a_rotation() {
        let run = tempfile::tempdir().unwrap();
        let dir = run.path().join(".machines");
        let mut follower = Reader::new(run.path(), false).unwrap();
        assert_eq!(follower.next_event().unwrap(), None);
        let names = |range: std::ops::Range<usize>| range.map(|n| format!("m{n}")).collect::<Vec<_>>();
        // A line has about 45 bytes: three fit.
        (0..5).for_each(|n| append(&dir, &event(n), 150).unwrap());
        assert!(dir.join(OLDER).exists());
        assert_eq!(rest(&mut Reader::new(run.path(), true).unwrap()), names(0..5));
        assert_eq!(rest(&mut Reader::new(run.path(), false).unwrap()), names(0..0));
        // The follower saw nothing of that before, and has not opened what is the older part by now.
        let seen = rest(&mut follower);
        assert_eq!(seen, names(3..5), "only what the current file holds");
        append(&dir, &event(5), 150).unwrap();
        let mut fds = [PollFd::new(follower.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(60_000u16)), Ok(1));
        (6..9).for_each(|n| append(&dir, &event(n), 150).unwrap());
        assert_eq!(rest(&mut follower), names(5..9));
    }

    #[test]
    fn what_is_no_event_is_passed_over() {
        let run = tempfile::tempdir().unwrap();
        tell(run.path(), "web1", "die", &[("exit", "3".into())]);
        let path = run.path().join(".machines").join(FILE);
        File::options().append(true).open(&path).unwrap().write_all(b"nonsense\n{\"time\"").unwrap();
        let mut reader = Reader::new(run.path(), true).unwrap();
        let first = reader.next_event().unwrap().unwrap();
        assert_eq!((first.machine.as_str(), first.event.as_str()), ("web1", "die"));
        assert_eq!(first.attributes["exit"], "3");
        assert_eq!(reader.next_event().unwrap(), None);
        // The half line becomes whole.
        let end = b":\"t\",\"machine\":\"db\",\"event\":\"start\"}\n";
        File::options().append(true).open(&path).unwrap().write_all(end).unwrap();
        assert_eq!(reader.next_event().unwrap().unwrap().machine, "db");
    }

    #[test]
    fn many_writers_lose_nothing() {
        let run = tempfile::tempdir().unwrap();
        let dir = run.path().join(".machines");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let dir = &dir;
                scope.spawn(move || {
                    (0..50).for_each(|n| append(dir, &event(writer * 100 + n), 6000).unwrap())
                });
            }
        });
        // 200 lines of 47 bytes are one rotation at 6000.
        assert_eq!(rest(&mut Reader::new(run.path(), true).unwrap()).len(), 200);
    }
}
