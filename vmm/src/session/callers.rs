//! Later calls on the container: who is connected to the control socket, and what they wait for.
//!
//! The words are the runtime's own ([`locule_runtime::isolation::control`]). Each connection asks for one thing; one
//! that has a process executed lasts as long as that, and its end is the end of the process. One that was told of kills may
//! ask again.

use std::os::fd::{AsFd, OwnedFd};

use locule_channel::document::{Exec, Failure, FailureKind, Processes, Update};
use locule_channel::{Ending, Frame, INIT, MOST_SESSIONS, Scope};
use locule_runtime::contract;
use locule_runtime::error::{Context, Error, Kind, Result};
use locule_runtime::isolation::control::{Answer, Ask, Connection, Member};
use locule_runtime::spec::ConsoleSize;
use locule_runtime::sys::socket;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;

use super::Session;
use super::process::Process;

/// A caller.
#[derive(Debug)]
pub(super) struct Caller {
    pub connection: Connection,
    /// The container that it asks about.
    pub container: u32,
    /// What was asked for.
    pub wants: Wants,
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// It has not said yet.
    Unknown,
    /// The start, then the end, of this session.
    Process(u32),
    /// The creation, the start and the end of this container, for which it stands.
    Container(u32),
    /// The end of the last of this container.
    Gone(u32),
    /// The answer to this request.
    Processes(u32),
    /// The answer to this request.
    Statistics(u32),
    /// The answer to this request.
    Update(u32),
    /// A kill more than so many.
    Kills(u64),
}

impl Wants {
    fn id(self) -> Option<u32> {
        match self {
            Wants::Unknown | Wants::Gone(_) | Wants::Kills(_) => None,
            Wants::Process(id)
            | Wants::Container(id)
            | Wants::Processes(id)
            | Wants::Statistics(id)
            | Wants::Update(id) => Some(id),
        }
    }
}

/// A failure in the guest in the runtime's form: the same kind, and the same words.
pub(super) fn error(failure: Failure) -> Error {
    let kind = match failure.kind {
        FailureKind::Invalid => Kind::Invalid,
        FailureKind::Unsupported => Kind::Unsupported,
        FailureKind::NotFound => Kind::NotFound,
        FailureKind::Exists => Kind::Exists,
        FailureKind::State => Kind::State,
        FailureKind::NotRunning => Kind::NotRunning,
        FailureKind::NotExecutable => Kind::NotExecutable,
        FailureKind::CommandNotFound => Kind::CommandNotFound,
        FailureKind::System => Kind::System,
    };
    Error::new(kind, failure.message)
}

/// Who may ask: the user who made the socket, this process's own, and root.
///
/// Users that this process's user namespace does not map all look alike here; the directory of the
/// socket keeps them apart.
fn may_ask(listener: &OwnedFd, peer: &OwnedFd) -> Result<()> {
    let doing = || "looking at who connected to the control socket";
    let peer = getsockopt(peer, PeerCredentials).doing(doing)?.uid();
    let maker = getsockopt(listener, PeerCredentials).doing(doing)?.uid();
    if peer == 0 || peer == maker || peer == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(Error::invalid(format!("user {peer} may not ask this container's machine for anything")))
}

impl Session {
    /// Takes one connection in.
    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.control else { return };
        // What went away meanwhile is no matter.
        let Ok(peer) = socket::accept(listener) else { return };
        let allowed = may_ask(listener, &peer);
        let connection = Connection::over(peer);
        if let Err(err) = allowed {
            let _ = connection.answer(&Answer::Failed(err));
            return;
        }
        let key = self.take_number();
        self.callers.insert(key, Caller { connection, container: INIT, wants: Wants::Unknown });
    }

    /// Hears one caller.
    pub(super) fn hear(&mut self, key: u32) {
        let Some(caller) = self.callers.get(&key) else { return };
        let (ask, fds) = match caller.connection.hear() {
            Ok(Some(heard)) => heard,
            Ok(None) => return self.lose(key),
            Err(err) => {
                let _ = caller.connection.answer(&Answer::Failed(err));
                return self.lose(key);
            }
        };
        let outcome = match (caller.wants, ask) {
            (Wants::Process(session) | Wants::Container(session), Ask::Signal(number)) => {
                let frame = Frame::Signal { session, scope: Scope::Process, signal: number.unsigned_abs() };
                self.send(&frame)
            }
            (Wants::Process(session) | Wants::Container(session), Ask::Resize(rows, columns)) => {
                self.send(&Frame::Resize { session, rows, columns })
            }
            (Wants::Container(session), Ask::Start) => self.send(&Frame::Start { session }),
            (Wants::Unknown, ask) => self.ask(key, ask, fds),
            _ => Err(Error::invalid("this connection has asked for something else already")),
        };
        if let Err(err) = outcome {
            self.answer(key, &Answer::Failed(err));
            self.lose(key);
        }
    }

    fn ask(&mut self, key: u32, ask: Ask, fds: Vec<OwnedFd>) -> Result<()> {
        let id = self.take_number();
        let container = self.callers.get(&key).map_or(INIT, |caller| caller.container);
        let wants = match ask {
            Ask::In(name) => {
                let number = self.containers.find(&name).ok_or_else(contract::not_running)?;
                if let Some(caller) = self.callers.get_mut(&key) {
                    caller.container = number;
                }
                return Ok(());
            }
            Ask::Create(newcomer) => Wants::Container(self.take_in(*newcomer, fds)?),
            Ask::Gone(name) => match self.containers.find(&name) {
                Some(number) => Wants::Gone(number),
                None => {
                    self.answer(key, &Answer::Done);
                    return Ok(());
                }
            },
            Ask::Exec(mut process) => {
                let stdio = <[OwnedFd; 3]>::try_from(fds)
                    .map_err(|_| Error::invalid("a process to execute needs three descriptors"))?;
                if self.processes.len() >= MOST_SESSIONS {
                    return Err(Error::new(
                        Kind::System,
                        format!("{MOST_SESSIONS} processes are served already"),
                    ));
                }
                let made = Process::new(id, stdio, process.terminal);
                // In the document: the program may ask for its terminal's size as soon as it runs.
                if let Some((rows, columns)) = made.size() {
                    process.console_size = Some(ConsoleSize { height: rows.into(), width: columns.into() });
                }
                let document = serde_json::to_value(process).doing(|| "encoding the process")?;
                let exec = Exec { process: document, container, cgroup: None };
                self.send(&Frame::Exec { session: id, exec })?;
                self.processes.insert(id, made);
                Wants::Process(id)
            }
            Ask::Processes => {
                self.send(&Frame::Ps { request: id, container })?;
                Wants::Processes(id)
            }
            Ask::Statistics => {
                self.send(&Frame::Stats { request: id, container })?;
                Wants::Statistics(id)
            }
            Ask::Update(resources) => {
                // The size of the machine follows the container that has it.
                if let Some(limits) = self.limits.as_ref().filter(|_| container == INIT) {
                    (limits.0)(&resources)?;
                }
                let resources = serde_json::to_value(resources).doing(|| "encoding the limits")?;
                self.send(&Frame::Update { request: id, update: Update { container, resources } })?;
                Wants::Update(id)
            }
            Ask::Kills(known) => {
                let kills = self.containers.kills(container);
                if known.is_none_or(|known| kills > known) {
                    self.answer(key, &Answer::Kills(kills));
                    return Ok(());
                }
                Wants::Kills(known.unwrap_or(kills))
            }
            Ask::Signal(_) | Ask::Resize(..) | Ask::Start => {
                return Err(Error::invalid("a signal, a size or a start without a process that it is for"));
            }
        };
        if let Some(caller) = self.callers.get_mut(&key) {
            caller.wants = wants;
        }
        Ok(())
    }

    pub(super) fn answer(&mut self, key: u32, answer: &Answer) {
        if let Some(caller) = self.callers.get(&key)
            && let Err(err) = caller.connection.answer(answer)
        {
            // What is too long for one packet can still be told to be so.
            let _ = caller.connection.answer(&Answer::Failed(err));
        }
    }

    /// A caller went away: with a process of its own, that ends.
    pub(super) fn lose(&mut self, key: u32) {
        let Some(caller) = self.callers.remove(&key) else { return };
        if let Wants::Process(session) | Wants::Container(session) = caller.wants
            && let Some(process) = self.processes.get_mut(&session)
            && !process.is_done()
        {
            process.hang_up(&mut self.link);
            let signal = libc::SIGKILL as u32;
            let _ = self.link.send(&Frame::Signal { session, scope: Scope::Process, signal });
        }
        if let Wants::Container(number) = caller.wants {
            self.abandon(number);
        }
    }

    fn caller_of(&self, id: u32) -> Option<(u32, Wants)> {
        self.callers
            .iter()
            .find(|(_, caller)| caller.wants.id() == Some(id))
            .map(|(key, caller)| (*key, caller.wants))
    }

    /// Tells whoever waits for session `id`, if anybody does.
    pub(super) fn tell(&mut self, id: u32, answer: &Answer) {
        if let Some((key, _)) = self.caller_of(id) {
            self.answer(key, answer);
        }
    }

    /// What was asked for as `id` failed.
    pub(super) fn tell_failed(&mut self, id: u32, failure: Failure) {
        if let Some((key, _)) = self.caller_of(id) {
            self.answer(key, &Answer::Failed(error(failure)));
            self.callers.remove(&key);
        }
        self.container_failed(id);
    }

    /// The answer to request `id`.
    pub(super) fn tell_done(&mut self, id: u32, told: Value) {
        let Some((key, wants)) = self.caller_of(id) else { return };
        let answer = match wants {
            Wants::Processes(_) => match Frame::processes(told) {
                Ok(list) => Answer::Processes(members(list)),
                Err(violation) => Answer::Failed(super::breach(violation)),
            },
            Wants::Statistics(_) => Answer::Statistics(Box::new(told)),
            _ => Answer::Done,
        };
        self.answer(key, &answer);
        self.callers.remove(&key);
    }

    /// The guest's kernel has killed in a container for lack of memory: whoever waits for that is told, and may ask again.
    pub(super) fn tell_kills(&mut self, container: u32) {
        let kills = self.containers.kills(container);
        let waits = |caller: &Caller| {
            caller.container == container && matches!(caller.wants, Wants::Kills(known) if kills > known)
        };
        let keys: Vec<u32> =
            self.callers.iter().filter(|(_, caller)| waits(caller)).map(|(key, _)| *key).collect();
        for key in keys {
            self.answer(key, &Answer::Kills(kills));
            if let Some(caller) = self.callers.get_mut(&key) {
                caller.wants = Wants::Unknown;
            }
        }
    }

    /// Tells callers whose process has ended, and lets go of what is over.
    pub(super) fn tell_ends(&mut self) {
        let done: Vec<(u32, Ending)> = self
            .processes
            .iter()
            .filter(|(_, process)| process.is_done())
            .filter_map(|(id, process)| process.ending.map(|(ending, _)| (*id, ending)))
            .collect();
        for (id, ending) in done {
            if let Some((key, wants)) = self.caller_of(id) {
                let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
                let answer = match ending {
                    Ending::Code(code) => Answer::Exited(number(code)),
                    Ending::Signal(signal) => Answer::Killed(number(signal)),
                };
                if let Wants::Container(id) = wants {
                    self.container_ended(id, key, answer);
                    continue;
                }
                self.answer(key, &answer);
                self.callers.remove(&key);
            }
        }
        self.processes.retain(|id, process| *id == INIT || !process.is_over());
    }
}

fn members(list: Processes) -> Vec<Member> {
    list.processes
        .into_iter()
        .map(|process| Member {
            pid: process.inner_pid,
            ppid: process.parent,
            uid: process.uid,
            state: process.state,
            cpu: process.cpu,
            rss: process.resident,
            command: process.command,
        })
        .collect()
}

impl AsFd for Caller {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
