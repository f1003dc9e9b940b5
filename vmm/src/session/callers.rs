//! Later calls on the container: who is connected to the control socket, and what they wait for.
//!
//! The words are the runtime's own ([`locule_runtime::isolation::control`]). Each connection asks for one thing; one
//! that has a process executed lasts as long as that, and its end is the end of the process. One that was told of kills may
//! ask again.

use std::os::fd::{AsFd, OwnedFd};

use locule_channel::document::{Exec, Failure, FailureKind, Processes};
use locule_channel::{Ending, Frame, MOST_SESSIONS, Scope};
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
            Wants::Unknown | Wants::Kills(_) => None,
            Wants::Process(id) | Wants::Processes(id) | Wants::Statistics(id) | Wants::Update(id) => Some(id),
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
        self.callers.insert(key, Caller { connection, wants: Wants::Unknown });
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
            (Wants::Process(session), Ask::Signal(number)) => {
                let frame = Frame::Signal { session, scope: Scope::Process, signal: number.unsigned_abs() };
                self.send(&frame)
            }
            (Wants::Process(session), Ask::Resize(rows, columns)) => {
                self.send(&Frame::Resize { session, rows, columns })
            }
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
        let wants = match ask {
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
                self.send(&Frame::Exec { session: id, exec: Exec { process: document, cgroup: None } })?;
                self.processes.insert(id, made);
                Wants::Process(id)
            }
            Ask::Processes => {
                self.send(&Frame::Ps { request: id })?;
                Wants::Processes(id)
            }
            Ask::Statistics => {
                self.send(&Frame::Stats { request: id })?;
                Wants::Statistics(id)
            }
            Ask::Update(resources) => {
                if let Some(limits) = &self.limits {
                    (limits.0)(&resources)?;
                }
                let resources = serde_json::to_value(resources).doing(|| "encoding the limits")?;
                self.send(&Frame::Update { request: id, resources })?;
                Wants::Update(id)
            }
            Ask::Kills(known) if known.is_none_or(|known| self.kills > known) => {
                self.answer(key, &Answer::Kills(self.kills));
                return Ok(());
            }
            Ask::Kills(known) => Wants::Kills(known.unwrap_or(self.kills)),
            Ask::Signal(_) | Ask::Resize(..) => {
                return Err(Error::invalid("a signal or a size without a process that it is for"));
            }
        };
        if let Some(caller) = self.callers.get_mut(&key) {
            caller.wants = wants;
        }
        Ok(())
    }

    fn answer(&mut self, key: u32, answer: &Answer) {
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
        if let Wants::Process(session) = caller.wants
            && let Some(process) = self.processes.get_mut(&session)
            && !process.is_done()
        {
            process.hang_up(&mut self.link);
            let signal = libc::SIGKILL as u32;
            let _ = self.link.send(&Frame::Signal { session, scope: Scope::Process, signal });
        }
    }

    fn caller_of(&self, id: u32) -> Option<(u32, Wants)> {
        self.callers
            .iter()
            .find(|(_, caller)| caller.wants.id() == Some(id))
            .map(|(key, caller)| (*key, caller.wants))
    }

    /// The process of session `id` runs.
    pub(super) fn tell_started(&mut self, id: u32) {
        if let Some((key, _)) = self.caller_of(id) {
            self.answer(key, &Answer::Started);
        }
    }

    /// What was asked for as `id` failed.
    pub(super) fn tell_failed(&mut self, id: u32, failure: Failure) {
        if let Some((key, _)) = self.caller_of(id) {
            self.answer(key, &Answer::Failed(error(failure)));
            self.callers.remove(&key);
        }
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

    /// The guest's kernel has killed for lack of memory: whoever waits for that is told, and may ask again.
    pub(super) fn tell_kills(&mut self) {
        let waits = |caller: &Caller| matches!(caller.wants, Wants::Kills(known) if self.kills > known);
        let keys: Vec<u32> =
            self.callers.iter().filter(|(_, caller)| waits(caller)).map(|(key, _)| *key).collect();
        for key in keys {
            self.answer(key, &Answer::Kills(self.kills));
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
            if let Some((key, _)) = self.caller_of(id) {
                let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
                let answer = match ending {
                    Ending::Code(code) => Answer::Exited(number(code)),
                    Ending::Signal(signal) => Answer::Killed(number(signal)),
                };
                self.answer(key, &answer);
                self.callers.remove(&key);
            }
        }
        self.processes.retain(|id, process| *id == locule_channel::INIT || !process.is_over());
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
