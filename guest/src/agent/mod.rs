//! The guest's process 1 at work: one thread, one poll(2) over the channel, the processes' streams, the
//! workers and the signals.

mod jobs;
mod notify;
mod requests;
mod served;
mod session;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use locule_channel::document::GuestHello;
use locule_channel::{Ending, Frame, INIT, Link, MOST_NOTIFICATIONS, Side, VERSION, Violation};
use locule_runtime::Error;
use locule_runtime::cgroup::Watch;
use locule_runtime::error::{Context, Result};
use locule_runtime::sys::clone::{Exit, reap_any};
use locule_runtime::sys::process::{adopt, block_signals, next_signal, signalfd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use serde_json::Value;

use crate::setup::{self, Place};
use crate::{early, port};
use jobs::{Act, Job};
use notify::Notify;
use served::Served;
use session::{Session, Stage};

/// How long what was killed may take to vanish before the machine goes without it.
const DEATH: Duration = Duration::from_secs(10);

/// Runs the guest until the host ends it; `channel` is the number of an inherited descriptor, without which
/// the machine's own port is used.
pub fn main(channel: Option<&str>) -> i32 {
    let place = if channel.is_some() { Place::Namespace } else { Place::Machine };
    block_signals();
    // Before anything is opened: it would be taken for it later.
    let given = channel.and_then(|number| number.parse().ok()).and_then(adopt);
    let ready = match place {
        Place::Machine => early::enter().and_then(|()| setup::run(place)),
        Place::Namespace => setup::run(place),
    };
    let done = open(place, given).and_then(|fd| {
        let mut link = Link::new(fd, Side::Host).doing(|| "setting up the channel")?;
        match ready {
            Ok(warnings) => Agent::new(link)?.run(warnings),
            Err(err) => {
                link.refuse(&Violation::new(format!("setting up the guest: {err}")));
                link.flush();
                Err(err)
            }
        }
    });
    if let Err(err) = &done {
        eprintln!("locule-guest: {err}");
    }
    nix::unistd::sync();
    if place == Place::Machine {
        // Comes back only if this is no process 1, whose end the kernel takes for a panic.
        let _ = reboot(RebootMode::RB_POWER_OFF);
    }
    i32::from(done.is_err())
}

fn open(place: Place, given: Option<OwnedFd>) -> Result<OwnedFd> {
    match (place, given) {
        (Place::Machine, _) => port::open(),
        (Place::Namespace, Some(fd)) => Ok(fd),
        (Place::Namespace, None) => Err(Error::invalid("--channel-fd: no such descriptor is open")),
    }
}

/// What a turn of the loop woke up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Link,
    Signals,
    Jobs,
    Memory,
    Notify,
    Session(u32),
}

/// The guest's state.
struct Agent {
    link: Link,
    signals: OwnedFd,
    /// At most one with an id; the order means nothing.
    sessions: Vec<Session>,
    jobs: Vec<Job>,
    containers: Vec<Served>,
    /// What the first container says.
    notify: Option<Notify>,
    greeted: bool,
    /// When to go at the latest, once that was decided.
    leaving: Option<Instant>,
}

impl Agent {
    fn new(link: Link) -> Result<Agent> {
        Ok(Agent {
            link,
            signals: signalfd().doing(|| "listening for signals")?,
            sessions: Vec::new(),
            jobs: Vec::new(),
            containers: Vec::new(),
            notify: None,
            greeted: false,
            leaving: None,
        })
    }

    fn run(mut self, warnings: Vec<String>) -> Result<()> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let hello = GuestHello {
            version: VERSION,
            software: concat!("locule-guest ", env!("CARGO_PKG_VERSION")).into(),
            kernel: kernel.trim_end().into(),
            warnings,
        };
        let _ = self.link.send(&Frame::GuestHello(hello));
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            self.link.flush();
            if self.link.has_ended() {
                self.leave();
            }
            if let Some(latest) = self.leaving
                && (Instant::now() >= latest || (self.nothing_runs() && !self.link.has_output()))
            {
                return Ok(());
            }
            let ready = self.wait()?;
            self.serve(&ready, &mut buffer);
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) -> Result<Vec<Source>> {
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut add = |source, fd, events| {
            sources.push(source);
            fds.push(PollFd::new(fd, events));
        };
        if !self.link.has_ended() {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, self.link.listens());
            events.set(PollFlags::POLLOUT, self.link.has_output());
            add(Source::Link, self.link.as_fd(), events);
        }
        for job in &self.jobs {
            add(Source::Jobs, job.fd(), PollFlags::POLLIN);
        }
        for fd in self.containers.iter().flat_map(|served| &served.watch).flat_map(Watch::fds) {
            add(Source::Memory, fd, PollFlags::POLLPRI);
        }
        if let Some(notify) = self.notify.as_ref().filter(|notify| notify.may_hear() && !self.link.is_full())
        {
            add(Source::Notify, notify.as_fd(), PollFlags::POLLIN);
        }
        for session in &self.sessions {
            for (fd, writes) in session.interests(self.link.is_full()) {
                let events = if writes { PollFlags::POLLOUT } else { PollFlags::POLLIN };
                add(Source::Session(session.id), fd, events);
            }
        }
        let limit = self.leaving.map_or(PollTimeout::NONE, |latest| {
            let left = latest.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, limit) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            other => drop(other.doing(|| "waiting for something to do")?),
        }
        let ready = fds.iter().zip(sources).filter(|(fd, _)| fd.revents().is_some_and(|on| !on.is_empty()));
        let mut ready: Vec<Source> = ready.map(|(_, source)| source).collect();
        ready.dedup();
        Ok(ready)
    }

    fn serve(&mut self, ready: &[Source], buffer: &mut [u8]) {
        for source in ready {
            match source {
                Source::Link => {
                    if self.link.listens() {
                        self.link.fill(buffer);
                    } else if !self.link.has_output() {
                        // Nothing was asked for but a hang-up.
                        self.link.end();
                    }
                    self.read_frames();
                }
                Source::Signals => {
                    while let Ok(Some(_)) = next_signal(&self.signals) {}
                    self.reap();
                }
                Source::Jobs => self.hear_jobs(),
                Source::Memory => self.look_at_memory(),
                Source::Notify => self.pass_notifications(notify::USUAL),
                Source::Session(id) => {
                    if let Some(session) = session::find(&mut self.sessions, *id) {
                        session.write_input();
                        session.read_outputs(&mut self.link, buffer);
                    }
                }
            }
        }
        for session in &mut self.sessions {
            // Where others hold a pipe open, only looking tells that it is empty.
            if session.stage == Stage::Ended {
                session.read_outputs(&mut self.link, buffer);
            }
            session.tell_input(&mut self.link);
        }
        self.sessions.retain(|session| !session.is_over());
    }

    fn read_frames(&mut self) {
        loop {
            match self.link.receive() {
                Ok(Some(frame)) => {
                    if let Err(violation) = self.obey(frame) {
                        eprintln!("locule-guest: {violation}");
                        self.link.refuse(&violation);
                    }
                    self.link.flush();
                }
                Ok(None) => return,
                Err(violation) => eprintln!("locule-guest: {violation}"),
            }
        }
    }

    /// Takes note of every child that has ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = reap_any() {
            // What a worker left behind was named before the worker ended.
            self.hear_jobs();
            if let Some(id) = self.session_of(pid) {
                self.tell_exit(id, exit);
            }
        }
    }

    fn session(&mut self, id: u32) -> Option<&mut Session> {
        session::find(&mut self.sessions, id)
    }

    fn session_of(&self, pid: i32) -> Option<u32> {
        let running = Stage::Running(pid);
        self.sessions.iter().find(|session| session.stage == running).map(|session| session.id)
    }

    fn tell_exit(&mut self, id: u32, exit: Exit) {
        self.look_at_memory();
        if id == INIT {
            // What was said right before the end counts too, and nobody is left to say more.
            self.pass_notifications(MOST_NOTIFICATIONS);
        }
        let Some(session) = self.session(id) else { return };
        session.ended();
        let (container, before) = (session.container, session.kills);
        let ending = match exit {
            Exit::Code(code) => Ending::Code(code as u32),
            Exit::Signal(signal) => Ending::Signal(signal as u32),
        };
        let out_of_memory = ending == Ending::Signal(libc::SIGKILL as u32) && self.kills(container) > before;
        let _ = self.link.send(&Frame::Exited { session: id, ending, out_of_memory });
    }

    /// Asks the workers whether they are done.
    fn hear_jobs(&mut self) {
        let mut at = 0;
        while let Some(job) = self.jobs.get_mut(at) {
            match job.outcome() {
                None => at += 1,
                Some(outcome) => {
                    let act = self.jobs.swap_remove(at).act;
                    self.finish(act, outcome);
                }
            }
        }
    }

    /// Tells the host how a worker's act went.
    fn finish(&mut self, act: Act, outcome: crate::worker::Outcome) {
        let id = match act {
            Act::Create(id) | Act::Start(id) | Act::Exec(id) => id,
            Act::Remove { request, container } => return self.removed(request, container, outcome),
        };
        let _ = std::fs::remove_file(requests::exec_file(id));
        let running = match outcome {
            Ok(running) => running,
            Err(mut failure) => {
                if let Act::Create(_) = act {
                    // The host's own runtime says so, too, of the container that it makes.
                    let name = self.known(id).map_or("", |served| &served.id);
                    if let Some(rest) = failure.message.strip_prefix(&format!("creating {name}: ")) {
                        failure.message = rest.to_owned();
                    }
                    self.forget(id);
                }
                if act != Act::Start(id) {
                    self.sessions.retain(|session| session.id != id);
                }
                let _ = self.link.send(&Frame::Failed { id, failure });
                return;
            }
        };
        if act == Act::Start(id) {
            let _ = self.link.send(&Frame::Started { session: id, running });
            return;
        }
        let Some(session) = self.session(id) else { return };
        if let Err(err) = session.made(running.pid) {
            requests::signal(running.pid, libc::SIGKILL);
            let failure = crate::worker::failure(&err);
            self.sessions.retain(|session| session.id != id);
            let _ = self.link.send(&Frame::Failed { id, failure });
            if act == Act::Create(id) {
                // It was made, and is of no use to anybody.
                self.attach_container(id);
                if let Err(err) = self.remove(None, id, &[]) {
                    eprintln!("locule-guest: {err}");
                }
            }
            return;
        }
        for signal in std::mem::take(&mut session.early) {
            requests::signal(running.pid, signal);
        }
        let _ = self.link.send(&match act {
            Act::Create(session) => Frame::Created { session, running },
            _ => Frame::Started { session: id, running },
        });
        if act == Act::Create(id) {
            self.attach_container(id);
        }
    }

    /// A worker is done with a container, or could not be.
    fn removed(&mut self, request: Option<u32>, container: u32, outcome: crate::worker::Outcome) {
        if outcome.is_ok() {
            self.forget(container);
        } else if let Some(served) = self.known(container) {
            served.removing = false;
        }
        let Some(id) = request else { return };
        let _ = self.link.send(&match outcome {
            Ok(_) => Frame::Done { request: id, answer: Value::Null },
            Err(failure) => Frame::Failed { id, failure },
        });
    }

    fn pass_notifications(&mut self, most: usize) {
        if let Some(notify) = &mut self.notify {
            notify.pass(&mut self.link, most);
        }
    }

    /// Ends everything.
    fn leave(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Instant::now() + DEATH);
        for container in self.containers.iter().flat_map(|served| &served.container) {
            let _ = container.kill(libc::SIGKILL, true);
        }
        for session in &self.sessions {
            if let Stage::Running(pid) = session.stage {
                requests::signal(pid, libc::SIGKILL);
            }
        }
    }

    fn nothing_runs(&self) -> bool {
        self.jobs.is_empty()
            && self.sessions.iter().all(|session| !matches!(session.stage, Stage::Running(_)))
    }
}
