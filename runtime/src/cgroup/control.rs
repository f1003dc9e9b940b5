//! Freezing, killing and removing a cgroup.
//!
//! Each waits for the kernel's own word (`cgroup.events`) with a limit in time, and never sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::fs::{self, Events};
use super::{Cgroup, systemd};
use crate::error::{Context, Error, Kind, Result};

/// How long a cgroup may take to freeze for the sake of a signal.
const FREEZE_FOR_SIGNAL: Duration = Duration::from_secs(2);

impl Cgroup {
    /// Stops all processes and returns once they stand still. On a time-out they run again.
    pub fn freeze(&self, limit: Duration) -> Result<()> {
        self.set_frozen(true)?;
        if self.wait(limit, |events| events.frozen)? {
            return Ok(());
        }
        self.set_frozen(false)?;
        let text = format!("freezing cgroup {}: not frozen after {limit:?}", self.path().display());
        Err(Error::new(Kind::State, text)
            .hint("a process in it hangs in the kernel (state D in ps); it was let run again"))
    }

    /// Lets all processes run and returns once none is held by this cgroup.
    pub fn thaw(&self, limit: Duration) -> Result<()> {
        self.set_frozen(false)?;
        if self.wait(limit, |events| !events.frozen)? {
            return Ok(());
        }
        let text = format!("thawing cgroup {}: still frozen after {limit:?}", self.path().display());
        Err(Error::new(Kind::State, text).hint("a cgroup above it is frozen: resume that one"))
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let text = if frozen { "1" } else { "0" };
        fs::write(self, "cgroup.freeze", text)
            .doing(|| format!("writing {text:?} to cgroup.freeze of cgroup {}", self.path().display()))
    }

    /// Whether all processes stand still.
    pub fn is_frozen(&self) -> Result<bool> {
        self.events().map(|events| events.frozen)
    }

    /// Whether there is no live process in it or below. A cgroup that is gone is empty.
    pub fn is_empty(&self) -> Result<bool> {
        self.events().map(|events| !events.populated)
    }

    fn events(&self) -> Result<Events> {
        match fs::events(self) {
            Err(Errno::ENODEV | Errno::ENOENT) => Ok(Events { populated: false, frozen: false }),
            other => other.doing(|| format!("reading cgroup.events of cgroup {}", self.path().display())),
        }
    }

    /// Waits until `done` holds; false after `limit`.
    pub(super) fn wait(&self, limit: Duration, done: impl Fn(Events) -> bool) -> Result<bool> {
        let doing = || format!("waiting for cgroup.events of cgroup {}", self.path().display());
        let file = match fs::open(self, "cgroup.events", OFlag::O_RDONLY) {
            Err(Errno::ENODEV | Errno::ENOENT) => {
                return Ok(done(Events { populated: false, frozen: false }));
            }
            other => other.doing(doing)?,
        };
        let end = Instant::now() + limit;
        loop {
            // Reading arms the notification, so nothing is missed between reading and polling.
            let events = match fs::read_from_start(&file) {
                Err(Errno::ENODEV) => Events { populated: false, frozen: false },
                other => fs::parse_events(&other.doing(doing)?),
            };
            if done(events) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            poll_for(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], left).doing(doing)?;
        }
    }

    /// The processes in it; with `recursive` also those in cgroups below it.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        pids_of(self.as_fd(), recursive, &mut pids)
            .doing(|| format!("reading cgroup.procs of cgroup {}", self.path().display()))?;
        Ok(pids)
    }

    /// Sends `signal` to every process in it and below.
    ///
    /// SIGKILL goes through `cgroup.kill`, which no fork escapes. For others the cgroup is frozen
    /// meanwhile, so that no process is missed and no number can come to mean another process.
    pub fn kill_all(&self, signal: Signal) -> Result<()> {
        let doing = || format!("sending {signal} to all processes of cgroup {}", self.path().display());
        if signal == Signal::SIGKILL {
            return match fs::write(self, "cgroup.kill", "1") {
                Ok(()) | Err(Errno::ENODEV) => Ok(()),
                // A threaded cgroup cannot (EOPNOTSUPP); one that is gone has no files, and no processes.
                Err(Errno::EOPNOTSUPP | Errno::ENOENT) => self.signal_each(signal),
                Err(errno) => Err(Error::sys(errno, doing())),
            };
        }
        let before = self.events()?;
        if !before.populated {
            return Ok(());
        }
        if !before.frozen {
            self.set_frozen(true)?;
            // A process that hangs in the kernel holds up freezing, but not signals.
            self.wait(FREEZE_FOR_SIGNAL, |events| events.frozen || !events.populated)?;
        }
        let sent = self.signal_each(signal);
        if !before.frozen {
            self.set_frozen(false)?;
        }
        sent
    }

    fn signal_each(&self, signal: Signal) -> Result<()> {
        for pid in self.pids(true)? {
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::sys(errno, format!("sending {signal} to process {pid}"))),
            }
        }
        Ok(())
    }

    /// Removes the cgroup and those below it. What is gone already is no error.
    ///
    /// With `kill_left` whatever still runs in it is killed. The wait for its end has a limit.
    pub fn remove(&self, kill_left: bool, limit: Duration) -> Result<()> {
        let Some((user, unit)) = self.unit() else { return self.remove_dirs(kill_left, limit) };
        if kill_left {
            self.kill_all(Signal::SIGKILL)?;
        }
        let stopped = systemd::stop_scope(user, unit);
        // With the cgroup gone systemd ends the scope by itself, also where it could not be told.
        self.remove_dirs(kill_left, limit).or_else(|err| stopped.and(Err(err)))
    }

    fn remove_dirs(&self, kill_left: bool, limit: Duration) -> Result<()> {
        let root = fs::open_mount(&self.mount)?;
        match unlinkat(&root, fs::relative(self.path()), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(errno) => {
                return Err(Error::sys(errno, format!("removing cgroup {}", self.path().display())));
            }
        }
        if kill_left {
            self.kill_all(Signal::SIGKILL)?;
        }
        if !self.wait(limit, |events| !events.populated)? {
            let pids: Vec<String> = self.pids(true)?.iter().take(5).map(i32::to_string).collect();
            let text = format!(
                "removing cgroup {}: processes still run in it after {limit:?} (pid {})",
                self.path().display(),
                pids.join(", ")
            );
            return Err(Error::new(Kind::State, text).hint("end them, or delete with --force"));
        }
        remove_tree(root.as_fd(), self.path())
    }
}

/// poll(2) once, interrupted or not.
pub(super) fn poll_for(fds: &mut [PollFd<'_>], limit: Duration) -> nix::Result<()> {
    // Rounded up: a wait of less than a millisecond must not become a busy loop.
    let millis = limit.as_millis().saturating_add(1).min(i32::MAX as u128) as i32;
    match poll(fds, PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn pids_of(dir: BorrowedFd<'_>, recursive: bool, pids: &mut Vec<i32>) -> nix::Result<()> {
    let text = match fs::read(dir, "cgroup.procs") {
        // A threaded cgroup lists threads only; the processes are in the domain's file above.
        Err(Errno::EOPNOTSUPP) => fs::read(dir, "cgroup.threads")?,
        Err(Errno::ENODEV | Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    // 0 stands for a process outside of the reader's pid namespace.
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    if recursive {
        for child in children(dir)? {
            pids_of(child.1.as_fd(), true, pids)?;
        }
    }
    Ok(())
}

/// The cgroups directly below.
fn children(dir: BorrowedFd<'_>) -> nix::Result<Vec<(PathBuf, OwnedFd)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut found = Vec::new();
    let mut listing = match Dir::openat(dir, ".", flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(found),
        other => other?,
    };
    for entry in listing.iter() {
        let entry = entry?;
        let name = Path::new(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()));
        if entry.file_type() != Some(Type::Directory) || name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        match fs::open_dir(dir, name) {
            Ok(fd) => found.push((name.to_path_buf(), fd)),
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

fn remove_tree(parent: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let doing = || format!("removing cgroup {}", path.display());
    let dir = match fs::open_dir(parent, path) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.doing(doing)?,
    };
    for (name, _) in children(dir.as_fd()).doing(doing)? {
        remove_tree(dir.as_fd(), &name).map_err(|err| err.context(doing()))?;
    }
    match unlinkat(parent, fs::relative(path), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::sys(errno, doing())),
    }
}
