//! The host's side of a VM container's channel: the container's own process and any number beside it, each with
//! descriptors of this host as its standard ones; signals; later calls; other containers that come to the machine.
//!
//! One thread, one poll(2). It owns the channel, the descriptors and the control socket; it knows nothing of
//! virtual machines, so that a guest in a pid namespace is served the same. The guest is not trusted: what it
//! sends is bounded and checked, and a breach of the protocol is the end of the session.
//!
//! The caller blocks every signal in all threads before: they are read here, and go to the workload, but for
//! a change of the terminal's size. Descriptors 0 to 2 of the process itself should be closed or /dev/null, else
//! whoever is at their other ends does not see when the workload closes its own.
//!
//! ```text
//! let mut session = Session::new(channel, stdio, terminal, Some(control), Some(ending))?;
//! session.greet(HostHello { ... })?;            waits for the guest to be up
//! session.create(id, config)?;                  the container waits inside
//! session.serve_until(gate)?;                   signals, exec and the rest work meanwhile
//! session.network(interface)?; session.start()?;
//! let status = session.run_until_exit()?;       what the workload ended with
//! session.shut_down()?;                         writes back, until the channel or the machine ends
//! ```

mod callers;
mod containers;
mod endpoint;
mod process;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use locule_channel::document::{Create, GuestHello, HostHello, Interface, Running};
use locule_channel::{Ending, Frame, INIT, Link, MOST_NOTIFICATIONS, Scope, Side, VERSION, Violation};
use locule_runtime::error::{Context, Error, Kind, Result};
use locule_runtime::isolation::control::Answer;
use locule_runtime::isolation::notify::Way;
use locule_runtime::spec::Resources;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::Value;

use callers::Caller;
use containers::Containers;
pub use containers::Trees;
use process::Process;

/// How the container's own process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// With which code, or by which signal.
    pub ending: Ending,
    /// Whether the guest's kernel killed it for lack of memory.
    pub out_of_memory: bool,
}

/// Why [`Session::serve_until`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woke {
    /// The descriptor has something.
    Ready,
    /// The container's own process ended meanwhile.
    Ended(Status),
}

/// An answer to the session's own requests.
#[derive(Debug)]
enum Word {
    Made(Running),
    Done(Value),
    Failed(Error),
}

/// What a turn woke up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Link,
    Signals,
    Machine,
    Listener,
    Caller(u32),
    Process(u32),
    Notifications,
    Asked,
}

fn gone() -> Error {
    Error::new(Kind::NotRunning, "the virtual machine ended")
}

/// What the guest did wrong.
fn breach(violation: impl std::fmt::Display) -> Error {
    Error::new(Kind::System, format!("the guest: {violation}"))
}

/// What is to be done when other limits shall hold.
struct Limits(Box<Act>);

type Act = dyn Fn(&Resources) -> Result<()>;

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Limits")
    }
}

/// A session; see the module's text.
#[derive(Debug)]
pub struct Session {
    link: Link,
    signals: SignalFd,
    control: Option<OwnedFd>,
    limits: Option<Limits>,
    notify: Option<Way>,
    machine: Option<OwnedFd>,
    machine_ended: bool,
    processes: BTreeMap<u32, Process>,
    callers: BTreeMap<u32, Caller>,
    words: BTreeMap<u32, Word>,
    /// Requests of the session's own, whose answers nobody else gets.
    own: Vec<u32>,
    guest: Option<GuestHello>,
    /// The container is there: what signals and later calls want before that waits.
    made: bool,
    containers: Containers,
    next: u32,
    buffer: Vec<u8>,
}

impl Session {
    /// A session over `channel`, a stream socket. `stdio` are the workload's standard descriptors; with `terminal`
    /// the first is one, set raw, and read; the second is written. `control` is the listening socket of later calls;
    /// `machine` becomes readable when the machine has ended.
    pub fn new(
        channel: OwnedFd,
        stdio: [OwnedFd; 3],
        terminal: bool,
        control: Option<OwnedFd>,
        machine: Option<OwnedFd>,
    ) -> Result<Session> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&SigSet::all(), flags).doing(|| "listening for signals")?;
        Ok(Session {
            link: Link::new(channel, Side::Guest).doing(|| "setting up the channel to the guest")?,
            signals,
            control,
            limits: None,
            notify: None,
            machine,
            machine_ended: false,
            processes: BTreeMap::from([(INIT, Process::new(INIT, stdio, terminal))]),
            callers: BTreeMap::new(),
            words: BTreeMap::new(),
            own: Vec::new(),
            guest: None,
            made: false,
            containers: Containers::default(),
            next: INIT,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Has `act` called with the limits of the workload before an update of them is passed on to the guest.
    pub fn on_limits(&mut self, act: impl Fn(&Resources) -> Result<()> + 'static) {
        self.limits = Some(Limits(Box::new(act)));
    }

    /// Has what the container says by sd_notify(3) sent that way; to be called before [`Session::create`].
    pub fn pass_notifications(&mut self, way: Way) {
        self.notify = Some(way);
    }

    /// Waits for the guest's first word and answers it.
    pub fn greet(&mut self, mut hello: HostHello) -> Result<GuestHello> {
        let guest = self.until(&[], |session| session.guest.take())?;
        if guest.version != VERSION {
            return Err(breach(Violation::new(format!(
                "it speaks version {} of it, and this host {VERSION}: use the locule-guest of this locule",
                guest.version
            ))));
        }
        hello.version = VERSION;
        self.send(&Frame::HostHello(hello))?;
        Ok(guest)
    }

    /// Has the container made; it then waits for [`Session::start`].
    pub fn create(&mut self, id: &str, config: Value) -> Result<Running> {
        self.own.push(INIT);
        self.keep_first(id);
        let notify = self.notify.is_some();
        let create = Create { id: id.to_owned(), config, notify };
        self.send(&Frame::Create { session: INIT, create })?;
        self.tell_size(INIT);
        let made = self.made()?;
        self.made = true;
        Ok(made)
    }

    /// Has the container's own process executed.
    pub fn start(&mut self) -> Result<Running> {
        self.own.push(INIT);
        self.send(&Frame::Start { session: INIT })?;
        self.made()
    }

    /// Sets an interface of the guest up.
    pub fn network(&mut self, interface: Interface) -> Result<()> {
        let request = self.take_number();
        self.own.push(request);
        self.send(&Frame::Network { request, interface })?;
        self.word(request).map(drop)
    }

    /// What the guest's kernel counts of the container, in the form of the runtime's statistics.
    pub fn stats(&mut self) -> Result<Value> {
        let request = self.take_number();
        self.own.push(request);
        self.send(&Frame::Stats { request, container: INIT })?;
        match self.word(request)? {
            Word::Done(answer) => Ok(answer),
            _ => Err(breach(Violation::new("an answer to another question"))),
        }
    }

    /// Sets the guest's wall clock.
    pub fn set_time(&mut self, seconds: u64, nanoseconds: u32) -> Result<()> {
        self.send(&Frame::SetTime { seconds, nanoseconds })
    }

    /// How often the guest's kernel has killed in the container for lack of memory.
    pub fn kills(&self) -> u64 {
        self.containers.kills(INIT)
    }

    /// Serves until `fd` is readable.
    pub fn serve_until(&mut self, fd: BorrowedFd<'_>) -> Result<Woke> {
        loop {
            if let Some(status) = self.status() {
                return Ok(Woke::Ended(status));
            }
            self.check_link()?;
            self.check_machine()?;
            if self.turn(&[fd])? {
                return Ok(Woke::Ready);
            }
        }
    }

    /// Serves until the container's own process has ended and what it wrote was passed on.
    pub fn run_until_exit(&mut self) -> Result<Status> {
        self.until(&[], Session::status)
    }

    /// Has the guest end, and waits until it did.
    pub fn shut_down(&mut self) -> Result<()> {
        self.send(&Frame::Shutdown)?;
        while !self.link.has_ended() && !self.machine_ended {
            self.turn(&[])?;
        }
        Ok(())
    }

    fn status(&mut self) -> Option<Status> {
        let process = self.processes.get(&INIT)?;
        let (ending, out_of_memory) = process.ending?;
        // A machine that has ended sends no more.
        let over = process.is_done() || self.machine_ended || self.link.has_ended();
        over.then_some(Status { ending, out_of_memory })
    }

    fn made(&mut self) -> Result<Running> {
        match self.word(INIT)? {
            Word::Made(running) => Ok(running),
            _ => Err(breach(Violation::new("an answer to another question"))),
        }
    }

    fn word(&mut self, id: u32) -> Result<Word> {
        let word = self.until(&[], |session| session.words.remove(&id));
        self.own.retain(|own| *own != id);
        match word? {
            Word::Failed(err) => Err(err),
            word => Ok(word),
        }
    }

    /// Serves until `answer` has one.
    fn until<T>(
        &mut self,
        asked: &[BorrowedFd<'_>],
        mut answer: impl FnMut(&mut Session) -> Option<T>,
    ) -> Result<T> {
        loop {
            if let Some(answer) = answer(self) {
                return Ok(answer);
            }
            self.check_link()?;
            self.check_machine()?;
            self.turn(asked)?;
        }
    }

    /// Queues a frame for the guest.
    pub(self) fn send(&mut self, frame: &Frame) -> Result<()> {
        self.link.send(frame).map_err(|violation| {
            Error::unsupported(format!("asking the guest: {violation}")).hint("the document is too long")
        })
    }

    fn check_link(&self) -> Result<()> {
        // The machine's end is not the session's to explain.
        if self.link.has_ended() { Err(gone()) } else { Ok(()) }
    }

    fn check_machine(&self) -> Result<()> {
        if self.machine_ended {
            return Err(gone());
        }
        Ok(())
    }

    pub(self) fn take_number(&mut self) -> u32 {
        loop {
            self.next = self.next.checked_add(1).unwrap_or(INIT + 1);
            let next = self.next;
            let used = self.processes.contains_key(&next)
                || self.callers.contains_key(&next)
                || self.containers.has(next);
            if !used {
                return next;
            }
        }
    }

    /// Tells the guest the size of a terminal.
    pub(self) fn tell_size(&mut self, session: u32) {
        if let Some((rows, columns)) = self.processes.get(&session).and_then(Process::size) {
            let _ = self.link.send(&Frame::Resize { session, rows, columns });
        }
    }

    /// Waits once and does what there is to do; whether one of `asked` has something.
    fn turn(&mut self, asked: &[BorrowedFd<'_>]) -> Result<bool> {
        self.link.flush();
        let ready = self.wait(asked)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let served = self.serve(&ready, &mut buffer);
        self.buffer = buffer;
        served?;
        self.notify();
        self.tell_ends();
        self.link.flush();
        Ok(ready.contains(&Source::Asked))
    }

    fn wait(&self, asked: &[BorrowedFd<'_>]) -> Result<Vec<Source>> {
        let full = self.link.is_full();
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        let mut add = |source, fd, events| {
            sources.push(source);
            fds.push(PollFd::new(fd, events));
        };
        if !self.link.has_ended() {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, self.link.has_output());
            add(Source::Link, self.link.as_fd(), events);
        }
        if self.made {
            add(Source::Signals, self.signals.as_fd(), PollFlags::POLLIN);
        }
        if let Some(machine) = self.machine.as_ref().filter(|_| !self.machine_ended) {
            add(Source::Machine, machine.as_fd(), PollFlags::POLLIN);
        }
        if !full {
            if let Some(control) = self.control.as_ref().filter(|_| self.made) {
                add(Source::Listener, control.as_fd(), PollFlags::POLLIN);
            }
            for (key, caller) in &self.callers {
                add(Source::Caller(*key), caller.as_fd(), PollFlags::POLLIN);
            }
            if let Some(fd) = self.notify.as_ref().and_then(Way::awaited) {
                add(Source::Notifications, fd, PollFlags::POLLOUT);
            }
        }
        for (id, process) in &self.processes {
            for (fd, writes) in process.interests(full) {
                let events = if writes { PollFlags::POLLOUT } else { PollFlags::POLLIN };
                add(Source::Process(*id), fd, events);
            }
            for fd in process.watched() {
                add(Source::Process(*id), fd, PollFlags::empty());
            }
        }
        for fd in asked {
            add(Source::Asked, *fd, PollFlags::POLLIN);
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            other => drop(other.doing(|| "waiting for the guest")?),
        }
        let ready = fds.iter().zip(sources).filter(|(fd, _)| fd.revents().is_some_and(|on| !on.is_empty()));
        let mut ready: Vec<Source> = ready.map(|(_, source)| source).collect();
        ready.dedup();
        Ok(ready)
    }

    fn serve(&mut self, ready: &[Source], buffer: &mut [u8]) -> Result<()> {
        for source in ready {
            match source {
                Source::Link => {
                    self.link.fill(buffer);
                    self.read_frames()?;
                }
                Source::Signals => self.pass_signals(),
                Source::Machine => {
                    self.machine_ended = true;
                    // What it has said before its end counts.
                    self.link.fill(buffer);
                    self.read_frames()?;
                }
                Source::Listener => self.accept(),
                Source::Caller(key) => self.hear(*key),
                Source::Process(id) => {
                    if let Some(process) = self.processes.get_mut(id) {
                        process.pump(&mut self.link, buffer);
                    }
                }
                // Every turn looks after these.
                Source::Notifications | Source::Asked => {}
            }
        }
        Ok(())
    }

    /// Passes signals on to the workload, as far as they are somebody's.
    fn pass_signals(&mut self) {
        while !self.link.is_full()
            && let Ok(Some(info)) = self.signals.read_signal()
        {
            let sent_by_somebody = info.ssi_code <= 0;
            match info.ssi_signo as i32 {
                libc::SIGWINCH if self.processes.get(&INIT).is_some_and(|init| init.size().is_some()) => {
                    self.tell_size(INIT);
                }
                // The kernel's own words to this process.
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG | libc::SIGWINCH if !sent_by_somebody => {}
                _ => {
                    let signal = info.ssi_signo;
                    let _ = self.link.send(&Frame::Signal { session: INIT, scope: Scope::Process, signal });
                }
            }
        }
    }

    /// Passes notifications on; a guest that does not hear that is not served any further.
    fn notify(&mut self) {
        let Some(way) = self.notify.as_mut().filter(|_| !self.link.is_full()) else { return };
        for _ in 0..way.push() {
            let _ = self.link.send(&Frame::Notified);
        }
    }

    fn read_frames(&mut self) -> Result<()> {
        while let Some(frame) = self.link.receive().map_err(breach)? {
            self.take(frame)?;
        }
        Ok(())
    }

    /// Takes in one frame. Those for a session or a request that is over are nobody's.
    fn take(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::GuestHello(hello) => self.guest = Some(hello),
            Frame::Created { session, running } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.running = true;
                }
                self.keep(session, Word::Made(running.clone()));
                self.container_made(session, running);
            }
            Frame::Started { session, running } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.running = true;
                }
                self.keep(session, Word::Made(running));
                self.tell(session, &Answer::Started);
            }
            Frame::Failed { id, failure } => {
                if id != INIT {
                    self.processes.remove(&id);
                }
                if self.own.contains(&id) {
                    self.keep(id, Word::Failed(callers::error(failure)));
                } else if !self.container_gone(id) {
                    self.tell_failed(id, failure);
                }
            }
            Frame::Done { request, answer } => {
                if self.own.contains(&request) {
                    self.keep(request, Word::Done(answer));
                } else if !self.container_gone(request) {
                    self.tell_done(request, answer);
                }
            }
            Frame::Data { session, stream, bytes } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.take(stream, &bytes, &mut self.link).map_err(breach)?;
                }
            }
            Frame::Eof { session, stream } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.end(stream);
                }
            }
            Frame::Credit { session, bytes, .. } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.grant(bytes).map_err(breach)?;
                }
            }
            Frame::Close { session, .. } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.close_input();
                }
            }
            Frame::Exited { session, ending, out_of_memory } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.ended(ending, out_of_memory);
                }
            }
            Frame::Flushed { session } => {
                if let Some(process) = self.processes.get_mut(&session) {
                    process.flushed();
                }
            }
            Frame::OutOfMemory { container, kills } => {
                if self.containers.count_kills(container, kills) {
                    self.tell_kills(container);
                }
            }
            Frame::Notify { message } => match &mut self.notify {
                Some(way) if way.held() < MOST_NOTIFICATIONS => way.take(&message),
                Some(_) => return Err(breach(Violation::new("more notifications than may be under way"))),
                None => return Err(breach(Violation::new("a notification that nobody asked for"))),
            },
            Frame::Refused { reason } => {
                return Err(Error::new(Kind::System, format!("the guest refuses to go on: {reason}")));
            }
            _ => return Err(breach(Violation::new("a frame that only the host sends"))),
        }
        Ok(())
    }

    fn keep(&mut self, id: u32, word: Word) {
        if self.own.contains(&id) {
            self.words.insert(id, word);
        }
    }
}
