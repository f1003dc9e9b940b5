//! The keeper's own loop: it holds a machine and decides what happens next.
//!
//! Owns the order of a machine's life: start, readiness, health, end, exit record, clean-up, restart. Touches no byte
//! that the machine wrote ([`super::attend`] does) and makes nothing itself ([`super::starter`] does).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use locule_runtime::attrs::caps;
use locule_runtime::state::ProcessId;
use locule_runtime::sys::clone::{self, Cloned, Exit, clone3, pidfd_open, pidfd_signal};
use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::{process, socket};
use locule_runtime::time::rfc3339;
use locule_runtime::{Status, Store};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::attend::{self, Attendant};
use super::health::{Checks, Verdict};
use super::log::{Stream, Writer};
use super::notify::{self, Manager};
use super::protocol::{self, LONGEST, inner, packet};
use super::record::{self, EXIT, Ended, Health, Keeper, Phase};
use super::ring::Ring;
use super::starter::{self, Answer, Started};
use super::{child, group, jail, unit};
use crate::definition::{BootStart, Ready, RestartPolicy};
use crate::visible::View;
use crate::{Context, Definition, Error, Home, Kind, Machine, Result, boot, events, life};

/// What nspawn's units take for "it wants to be started again".
pub const REBOOT: i32 = 133;
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A machine that ran for so long did not fail in a row.
const STEADY: Duration = Duration::from_secs(60);
/// How long the attendant may take to read what is left.
const DRAIN: Duration = Duration::from_secs(5);
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
    let found = adopt(home, machine, kept)?;
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
    Ok(code)
}

/// A machine that runs without a keeper: its init, and the terminal from whoever holds it.
fn adopt(home: &Home, machine: &Machine, kept: super::store::Kept) -> Result<Option<Init>> {
    let Ok(store) = Store::open(home.run()) else { return Ok(None) };
    let Ok(container) = store.load(machine.name()) else { return Ok(None) };
    if !matches!(container.status()?, Status::Running | Status::Paused) {
        // Nobody saw it end; what can still be known is written down, success is never invented.
        if !machine.run().join(EXIT).exists() && container.state().complete {
            let exit = kept.init.as_ref().and_then(super::exit_of_stranger);
            Ended::new(exit, false, false, rfc3339(SystemTime::now())).write(machine.run())?;
        }
        return Ok(None);
    }
    let (pid, pidfd) = container.init()?;
    let master = match super::take_terminal(machine.run())? {
        Some(master) => Some(master),
        None => kept.terminal,
    };
    Ok(Some(Init {
        pid,
        pidfd,
        ours: false,
        master,
        cgroup: container.state().cgroup.as_ref().map(|record| record.path.clone()),
        stop_signal: life::stop_signal_of(home, machine, &container),
        since: Instant::now(),
    }))
}

fn listen(run: &Path) -> Result<OwnedFd> {
    let doing = || format!("making {}", run.join(protocol::SOCKET).display());
    let dir = openat2(AT_FDCWD, run, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
    let _ = std::fs::remove_file(run.join(protocol::SOCKET));
    socket::listen_at(&dir, protocol::SOCKET).doing(doing)
}

impl Supervisor<'_> {
    fn turn(&mut self) -> Result<()> {
        let (signals, attendant, starter, init, view);
        {
            let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let a = self.attendant.as_ref().map(|(_, sock)| sock.as_fd());
            let s = self.starter.as_ref().map(|(_, sock)| sock.as_fd());
            let i = self.init.as_ref().filter(|init| !init.ours).map(|init| init.pidfd.as_fd());
            let v = self.view.as_ref().map(View::as_fd);
            for fd in [a, s, i, v].into_iter().flatten() {
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
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

    fn start(&mut self) -> Result<()> {
        self.phase(Phase::Starting)?;
        let (ours, theirs) = socket::pair().doing(|| "making a socket for the starter")?;
        // The name has the machine's binary sealed before it starts.
        let spawned = child(self.home, "create", self.machine)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .doing(|| "running the starter")?;
        self.starter = Some((spawned.id() as i32, ours));
        Ok(())
    }

    fn hear_starter(&mut self) -> Result<()> {
        let Some((_, sock)) = self.starter.take() else { return Ok(()) };
        let mut text = vec![0; 64 * 1024];
        let (length, fds) = socket::recv(&sock, &mut text).doing(|| "listening to the starter")?;
        let answer: Answer = match length {
            0 => Err(Error::new(Kind::System, format!("starting {}: the starter died", self.machine.name()))
                .hint("see the kernel's log")),
            length => serde_json::from_slice(&text[..length]).doing(|| "listening to the starter")?,
        };
        match answer {
            Ok(Started { pid, cgroup, stop_signal, terminal }) => {
                let pidfd = pidfd_open(pid).doing(|| format!("opening process {pid}"))?;
                let master = fds.into_iter().next().filter(|_| terminal);
                let init =
                    Init { pid, pidfd, ours: true, master, cgroup, stop_signal, since: Instant::now() };
                self.begin(init, false)
            }
            Err(err) => self.fail(err),
        }
    }

    /// It could not be started.
    fn fail(&mut self, err: Error) -> Result<()> {
        self.record.failure = Some(err.to_string());
        let first = self.report.is_some() || self.record.restarts == 0;
        if first || self.stopping.is_some() {
            if let Some(report) = self.report.take() {
                let text = serde_json::to_vec(&err).doing(|| "telling the error")?;
                let _ = socket::send(&report, &text, &[]);
            } else {
                trouble(&err.to_string());
            }
            self.tell_manager(&format!("STATUS={err}\n"));
            self.done = Some(1);
            return Ok(());
        }
        trouble(&err.to_string());
        self.pause(1)
    }

    /// A machine runs: just started, or found.
    fn begin(&mut self, init: Init, adopted: bool) -> Result<()> {
        self.record.init = Some(init.pid);
        self.record.failure = None;
        if !adopted {
            let _ = std::fs::remove_file(self.machine.run().join(EXIT));
        }
        if let Some(manager) = &self.manager {
            manager.store(super::store::INIT, init.pidfd.as_fd());
            if let Some(master) = &init.master {
                manager.store(super::store::TERMINAL, master.as_fd());
            }
        }
        self.init = Some(init);
        if self.definition.boot.start == BootStart::Last
            && let Err(err) = boot::remember(self.machine, true)
        {
            trouble(&err.to_string());
        }
        self.introduce();
        self.open_view();
        self.health =
            self.definition.health.as_ref().filter(|health| !health.command.is_empty()).map(Checks::new);
        self.record.health = self.health.as_ref().map(|_| Health::Starting);
        // What a found machine said when it was started, its old keeper has heard.
        self.record.ready = adopted || self.definition.boot.ready == Ready::Started;
        self.phase(Phase::Running)?;
        let event = if adopted { "adopt" } else { "start" };
        self.tell_all(event, &[("pid", self.record.init.unwrap_or_default().to_string())]);
        if let Some(report) = self.report.take() {
            let _ = socket::send(&report, &[0], &[]);
        }
        if self.record.ready {
            self.tell_manager("READY=1\nSTATUS=running\n");
        } else {
            self.tell_manager("STATUS=started, not ready yet\n");
        }
        match self.stopping {
            // Asked while it was started.
            Some(_) => self.stop(),
            None => Ok(()),
        }
    }

    /// Serves the machine's numbers; without that it sees those of its start.
    fn open_view(&mut self) {
        let group = self.init.as_ref().and_then(|init| init.cgroup.as_deref()).map(group);
        if let (Some(view), Some(group)) = (&mut self.view, group)
            && let Err(err) = view.begin(&group)
        {
            trouble(&err.to_string());
            self.view = None;
        }
    }

    /// Gives the attendant what the machine that runs has.
    fn introduce(&self) {
        let (Some((_, sock)), Some(init)) = (&self.attendant, &self.init) else { return };
        let mut fds = vec![init.pidfd.as_fd()];
        fds.extend(init.master.as_ref().map(AsFd::as_fd));
        let kind: &[u8] = if init.master.is_some() { b"terminal" } else { b"" };
        let _ = socket::send(sock, &packet(inner::BEGIN, kind), &fds);
    }

    fn ready(&mut self) -> Result<()> {
        if self.record.ready {
            return Ok(());
        }
        self.record.ready = true;
        self.tell_manager("READY=1\nSTATUS=running\n");
        self.record.write(self.machine.run())
    }

    fn judge(&mut self, verdict: Verdict) -> Result<()> {
        let health = match verdict {
            Verdict::Same => return Ok(()),
            Verdict::Healthy => Health::Healthy,
            Verdict::Unhealthy => Health::Unhealthy,
        };
        self.record.health = Some(health);
        self.record.write(self.machine.run())?;
        self.tell_all(if health == Health::Healthy { "healthy" } else { "unhealthy" }, &[]);
        if health == Health::Healthy && self.definition.boot.ready == Ready::Healthy {
            self.ready()?;
        }
        let restarts = self.definition.health.as_ref().is_some_and(|health| health.restart);
        if health == Health::Unhealthy && restarts && self.stopping.is_none() && !self.unhealthy {
            self.unhealthy = true;
            self.tell_manager("STATUS=unhealthy, restarting\n");
            self.ask_to_end(self.definition.init.stop_timeout.map_or(STOP_TIMEOUT, |span| span.0));
        }
        Ok(())
    }

    fn hear_attendant(&mut self) -> Result<()> {
        let Some((_, sock)) = &self.attendant else { return Ok(()) };
        let mut bytes = [0; LONGEST];
        let length = match socket::recv(sock, &mut bytes) {
            // Its end is seen by wait(2).
            Ok((0, _)) | Err(_) => {
                self.attendant = None;
                return self.make_attendant_again();
            }
            Ok((length, _)) => length,
        };
        let rest = &bytes[1..length];
        match bytes[0] {
            inner::DRAINED if self.ending.as_ref().is_some_and(|ending| ending.drain.is_some()) => {
                self.clean_up()?;
            }
            inner::NOTIFY => {
                // Sifted again: the attendant has touched what the machine wrote.
                let said = notify::sift(rest);
                self.fed |= said.watchdog;
                let ours = self.definition.boot.ready;
                let lines = match said.ready && ours != Ready::Notify {
                    true => without_ready(&said.lines),
                    false => said.lines,
                };
                if let Some(manager) = &self.manager {
                    manager.tell(&lines, &[]);
                }
                if said.ready && ours == Ready::Notify {
                    self.ready()?;
                }
            }
            inner::TROUBLE => trouble(&String::from_utf8_lossy(rest)),
            _ => {}
        }
        Ok(())
    }

    fn make_attendant(&mut self) -> Result<()> {
        let run = self.machine.run();
        let (ours, theirs) = socket::pair().doing(|| "making a socket for the attendant")?;
        let dup = |fd: &OwnedFd| fd.try_clone().doing(|| "making the attendant");
        let given = Attendant {
            run: run.to_owned(),
            keeper: Some(theirs),
            listener: dup(&self.listener)?,
            pipes: [(Stream::Stdout, dup(&self.pipes[0])?), (Stream::Stderr, dup(&self.pipes[1])?)],
            notify: dup(&self.notify)?,
            log: Writer::open(&self.definition.log, self.machine.name(), self.machine.dir())?,
            ring: Ring::open(run)?,
        };
        match clone3(0, None).doing(|| "making the attendant")? {
            Cloned::Parent(pid, _) => {
                self.attendant = Some((pid, ours));
                self.introduce();
                Ok(())
            }
            Cloned::Child => {
                let mut kept: Vec<BorrowedFd<'_>> = vec![given.listener.as_fd(), given.notify.as_fd()];
                kept.extend(given.keeper.iter().map(AsFd::as_fd));
                kept.extend(given.pipes.iter().map(|(_, pipe)| pipe.as_fd()));
                kept.extend(given.log.fds());
                kept.push(given.ring.as_fd());
                let code = match process::close_all_but(3, &kept).doing(|| "making the attendant") {
                    Ok(()) => match jail::enter() {
                        Ok(()) => attend::serve(given),
                        Err(err) => {
                            trouble(&err.to_string());
                            1
                        }
                    },
                    Err(_) => 1,
                };
                process::exit_now(code)
            }
        }
    }

    /// The attendant died: another takes its place, at once if it lived for a while.
    fn make_attendant_again(&mut self) -> Result<()> {
        if self.ending.as_ref().is_some_and(|ending| ending.drain.is_some()) {
            self.clean_up()?;
        }
        trouble("the attendant died; another one takes its place");
        self.make_attendant()
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

    /// Asks the machine to end, for its owner.
    fn stop(&mut self) -> Result<()> {
        let again = matches!(self.stopping, Some(Some(_)));
        self.again = None;
        let asked = std::fs::read_to_string(self.machine.run().join(STOP)).ok();
        let _ = std::fs::remove_file(self.machine.run().join(STOP));
        self.asked |= asked.is_some();
        let asked = asked.and_then(|text| text.trim().parse().ok()).map(Duration::from_millis);
        let own = self.definition.init.stop_timeout.map(|span| span.0);
        let timeout = asked.or(own).unwrap_or(STOP_TIMEOUT);
        match (&self.init, &self.starter, &self.ending) {
            (Some(_), _, _) if again && asked.is_none() => self.kill(),
            (Some(_), _, _) => {
                self.phase(Phase::Stopping)?;
                self.tell_manager(&format!(
                    "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={}\n",
                    (timeout + Duration::from_secs(15)).as_micros()
                ));
                self.ask_to_end(timeout);
            }
            // It may wait for the lock that whoever stops the machine holds; what it made goes with it.
            (None, Some((pid, _)), _) => {
                let pid = *pid;
                self.stopping = Some(None);
                self.starter = None;
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
                let _ = clone::wait(pid);
                let ended = Ended::new(None, false, true, rfc3339(SystemTime::now()));
                self.ending = Some(Ending { ended, ran: Duration::ZERO, drain: None, cleaner: None });
                self.clean_up()?;
            }
            (None, None, Some(_)) => self.stopping = Some(None),
            (None, None, None) => self.done = Some(0),
        }
        Ok(())
    }

    fn ask_to_end(&mut self, timeout: Duration) {
        let Some(init) = &self.init else { return };
        let at = Instant::now() + timeout;
        // A frozen machine hears nothing.
        if let Some(path) = &init.cgroup {
            let _ = std::fs::write(group(path).join("cgroup.freeze"), "0");
        }
        let _ = pidfd_signal(&init.pidfd, init.stop_signal);
        self.stopping = Some(Some(at));
    }

    fn kill(&mut self) {
        let Some(init) = &self.init else { return };
        let whole = init.cgroup.as_ref().map(|path| std::fs::write(group(path).join("cgroup.kill"), "1"));
        if !matches!(whole, Some(Ok(()))) {
            let _ = pidfd_signal(&init.pidfd, libc::SIGKILL);
        }
    }

    /// Init has ended. How is written down before anything else.
    fn end(&mut self, init: Init, exit: Option<Exit>) -> Result<()> {
        let oom = init.cgroup.as_deref().is_some_and(killed_for_memory);
        let stopped = self.stopping.is_some() && !self.unhealthy;
        let ended = Ended::new(exit, oom, stopped, rfc3339(SystemTime::now()));
        if let Err(err) = ended.write(self.machine.run()) {
            trouble(&format!("{err}; it ended: {}", ended.told()));
        }
        if ended.oom {
            self.tell_all("oom", &[]);
        }
        self.tell_all("die", &[("exit", ended.shell_code().to_string()), ("asked", stopped.to_string())]);
        self.record.init = None;
        self.record.ready = false;
        self.record.health = None;
        self.health = None;
        if self.stopping.is_some() {
            self.stopping = Some(None);
        }
        if let Some(manager) = &self.manager {
            manager.forget(super::store::TERMINAL);
            manager.forget(super::store::INIT);
        }
        let drain = match &self.attendant {
            Some((_, sock))
                if socket::send(sock, &packet(inner::END, ended.told().as_bytes()), &[]).is_ok() =>
            {
                Some(Instant::now() + DRAIN)
            }
            _ => None,
        };
        let waits = drain.is_some();
        self.ending = Some(Ending { ended, ran: init.since.elapsed(), drain, cleaner: None });
        if waits { Ok(()) } else { self.clean_up() }
    }

    fn clean_up(&mut self) -> Result<()> {
        let Some(ending) = &mut self.ending else { return Ok(()) };
        ending.drain = None;
        let spawned = child(self.home, "clean", self.machine)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .doing(|| "running the clean-up")?;
        ending.cleaner = Some(spawned.id() as i32);
        Ok(())
    }

    /// It has ended and is cleaned up: is that all?
    fn decide(&mut self) -> Result<()> {
        let Some(Ending { ended, ran, .. }) = self.ending.take() else { return Ok(()) };
        let unhealthy = std::mem::take(&mut self.unhealthy);
        if unhealthy {
            self.stopping = None;
        } else if self.stopping.is_some() {
            // With the host it ends without having been stopped.
            if (self.asked || !unit::host_goes_down())
                && let Err(err) = boot::remember(self.machine, false)
            {
                trouble(&err.to_string());
            }
            self.done = Some(0);
            return Ok(());
        }
        if ran >= STEADY {
            self.record.restarts = 0;
        }
        self.reload();
        let policy = &self.definition.restart;
        let wanted = match policy.policy {
            _ if ended.reboot || unhealthy => true,
            _ if ended.halted() => false,
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => ended.failed(),
            RestartPolicy::Always => true,
        };
        let spent = !ended.reboot && policy.max.is_some_and(|max| self.record.restarts >= max);
        if !wanted || spent {
            self.done = Some(ended.shell_code());
            return Ok(());
        }
        if ended.reboot {
            if self.record.unit.is_some() {
                // systemd starts the unit again, with what has changed of it.
                self.done = Some(REBOOT);
                return Ok(());
            }
            return self.start();
        }
        self.pause(1)
    }

    /// Starts it again, after a pause that doubles each time.
    fn pause(&mut self, more: u32) -> Result<()> {
        if let Some(max) = self.definition.restart.max
            && self.record.restarts >= max
        {
            self.done = Some(1);
            return Ok(());
        }
        let first = self.definition.restart.delay.map_or(FIRST_PAUSE, |span| span.0);
        let pause = pause(first, self.record.restarts);
        self.record.restarts += more;
        self.again = Some(Instant::now() + pause);
        self.tell_manager(&format!("STATUS=starting again in {} s\n", pause.as_secs()));
        self.tell_all(
            "restart",
            &[("after", format!("{}s", pause.as_secs())), ("count", self.record.restarts.to_string())],
        );
        self.phase(Phase::Waiting)
    }

    fn reload(&mut self) {
        match self.machine.definition() {
            Ok(definition) => self.definition = definition,
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

/// How long to wait before start number `count` in a row.
fn pause(first: Duration, count: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(count.min(20)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE.max(first))
}

/// Whether the kernel killed a process of the cgroup for lack of memory.
fn killed_for_memory(path: &Path) -> bool {
    let text = std::fs::read_to_string(group(path).join("memory.events")).unwrap_or_default();
    text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
}

fn without_ready(lines: &[u8]) -> Vec<u8> {
    lines
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| *line != b"READY=1\n")
        .flatten()
        .copied()
        .collect()
}

/// Something that nobody waits to be told: it goes where the keeper's errors go (the journal, or `log/keeper.log`).
fn trouble(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "locule: {} keeper: {text}", rfc3339(SystemTime::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let seconds: Vec<u64> = (0..12).map(|count| pause(Duration::from_secs(1), count).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(pause(Duration::from_millis(100), 3), Duration::from_millis(800));
        assert_eq!(pause(Duration::from_secs(1), 4_000_000_000), LONGEST_PAUSE);
        assert_eq!(pause(Duration::from_secs(600), 2), Duration::from_secs(600), "the owner's own wins");
    }

    #[test]
    fn ready_alone_is_taken_out() {
        assert_eq!(without_ready(b"STATUS=x\nREADY=1\nERRNO=2\n"), b"STATUS=x\nERRNO=2\n");
    }
}
