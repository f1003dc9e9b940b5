//! What the host asks for, frame by frame.

use locule_channel::document::{Create, Exec, Failure, FailureKind, HostHello, Remove, Update};
use locule_channel::{Frame, INIT, MOST_SESSIONS, Scope, VERSION, Violation};
use locule_runtime::error::{Context, Result};
use locule_runtime::{Container, Error};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use serde::Serialize;
use serde_json::{Value, json};

use super::Agent;
use super::jobs::{self, Act, Job};
use super::notify::Notify;
use super::served::{Served, bundle};
use super::session::{self, Session, Stage};
use crate::worker::failure;
use crate::{PLACE, modules, network, processes};

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

impl Agent {
    /// Does what a frame asks for; only a breach of the protocol is an error.
    pub fn obey(&mut self, frame: Frame) -> std::result::Result<(), Violation> {
        match frame {
            Frame::HostHello(hello) => return self.greet(&hello),
            _ if !self.greeted => return Err(Violation::new("a frame before Hello")),
            Frame::Network { request, interface } => {
                self.answer(request, network::apply(&interface).map(|()| Value::Null));
            }
            Frame::Create { session, create } => self.create(session, &create)?,
            Frame::Start { session } => self.start(session),
            Frame::Exec { session, exec } => self.exec(session, &exec)?,
            Frame::Signal { session, scope: Scope::All, signal } => {
                if let Ok(container) = self.container(session, "") {
                    let _ = container.kill(number(signal), true);
                }
            }
            Frame::Signal { session, signal, .. } => self.signal(session, number(signal)),
            Frame::Resize { session, rows, columns } => {
                if let Some(session) = self.session(session) {
                    session.resize(rows, columns);
                }
            }
            Frame::Stats { request, container } => {
                let stats = self.container(container, "measuring").and_then(Container::stats).and_then(value);
                self.answer(request, stats);
            }
            Frame::Ps { request, container } => {
                let pids = self.container(container, "listing processes").and_then(Container::pids);
                self.answer(request, pids.and_then(|pids| value(processes::list(&pids))));
            }
            Frame::SetTime { seconds, nanoseconds } => set_time(seconds, nanoseconds),
            Frame::Update { request, update } => {
                let done = self.update(update).map(|()| Value::Null);
                self.answer(request, done);
            }
            Frame::Remove { request, remove } => {
                check_trees(&remove)?;
                let done = match remove.container {
                    INIT => Err(Error::invalid("the guest's first container lasts as long as the guest")),
                    other => self.remove(Some(request), other, &remove.trees),
                };
                if let Err(err) = done {
                    self.answer(request, Err(err));
                }
            }
            Frame::Shutdown => self.leave(),
            Frame::Notified => match &mut self.notify {
                Some(notify) => notify.passed_on()?,
                None => return Err(Violation::new("an answer to no notification")),
            },
            Frame::Data { session, bytes, .. } => {
                if let Some(session) = self.session(session) {
                    session.take(&bytes)?;
                }
            }
            Frame::Eof { session, .. } => {
                if let Some(session) = self.session(session) {
                    session.end_input();
                }
            }
            Frame::Credit { session, stream, bytes } => {
                if let Some(session) = self.session(session) {
                    session.grant(stream, bytes)?;
                }
            }
            Frame::Close { session, stream } => {
                if let Some(session) = session::find(&mut self.sessions, session) {
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

    /// Makes a container beside those that there are. What one says by sd_notify(3) is heard of the first alone, and to
    /// ask for it of another is refused.
    fn create(&mut self, session: u32, create: &Create) -> std::result::Result<(), Violation> {
        if self.containers.iter().any(|served| served.number == session || served.id == create.id) {
            let message = "the guest has a container already".into();
            self.refuse_one(session, FailureKind::Exists, message);
            return Ok(());
        }
        if !self.may_begin(session, self.containers.len())? {
            return Ok(());
        }
        let terminal = create.config.pointer("/process/terminal") == Some(&json!(true));
        let begin = || {
            if session != INIT {
                self.container(INIT, "creating one beside the first")?;
                if create.notify {
                    return Err(Error::unsupported("only the guest's first container has notifications"));
                }
            }
            let dir = bundle(session);
            std::fs::create_dir_all(&dir).doing(|| format!("making {dir}"))?;
            jobs::write(&format!("{dir}/config.json"), &create.config)?;
            let notify = if create.notify { Some(Notify::listen()?) } else { None };
            let (made, stdio) = Session::new(session, session, terminal, 0)?;
            Ok((made, Job::start(Act::Create(session), &[&create.id, &dir], Some(stdio))?, notify))
        };
        match begin() {
            Ok((made, job, notify)) => {
                if session == INIT {
                    self.notify = notify;
                }
                self.containers.push(Served::new(session, create.id.clone()));
                self.sessions.push(made);
                self.jobs.push(job);
            }
            Err(err) => {
                self.forget(session);
                self.answer(session, Err(err));
            }
        }
        Ok(())
    }

    /// Whether a session may begin, where `others` last as well as those that there are; if not, that was told.
    fn may_begin(&mut self, session: u32, others: usize) -> std::result::Result<bool, Violation> {
        if self.session(session).is_some() {
            return Err(Violation::new("the id of a session that lasts for another one"));
        }
        let free = self.sessions.len().max(others) < MOST_SESSIONS;
        if !free {
            let message = format!("{MOST_SESSIONS} processes are served already");
            self.refuse_one(session, FailureKind::System, message);
        }
        Ok(free)
    }

    fn start(&mut self, session: u32) {
        let job = self
            .served(session, "starting it")
            .and_then(|(served, _)| Job::start(Act::Start(session), &[&served.id], None));
        match job {
            Ok(job) => self.jobs.push(job),
            Err(err) => self.answer(session, Err(err)),
        }
    }

    fn exec(&mut self, session: u32, exec: &Exec) -> std::result::Result<(), Violation> {
        if self.known(session).is_some() {
            return Err(Violation::new("an exec with the id of a container"));
        }
        if !self.may_begin(session, 0)? {
            return Ok(());
        }
        let terminal = exec.process.get("terminal") == Some(&json!(true));
        let begin = || {
            let (served, _) = self.served(exec.container, "executing a process")?;
            let file = exec_file(session);
            jobs::write(&file, &exec.process)?;
            let (made, stdio) = Session::new(session, served.number, terminal, served.kills)?;
            let cgroup = exec.cgroup.as_deref().unwrap_or_default();
            Ok((made, Job::start(Act::Exec(session), &[&served.id, &file, cgroup], Some(stdio))?))
        };
        match begin() {
            Ok((made, job)) => {
                self.sessions.push(made);
                self.jobs.push(job);
            }
            Err(err) => self.answer(session, Err(err)),
        }
        Ok(())
    }

    /// Has a worker remove a container, and what is mounted on `trees`; of one that is not there, the trees alone, which
    /// its creation may have looked at.
    pub fn remove(&mut self, request: Option<u32>, container: u32, trees: &[String]) -> Result<()> {
        let id = match self.known(container) {
            None => "",
            Some(_) => &self.served(container, "removing it")?.0.id,
        };
        let words: Vec<&str> = [id].into_iter().chain(trees.iter().map(String::as_str)).collect();
        let job = Job::start(Act::Remove { request, container }, &words, None)?;
        self.jobs.push(job);
        if let Some(served) = self.known(container) {
            served.removing = true;
        }
        Ok(())
    }

    fn signal(&mut self, session: u32, number: i32) {
        let Some(session) = self.session(session) else { return };
        match session.stage {
            Stage::Making if session.early.len() < 64 => session.early.push(number),
            Stage::Running(pid) => signal(pid, number),
            _ => {}
        }
    }

    fn update(&self, update: Update) -> Result<()> {
        let doing = || "reading the limits to set";
        let resources = serde_json::from_value(update.resources).doing(doing)?;
        if modules::missing().contains(&modules::MEMORY) {
            for told in modules::load([modules::MEMORY]) {
                eprintln!("locule-guest: {told}");
            }
        }
        self.container(update.container, "updating it")?.update(&resources)
    }
}

/// Names of entries of one directory, and nothing else: they become paths.
fn check_trees(remove: &Remove) -> std::result::Result<(), Violation> {
    let none = |name: &String| matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']);
    if remove.trees.iter().any(none) {
        return Err(Violation::new("a tree to remove whose name is a path"));
    }
    Ok(())
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
