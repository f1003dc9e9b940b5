//! What happens to a running container: lack of memory, and its end.
//!
//! Owns the order of the two that tell: the cgroup's files, and the monitor of a virtual machine for what its own kernel
//! does. It owns no thread and no timer.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use crate::cgroup;
use crate::container::Container;
use crate::error::{Kind, Result};
use crate::isolation::control::{Answer, Ask, Connection};

/// What [`Watch::next`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The kernel, or a virtual machine's own, killed in the container for lack of memory.
    Oom,
    /// The time given to `next` is over.
    Timeout,
    /// The container has ended.
    Stopped,
}

/// A view of a running container's events.
#[derive(Debug)]
pub struct Watch {
    cgroup: cgroup::Watch,
    /// Until its end.
    machine: Option<Machine>,
    inner_kills: u64,
}

/// What the kernel of a virtual machine does, as its monitor tells.
#[derive(Debug)]
struct Machine {
    monitor: Connection,
    /// What was told; `None` before the first answer, which is no news.
    kills: Option<u64>,
}

impl Container {
    /// Watches from now on for its end and for a lack of memory.
    pub fn watch(&self) -> Result<Watch> {
        Watch::new(self, self.needed_cgroup("watch")?.watch()?, None)
    }

    /// Watches for its end and for a lack of memory, and takes what was killed before for news, too.
    pub fn watch_from_start(&self) -> Result<Watch> {
        Watch::new(self, self.needed_cgroup("watch")?.watch()?.from_start(), Some(0))
    }
}

impl Watch {
    fn new(container: &Container, cgroup: cgroup::Watch, kills: Option<u64>) -> Result<Watch> {
        let machine = if container.is_vm() { Machine::open(container, kills)? } else { None };
        Ok(Watch { cgroup, machine, inner_kills: 0 })
    }

    /// Waits for the next event, for at most `limit`.
    pub fn next(&mut self, limit: Duration) -> Result<Notice> {
        let end = Instant::now().checked_add(limit);
        loop {
            // What was told is news first: a kill may be what ends the container.
            if self.hear_machine()? {
                return Ok(Notice::Oom);
            }
            let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
            let beside = self.machine.as_ref().map(|machine| machine.monitor.as_fd());
            match self.cgroup.next_beside(left, beside)? {
                cgroup::Event::Oom(_) => return Ok(Notice::Oom),
                cgroup::Event::TimedOut => return Ok(Notice::Timeout),
                cgroup::Event::Beside => {}
                // The monitor has ended, and what it told before that can be read still.
                cgroup::Event::Empty if self.hear_machine()? => return Ok(Notice::Oom),
                cgroup::Event::Empty => return Ok(Notice::Stopped),
            }
        }
    }

    /// What to poll in a loop of the caller's own, which then calls [`Watch::next`] with no time to wait.
    pub fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let machine =
            self.machine.iter().map(|machine| PollFd::new(machine.monitor.as_fd(), PollFlags::POLLIN));
        self.cgroup.fds().map(|fd| PollFd::new(fd, PollFlags::POLLPRI)).chain(machine)
    }

    /// How often it was killed for lack of memory since the container started, as far as it was told.
    pub fn kills(&self) -> u64 {
        self.cgroup.kills() + self.inner_kills
    }

    /// Hears what the monitor has told; whether there is news among it.
    fn hear_machine(&mut self) -> Result<bool> {
        while let Some(machine) = &mut self.machine {
            if !machine.monitor.has_answered(Duration::ZERO)? {
                return Ok(false);
            }
            let Some(kills) = machine.hear()? else {
                self.machine = None;
                return Ok(false);
            };
            self.inner_kills = kills;
            let known = machine.kills.replace(kills);
            machine.ask()?;
            if known.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Machine {
    /// Asks the monitor of `container`; `None` without one.
    fn open(container: &Container, kills: Option<u64>) -> Result<Option<Machine>> {
        let monitor = match Connection::to(container) {
            Err(err) if err.kind() == Kind::NotRunning => return Ok(None),
            other => other?,
        };
        let machine = Machine { monitor, kills };
        machine.ask()?;
        Ok(Some(machine))
    }

    /// Asks for more than is known. The answer comes when it comes: a paused monitor hears nothing.
    fn ask(&self) -> Result<()> {
        match self.monitor.ask(&Ask::Kills(self.kills), &[]) {
            // Its end is heard where answers are.
            Err(err) if matches!(err.errno(), Some(Errno::EPIPE | Errno::ECONNRESET)) => Ok(()),
            other => other,
        }
    }

    /// How often its kernel has killed; `None` when the monitor is gone.
    fn hear(&self) -> Result<Option<u64>> {
        match self.monitor.answered()? {
            Some(Answer::Kills(kills)) if self.kills.is_none_or(|known| kills > known) => Ok(Some(kills)),
            Some(Answer::Failed(err)) => Err(err),
            Some(other) => Err(other.out_of_place()),
            None => Ok(None),
        }
    }
}
