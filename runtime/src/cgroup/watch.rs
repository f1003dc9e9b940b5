//! Out-of-memory events of a cgroup, and its end.
//!
//! Two kernel files and one poll(2); it owns no thread and no timer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};

use super::control::poll_for;
use super::{Cgroup, fs};
use crate::error::{Context, Result};

/// How often to look whether the cgroup still exists: the kernel drops a pending notification
/// with the file when the cgroup is removed within 10 ms of its last process's end.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The counters of `memory.events`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// How often the limit could not be kept by reclaiming.
    pub oom: u64,
    /// Processes killed for it.
    pub oom_kill: u64,
}

/// What a watch saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// So many processes more were killed for lack of memory.
    Oom(u64),
    /// The cgroup has no process any more, or is gone.
    Empty,
    /// Nothing in the time given.
    TimedOut,
    /// What was waited for beside it can be read.
    Beside,
}

/// A watch on a cgroup; see [`Cgroup::watch`].
#[derive(Debug)]
pub struct Watch {
    memory: Option<OwnedFd>,
    events: OwnedFd,
    kills: u64,
}

impl Cgroup {
    /// The counters of lacking memory; zero without the memory controller or the cgroup.
    pub fn memory_events(&self) -> Result<MemoryEvents> {
        match fs::read(self, "memory.events") {
            Ok(text) => Ok(parse(&text)),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(MemoryEvents::default()),
            Err(errno) => {
                Err(errno).doing(|| format!("reading memory.events of cgroup {}", self.path().display()))
            }
        }
    }

    /// Whether it was removed by somebody else: systemd does that to a scope whose last process ended.
    pub fn is_gone(&self) -> bool {
        matches!(fs::read(self, "cgroup.events"), Err(Errno::ENOENT | Errno::ENODEV))
    }

    /// Watches from now on.
    pub fn watch(&self) -> Result<Watch> {
        let doing = || format!("watching cgroup {}", self.path().display());
        let events = fs::open(self, "cgroup.events", OFlag::O_RDONLY).doing(doing)?;
        let memory = match fs::open(self, "memory.events", OFlag::O_RDONLY) {
            Ok(file) => Some(file),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno).doing(doing),
        };
        let mut watch = Watch { memory, events, kills: 0 };
        watch.kills = watch.read_kills().doing(doing)?.unwrap_or(0);
        Ok(watch)
    }
}

impl Watch {
    /// Waits for the next event, at most for `limit`.
    pub fn next(&mut self, limit: Duration) -> Result<Event> {
        self.next_beside(limit, None)
    }

    /// Waits for the next event, at most for `limit`, or until `beside` can be read.
    pub fn next_beside(&mut self, limit: Duration, beside: Option<BorrowedFd<'_>>) -> Result<Event> {
        self.wait(limit, beside).doing(|| "waiting for events of a cgroup")
    }

    /// Takes what was killed before it was made for news, too.
    pub fn from_start(self) -> Watch {
        Watch { kills: 0, ..self }
    }

    /// Processes killed so far, as far as they were told.
    pub fn kills(&self) -> u64 {
        self.kills
    }

    /// The descriptors to poll for `POLLPRI` in a loop of the caller's own, which then calls
    /// [`Watch::next`] with no time to wait.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.memory.iter().chain([&self.events]).map(AsFd::as_fd)
    }

    fn wait(&mut self, limit: Duration, beside: Option<BorrowedFd<'_>>) -> nix::Result<Event> {
        let end = Instant::now().checked_add(limit);
        loop {
            // Kills come first: they are what ends a container, and its last event.
            let kills = self.read_kills()?;
            if let Some(kills) = kills.filter(|kills| *kills > self.kills) {
                let new = kills - self.kills;
                self.kills = kills;
                return Ok(Event::Oom(new));
            }
            match fs::read_from_start(&self.events) {
                Ok(text) if fs::parse_events(&text).populated => {}
                Ok(_) | Err(Errno::ENODEV) => return Ok(Event::Empty),
                Err(errno) => return Err(errno),
            }
            let left = end.map_or(LOOK_AGAIN, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(Event::TimedOut);
            }
            let mut fds: Vec<PollFd<'_>> = self.fds().map(|fd| PollFd::new(fd, PollFlags::POLLPRI)).collect();
            fds.extend(beside.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            poll_for(&mut fds, left.min(LOOK_AGAIN))?;
            if beside.is_some() && fds.last().and_then(PollFd::any) == Some(true) {
                return Ok(Event::Beside);
            }
        }
    }

    /// `None` once the file is gone.
    fn read_kills(&self) -> nix::Result<Option<u64>> {
        match self.memory.as_ref().map(fs::read_from_start) {
            None | Some(Err(Errno::ENODEV)) => Ok(None),
            Some(text) => Ok(Some(parse(&text?).oom_kill)),
        }
    }
}

fn parse(text: &str) -> MemoryEvents {
    let value = |key| fs::keyed(text, key).unwrap_or(0);
    MemoryEvents { oom: value("oom"), oom_kill: value("oom_kill") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_is_not_taken_for_oom_kill() {
        let text = "low 0\nhigh 1\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(parse(text), MemoryEvents { oom: 3, oom_kill: 2 });
    }
}
