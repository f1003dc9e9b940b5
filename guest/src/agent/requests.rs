//! What the host asks for, frame by frame.

use std::collections::btree_map::Entry;

use locule_channel::document::{Create, Exec, Failure, FailureKind, HostHello};
use locule_channel::{Frame, INIT, MOST_SESSIONS, Scope, VERSION, Violation};
use locule_runtime::error::{Context, Result};
use locule_runtime::{Container, Error, Kind};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use serde::Serialize;
use serde_json::{Value, json};

use super::Agent;
use super::jobs::{self, Act, Job};
use super::notify::Notify;
use super::session::{Session, Stage};
use crate::worker::failure;
use crate::{BUNDLE, PLACE, modules, network, processes};

/// Where the document of a process to be executed is.
pub fn exec_file(id: u32) -> String {
    format!("{PLACE}/exec-{id}.json")
}

/// kill(2) of a child that was not reaped yet; numbers that are no signal do nothing.
pub fn signal(pid: i32, number: i32) {
    if pid > 1
        && let Ok(fd) = locule_runtime::sys::clone::pidfd_open(pid)
    {
        let _ = locule_runtime::sys::clone::pidfd_signal(fd, number);
    }
}

fn not_made(act: &str) -> Error {
    Error::new(Kind::State, format!("{act}: the guest has no container"))
}

impl Agent {
    /// Does what a frame asks for; only a breach of the protocol is an error.
    pub fn obey(&mut self, frame: Frame) -> std::result::Result<(), Violation> {
        match frame {
            Frame::HostHello(hello) => return self.greet(&hello),
            _ if !self.greeted => return Err(Violation::new("a frame before Hello")),
            Frame::Network { request, interface } => {
                self.answer(request, network::apply(&interface).map(|()| Value::Null));
            }
            Frame::Create(create) => self.create(&create),
            Frame::Start => self.start(),
            Frame::Exec { session, exec } => self.exec(session, &exec)?,
            Frame::Signal { scope: Scope::All, signal, .. } => {
                if let Some(container) = &self.container {
                    let _ = container.kill(number(signal), true);
                }
            }
            Frame::Signal { session, signal, .. } => self.signal(session, number(signal)),
            Frame::Resize { session, rows, columns } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.resize(rows, columns);
                }
            }
            Frame::Stats { request } => {
                let stats = self.container("measuring").and_then(Container::stats).and_then(value);
                self.answer(request, stats);
            }
            Frame::Ps { request } => {
                let pids = self.container("listing processes").and_then(Container::pids);
                self.answer(request, pids.and_then(|pids| value(processes::list(&pids))));
            }
            Frame::SetTime { seconds, nanoseconds } => set_time(seconds, nanoseconds),
            Frame::Update { request, resources } => {
                let done = self.update(resources).map(|()| Value::Null);
                self.answer(request, done);
            }
            Frame::Shutdown => self.leave(),
            Frame::Notified => match &mut self.notify {
                Some(notify) => notify.passed_on()?,
                None => return Err(Violation::new("an answer to no notification")),
            },
            Frame::Data { session, bytes, .. } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.take(&bytes)?;
                }
            }
            Frame::Eof { session, .. } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.end_input();
                }
            }
            Frame::Credit { session, stream, bytes } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.grant(stream, bytes)?;
                }
            }
            Frame::Close { session, stream } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.close(stream);
                    session.read_outputs(&mut self.link, &mut []);
                }
            }
            Frame::Refused { reason } => {
                eprintln!("locule-guest: the host refuses to go on: {reason}");
                self.leave();
            }
            _ => return Err(Violation::new("a frame that only the guest sends")),
        }
        Ok(())
    }

    fn greet(&mut self, hello: &HostHello) -> std::result::Result<(), Violation> {
        if hello.version != VERSION {
            return Err(Violation::new(format!(
                "the host speaks version {} of it, this guest {VERSION}",
                hello.version
            )));
        }
        if std::mem::replace(&mut self.greeted, true) {
            return Err(Violation::new("a second Hello"));
        }
        if let Some(time) = hello.time {
            set_time(time.seconds, time.nanoseconds);
        }
        if let Some(name) = &hello.hostname
            && let Err(errno) = nix::unistd::sethostname(name)
        {
            eprintln!("locule-guest: setting the host name {name:?}: {errno}");
        }
        let missing = modules::missing().into_iter().filter(|name| *name != modules::MEMORY);
        let names = missing.chain(hello.modules.iter().map(String::as_str));
        for told in modules::load(names) {
            eprintln!("locule-guest: {told}");
        }
        Ok(())
    }

    fn answer(&mut self, request: u32, outcome: Result<Value>) {
        let frame = match outcome {
            Ok(answer) => Frame::Done { request, answer },
            Err(err) => Frame::Failed { id: request, failure: failure(&err) },
        };
        if let Err(violation) = self.link.send(&frame) {
            self.refuse_one(request, FailureKind::System, violation.to_string());
        }
    }

    fn refuse_one(&mut self, id: u32, kind: FailureKind, message: String) {
        let _ = self.link.send(&Frame::Failed { id, failure: Failure { kind, message } });
    }

    fn container(&self, act: &str) -> Result<&Container> {
        self.container.as_ref().ok_or_else(|| not_made(act))
    }

    fn create(&mut self, create: &Create) {
        if self.id.is_some() {
            let message = "the guest has a container already".into();
            return self.refuse_one(INIT, FailureKind::Exists, message);
        }
        let terminal = create.config.pointer("/process/terminal") == Some(&json!(true));
        let begin = || {
            jobs::write(&format!("{BUNDLE}/config.json"), &create.config)?;
            let notify = if create.notify { Some(Notify::listen()?) } else { None };
            let (session, stdio) = Session::new(INIT, terminal, 0)?;
            Ok((session, Job::start(Act::Create, &[&create.id], Some(stdio))?, notify))
        };
        match begin() {
            Ok((session, job, notify)) => {
                self.notify = notify;
                self.id = Some(create.id.clone());
                self.sessions.insert(INIT, session);
                self.jobs.push(job);
            }
            Err(err) => self.answer(INIT, Err(err)),
        }
    }

    fn start(&mut self) {
        let job = match &self.id {
            Some(id) if self.container.is_some() => Job::start(Act::Start, &[id], None),
            _ => Err(not_made("starting it")),
        };
        match job {
            Ok(job) => self.jobs.push(job),
            Err(err) => self.answer(INIT, Err(err)),
        }
    }

    fn exec(&mut self, session: u32, exec: &Exec) -> std::result::Result<(), Violation> {
        if self.sessions.len() >= MOST_SESSIONS {
            self.refuse_one(
                session,
                FailureKind::System,
                format!("{MOST_SESSIONS} processes are served already"),
            );
            return Ok(());
        }
        let kills = self.kills;
        let id = self.id.clone().filter(|_| self.container.is_some());
        let Entry::Vacant(place) = self.sessions.entry(session) else {
            return Err(Violation::new("an exec with the id of a session that lasts"));
        };
        let terminal = exec.process.get("terminal") == Some(&json!(true));
        let begin = || {
            let id = id.ok_or_else(|| not_made("executing a process"))?;
            let file = exec_file(session);
            jobs::write(&file, &exec.process)?;
            let (made, stdio) = Session::new(session, terminal, kills)?;
            let cgroup = exec.cgroup.as_deref().unwrap_or_default();
            Ok((made, Job::start(Act::Exec(session), &[&id, &file, cgroup], Some(stdio))?))
        };
        match begin() {
            Ok((made, job)) => {
                place.insert(made);
                self.jobs.push(job);
            }
            Err(err) => self.answer(session, Err(err)),
        }
        Ok(())
    }

    fn signal(&mut self, session: u32, number: i32) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        match session.stage {
            Stage::Making if session.early.len() < 64 => session.early.push(number),
            Stage::Running(pid) => signal(pid, number),
            _ => {}
        }
    }

    fn update(&self, resources: Value) -> Result<()> {
        let doing = || "reading the limits to set";
        let resources = serde_json::from_value(resources).doing(doing)?;
        if modules::missing().contains(&modules::MEMORY) {
            for told in modules::load([modules::MEMORY]) {
                eprintln!("locule-guest: {told}");
            }
        }
        self.container("updating it")?.update(&resources)
    }
}

/// A signal's number; what is none becomes one that kill(2) refuses.
fn number(signal: u32) -> i32 {
    i32::try_from(signal).ok().filter(|number| *number <= 64).unwrap_or(-1)
}

fn value(answer: impl Serialize) -> Result<Value> {
    serde_json::to_value(answer).doing(|| "encoding an answer")
}

fn set_time(seconds: u64, nanoseconds: u32) {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = TimeSpec::new(seconds, i64::from(nanoseconds));
    if let Err(errno) = clock_settime(ClockId::CLOCK_REALTIME, time) {
        eprintln!("locule-guest: setting the clock: {errno}");
    }
}
