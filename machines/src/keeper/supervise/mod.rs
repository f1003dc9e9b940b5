//! The keeper's own loop: it holds a machine and decides what happens next.
//!
//! Owns the order of a machine's life: start, readiness, health, end, exit record, clean-up, restart. Touches no byte
//! that the machine wrote ([`super::attend`] does) and makes nothing itself ([`super::starter`] does).

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use locule_runtime::Watch;
use locule_runtime::attrs::caps;
use locule_runtime::state::ProcessId;
use locule_runtime::sys::clone;
use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::{process, socket};
use locule_runtime::time::rfc3339;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::health::Checks;
use super::notify::{self, Manager};
use super::protocol::{self, inner};
use super::record::{self, Ended, Keeper, Phase};
use super::{starter, unit};
use crate::visible::View;
use crate::{Context, Definition, Home, Machine, Result, events, life};

mod attendance;
mod beginning;
mod ending;

/// What nspawn's units take for "it wants to be started again".
pub const REBOOT: i32 = 133;
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// The file that says how long the next stop may take, in milliseconds.
pub const STOP: &str = "stop";

/// A machine's init.
struct Init {
    pid: i32,
    pidfd: OwnedFd,
    /// Whether wait(2) tells us its end.
    ours: bool,
    master: Option<OwnedFd>,
    cgroup: Option<PathBuf>,
    stop_signal: i32,
    since: Instant,
    /// Tells of a lack of memory, as long as it can.
    watch: Option<Watch>,
    /// Whether a process of it was killed for that.
    oom: bool,
}

/// The end of a machine, until it is cleaned up.
struct Ending {
    ended: Ended,
    ran: Duration,
    /// When the attendant is waited for no longer; `None` once it has read all.
    drain: Option<Instant>,
    cleaner: Option<i32>,
}

struct Supervisor<'a> {
    home: &'a Home,
    machine: &'a Machine,
    definition: Definition,
    record: Keeper,
    signals: OwnedFd,
    manager: Option<Manager>,
    /// Who waits to be told how the start went.
    report: Option<OwnedFd>,
    listener: OwnedFd,
    pipes: [OwnedFd; 2],
    /// What a terminal said goes through this pipe, which outlives the attendant that took it.
    through: (OwnedFd, OwnedFd),
    notify: OwnedFd,
    attendant: Option<(i32, OwnedFd)>,
    starter: Option<(i32, OwnedFd)>,
    init: Option<Init>,
    ending: Option<Ending>,
    health: Option<Checks>,
    /// The machine's own numbers, until serving them fails.
    view: Option<View>,
    /// It was asked to end; killed at that time.
    stopping: Option<Option<Instant>>,
    /// Its owner asked, and not a service manager alone.
    asked: bool,
    /// It is ended because it is unhealthy.
    unhealthy: bool,
    /// When it is started again.
    again: Option<Instant>,
    watchdog: Option<Instant>,
    /// The machine feeds the watchdog itself.
    fed: bool,
    done: Option<i32>,
    _lock: Flock<File>,
}

/// Keeps `machine` until it has ended for good; `report` gets an empty packet once it runs, or the error.
pub fn keep(home: &Home, machine: &Machine, report: Option<OwnedFd>) -> Result<i32> {
    let lock = super::lock(machine)?;
    process::set_subreaper().doing(|| "becoming the reaper of the machine's orphans")?;
    process::block_signals();
    // Before anything is opened that could take their numbers.
    let kept = super::store::take();
    let definition = machine.definition()?;
    let run = machine.run();
    let found = beginning::adopt(home, machine, kept)?;
    let mut supervisor = Supervisor {
        home,
        machine,
        record: Keeper {
            keeper: ProcessId::of(std::process::id() as i32)?,
            phase: Phase::Starting,
            since: rfc3339(SystemTime::now()),
            init: None,
            ready: false,
            health: None,
            restarts: 0,
            unit: unit::own(),
            failure: None,
            status: None,
        },
        signals: process::signalfd().doing(|| "listening for signals")?,
        manager: Manager::of_environment()?,
        report,
        listener: listen(run)?,
        pipes: starter::pipes(run)?,
        through: nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).doing(|| "making a pipe")?,
        notify: notify::listen(run)?,
        attendant: None,
        starter: None,
        init: None,
        ending: None,
        health: None,
        view: None,
        stopping: None,
        asked: false,
        unhealthy: false,
        again: None,
        watchdog: None,
        fed: false,
        done: None,
        definition,
        _lock: lock,
    };
    supervisor.record.write(run)?;
    supervisor.make_attendant()?;
    if supervisor.definition.visible != Some(false) {
        // What it has to say against this host it says once.
        supervisor.view = View::new(&run.join(life::VIEW)).map_err(|err| trouble(&err.to_string())).ok();
        locule_runtime::warn::take().iter().for_each(|warning| trouble(warning));
    }
    // A child that makes a machine is executed, and has root's capabilities again by that.
    caps::keep_kill_alone()?;
    supervisor.watchdog = supervisor.manager.as_ref().and_then(|it| it.watchdog).map(|_| Instant::now());
    match found {
        Some(init) => supervisor.begin(init, true)?,
        None => supervisor.start()?,
    }
    let code = loop {
        if let Some(code) = supervisor.done {
            break code;
        }
        supervisor.turn()?;
    };
    supervisor.leave();
    Ok(supervisor.last_word(code))
}

fn listen(run: &Path) -> Result<OwnedFd> {
    let doing = || format!("making {}", run.join(protocol::SOCKET).display());
    let dir = openat2(AT_FDCWD, run, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
    let _ = std::fs::remove_file(run.join(protocol::SOCKET));
    socket::listen_at(&dir, protocol::SOCKET).doing(doing)
}

impl Supervisor<'_> {
    fn turn(&mut self) -> Result<()> {
        let (signals, attendant, starter, init, view, memory);
        {
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let a = self.attendant.as_ref().map(|(_, sock)| sock.as_fd());
            let s = self.starter.as_ref().map(|(_, sock)| sock.as_fd());
            let i = self.init.as_ref().filter(|init| !init.ours).map(|init| init.pidfd.as_fd());
            let v = self.view.as_ref().map(View::as_fd);
            for fd in [a, s, i, v].into_iter().flatten() {
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
            let watch = self.init.as_ref().and_then(|init| init.watch.as_ref());
            fds.extend(watch.iter().flat_map(|watch| watch.fds()));
            match poll(&mut fds, self.patience()) {
                Err(Errno::EINTR) => return Ok(()),
                other => other.doing(|| "waiting")?,
            };
            let mut ready = fds.iter().map(|fd| fd.any() == Some(true));
            signals = ready.next() == Some(true);
            attendant = a.is_some() && ready.next() == Some(true);
            starter = s.is_some() && ready.next() == Some(true);
            init = i.is_some() && ready.next() == Some(true);
            view = v.is_some() && ready.next() == Some(true);
            memory = ready.any(|on| on);
        }
        // First, as somebody waits inside. Nobody does for a view that is gone: the last numbers stand.
        if view && let Some(Err(err)) = self.view.as_mut().map(View::serve) {
            trouble(&err.to_string());
            self.view = None;
        }
        // What a starter has to say comes before the news of its end, and of what it made.
        if starter {
            self.hear_starter()?;
        }
        if attendant {
            self.hear_attendant()?;
        }
        if memory {
            self.look_at_memory();
        }
        if init && let Some(gone) = self.init.take() {
            let exit = super::exit_of_stranger(&gone.pidfd);
            self.end(gone, exit)?;
        }
        if signals {
            while let Some(signal) = process::next_signal(&self.signals).doing(|| "reading a signal")? {
                match signal {
                    libc::SIGCHLD => {}
                    libc::SIGTERM | libc::SIGINT => self.stop()?,
                    libc::SIGHUP => self.reload(),
                    _ => {}
                }
            }
            self.reap()?;
        }
        self.clock()
    }

    /// Until when the next thing is due.
    fn patience(&self) -> PollTimeout {
        let next = [
            self.stopping.flatten(),
            self.again,
            self.watchdog,
            self.ending.as_ref().and_then(|ending| ending.drain),
            self.health.as_ref().and_then(Checks::due),
        ];
        let Some(next) = next.into_iter().flatten().min() else { return PollTimeout::NONE };
        // Rounded up: a wait that ends too early is one more turn.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn clock(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.stopping.flatten()) {
            self.stopping = Some(None);
            self.kill();
        }
        if due(self.again) {
            self.again = None;
            self.start()?;
        }
        if due(self.watchdog)
            && let Some(manager) = &self.manager
        {
            if !self.fed {
                manager.tell(b"WATCHDOG=1\n", &[]);
            }
            self.watchdog = manager.watchdog.map(|period| now + period / 3);
        }
        if due(self.ending.as_ref().and_then(|ending| ending.drain)) {
            self.clean_up()?;
        }
        if let Some(health) = &mut self.health {
            let verdict = health.turn(self.home, self.machine, now);
            self.judge(verdict)?;
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<()> {
        loop {
            // A starter tells of its machine before it ends, and the machine is not known before that.
            if let Some((_, sock)) = &self.starter {
                let mut fds = [PollFd::new(sock.as_fd(), PollFlags::POLLIN)];
                if matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1)) {
                    self.hear_starter()?;
                }
            }
            let Ok(Some((pid, exit))) = clone::reap_any() else { return Ok(()) };
            if let Some(init) = self.init.take_if(|init| init.pid == pid) {
                self.end(init, Some(exit))?;
            } else if self.ending.as_ref().is_some_and(|ending| ending.cleaner == Some(pid)) {
                self.decide()?;
            } else if let Some(health) = &mut self.health
                && let Some(verdict) = health.ended(pid, exit, Instant::now())
            {
                self.judge(verdict)?;
            }
        }
    }

    fn reload(&mut self) {
        match self.machine.definition() {
            Ok(definition) => {
                let log = std::mem::replace(&mut self.definition, definition).log;
                if log != self.definition.log
                    && let Err(err) = self.change_log()
                {
                    trouble(&format!("{err}; the log stays where it was"));
                }
            }
            Err(err) => trouble(&format!("{err}; going on with what was read before")),
        }
    }

    fn phase(&mut self, phase: Phase) -> Result<()> {
        self.record.phase = phase;
        self.record.since = rfc3339(SystemTime::now());
        self.record.write(self.machine.run())
    }

    /// Tells whoever watches machines.
    fn tell_all(&self, event: &str, attributes: &[(&str, String)]) {
        events::tell(self.home.run(), self.machine.name(), event, attributes);
        locule_runtime::warn::take().iter().for_each(|warning| trouble(warning));
    }

    fn tell_manager(&self, text: &str) {
        if let Some(manager) = &self.manager {
            manager.tell(text.as_bytes(), &[]);
        }
    }

    fn leave(&mut self) {
        let run = self.machine.run();
        let _ = std::fs::remove_file(run.join(protocol::SOCKET));
        if let Some((pid, sock)) = self.attendant.take() {
            let _ = socket::send(&sock, &[inner::LEAVE], &[]);
            // It shows its consoles what they have not seen, and ends by itself.
            drop(sock);
            let _ = clone::wait(pid);
        }
        let _ = std::fs::remove_file(run.join(record::KEEPER));
    }
}

/// Something that nobody waits to be told: it goes where the keeper's errors go (the journal, or `log/keeper.log`).
fn trouble(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "locule: {} keeper: {text}", rfc3339(SystemTime::now()));
}
