//! The monitor's control socket: how later calls ask the machine for what only its own kernel knows or does.
//!
//! One `SOCK_SEQPACKET` connection a question, one packet a message, JSON, both ends of the same program. The socket
//! lies in the container's directory, which only its owner may enter. An [`Ask::Exec`] brings the three standard
//! descriptors of the process; its connection then lasts as long as the process, both ways.
//!
//! ```text
//! exec                              monitor
//!   | -- Exec, 3 descriptors -------->|
//!   |<------------------- Started ----|  or Failed
//!   | -- Signal, Resize ------------->|  any number
//!   |<--------- Exited or Killed -----|
//! ```
//!
//! One machine may run several containers ([`pod`](super::pod)). The first is the one whose init the monitor is; each other
//! has a process of the host that stands for its init, whose connection lasts as long as it. All that is asked behind an
//! [`Ask::In`] is about the container of that id.
//!
//! ```text
//! init of another container         monitor
//!   | -- Create, descriptors -------->|
//!   |<------------------- Created ----|  or Failed: nothing of it is left
//!   | -- Signal, Resize ------------->|  any number
//!   | -- Start ---------------------->|
//!   |<------------------- Started ----|  or Failed: nothing of it is left
//!   |<--------- Exited or Killed -----|  nothing of it is left
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::contract;
use crate::error::{Context, Error, Kind, Result};
use crate::report::Status;
use crate::spec::{Process, Resources};
use crate::sys::clone::Exit;
use crate::sys::socket;

/// The socket's name in the container's directory.
pub const CONTROL: &str = "control";
/// The longest message in bytes; environments of more than that cannot be passed.
pub const LARGEST: usize = 160 * 1024;

/// What is asked of a monitor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// What follows is about the container of this id, not about the machine's first. No answer.
    In(String),
    /// Make another container, and let it wait.
    Create(Box<Newcomer>),
    /// Let it go.
    Start,
    /// Is nothing of this container in the machine any more? Answered when that is so.
    Gone(String),
    /// Run one more process, with the descriptors that come along as its standard ones.
    Exec(Box<Process>),
    /// Send it this signal.
    Signal(i32),
    /// Its terminal has this many rows and columns.
    Resize(u16, u16),
    /// Which processes are there?
    Processes,
    /// What does the machine's kernel count?
    Statistics,
    /// These limits hold inside from now on.
    Update(Box<Resources>),
    /// How often has the machine's kernel killed in the container for lack of memory? Answered at once, or with a number
    /// when it is more often than that. A connection may ask it again.
    Kills(Option<u64>),
}

/// A container that is to live in a machine that runs another one already.
///
/// Along come its document, a file to be read from its beginning; its three standard descriptors; and a descriptor for each
/// of `trees`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Newcomer {
    /// Its id.
    pub id: String,
    /// Whether its first standard descriptor is a terminal.
    pub terminal: bool,
    /// What it brings: names below [`TREES`] in the machine. Two containers that bring the same file give it the same name.
    pub trees: Vec<String>,
    /// Namespaces that it shares: the word of the specification, and the id of the container whose one it is.
    pub joins: Vec<(String, String)>,
}

/// The directory in which a machine finds what its later containers bring.
pub const TREES: &str = "/containers";

/// What a monitor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The container waits for its start. What the user should know.
    Created(Vec<String>),
    /// The process runs.
    Started,
    /// It ended with this code.
    Exited(i32),
    /// It was ended by this signal.
    Killed(i32),
    /// The processes of the container.
    Processes(Vec<Member>),
    /// Statistics, as the machine's own runtime reports them.
    Statistics(Box<serde_json::Value>),
    /// So often, since the machine started.
    Kills(u64),
    /// Done.
    Done,
    /// It failed.
    Failed(Error),
}

/// A process inside a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    /// Its pid inside.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// Its effective user id inside.
    pub uid: u32,
    /// Its state letter.
    pub state: String,
    /// CPU time that it has used, in milliseconds.
    pub cpu: u64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Its command line, or its name in brackets.
    pub command: String,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// Connects to the monitor of the container in `dir`.
    pub fn open(dir: impl AsFd) -> Result<Connection> {
        match socket::connect_at(dir, CONTROL) {
            Ok(sock) => Ok(Connection(sock)),
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => Err(contract::not_running()),
            Err(errno) => Err(errno).doing(|| "connecting to the machine's monitor"),
        }
    }

    /// Connects to the monitor that runs `container`; what is asked is about that one.
    pub fn to(container: &Container) -> Result<Connection> {
        let Some(machine) = &container.state().machine else { return Connection::open(container.entry()) };
        let entry = container.entry().sibling(machine).map_err(|_| contract::not_running())?;
        let host = Container::new(entry.try_clone()?, entry.load()?);
        if host.status()? == Status::Paused {
            // It would hear nothing.
            let text = format!(
                "container {:?} is in the virtual machine of {machine:?}, which is paused",
                container.id()
            );
            return Err(Error::new(Kind::State, text).hint("resume it first"));
        }
        let connection = Connection::open(&entry)?;
        connection.ask(&Ask::In(container.id().to_owned()), &[])?;
        Ok(connection)
    }

    /// Wraps an accepted connection.
    pub fn over(sock: OwnedFd) -> Connection {
        Connection(sock)
    }

    /// Asks.
    pub fn ask(&self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.send(ask, fds, "asking the machine's monitor")
    }

    /// Answers.
    pub fn answer(&self, answer: &Answer) -> Result<()> {
        self.send(answer, &[], "answering a caller of the monitor")
    }

    fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>], act: &str) -> Result<()> {
        let bytes = serde_json::to_vec(message).doing(|| act)?;
        if bytes.len() > LARGEST {
            return Err(Error::unsupported(format!("{act}: a message of {} bytes is too long", bytes.len()))
                .hint("shorten the arguments or the environment"));
        }
        socket::send(&self.0, &bytes, fds).doing(|| act)
    }

    /// The next question and the descriptors that came along; `None` when the asker is gone.
    pub fn hear(&self) -> Result<Option<(Ask, Vec<OwnedFd>)>> {
        self.recv("hearing a caller of the monitor")
    }

    /// Whether there is an answer, or the monitor's end, within `limit`.
    pub fn has_answered(&self, limit: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, limit) {
            Err(Errno::EINTR) => Ok(false),
            other => other.doing(|| "waiting for the machine's monitor").map(|ready| ready > 0),
        }
    }

    /// The next answer; `None` when the monitor is gone.
    pub fn answered(&self) -> Result<Option<Answer>> {
        Ok(self.recv("hearing the machine's monitor")?.map(|(answer, _)| answer))
    }

    fn recv<T: serde::de::DeserializeOwned>(&self, act: &str) -> Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; LARGEST];
        // The other end went away before it had heard all. What it had said is still there, behind that.
        let received = match socket::recv(&self.0, &mut bytes) {
            Err(Errno::ECONNRESET) => socket::recv(&self.0, &mut bytes),
            other => other,
        };
        let (length, fds) = match received {
            Err(Errno::ECONNRESET) => return Ok(None),
            other => other.doing(|| act)?,
        };
        if length == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&bytes[..length]).doing(|| act).map(|message| Some((message, fds)))
    }
}

/// Asks a monitor. A trait, so that whoever only has it from a [`Hypervisor`](super::Hypervisor) does not bring the connection
/// into the program inside a machine.
pub trait Questions {
    /// Asks for one answer.
    fn question(&self, ask: &Ask) -> Result<Answer>;
}

impl Questions for Connection {
    fn question(&self, ask: &Ask) -> Result<Answer> {
        self.ask(ask, &[])?;
        match self.answered()? {
            Some(Answer::Failed(err)) => Err(err),
            Some(answer) => Ok(answer),
            None => Err(contract::not_running()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Answer {
    /// The answer for an end.
    pub fn ended(exit: Exit) -> Answer {
        match exit {
            Exit::Code(code) => Answer::Exited(code),
            Exit::Signal(signal) => Answer::Killed(signal),
        }
    }

    /// An answer that makes no sense here.
    pub fn out_of_place(&self) -> Error {
        Error::new(Kind::System, format!("unexpected answer of the machine's monitor: {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_cross_whole() {
        let (a, b) = socket::pair().unwrap();
        let (a, b) = (Connection::over(a), Connection::over(b));
        let process = Process { args: vec!["ls".into()], cwd: "/".into(), ..Process::default() };
        a.ask(&Ask::Exec(Box::new(process)), &[std::io::stdin().as_fd(), std::io::stdout().as_fd()]).unwrap();
        let (ask, fds) = b.hear().unwrap().unwrap();
        assert!(matches!(ask, Ask::Exec(process) if process.args == ["ls"]));
        assert_eq!(fds.len(), 2);
        b.answer(&Answer::Failed(Error::invalid("no").hint("yes"))).unwrap();
        assert!(matches!(a.answered().unwrap(), Some(Answer::Failed(err)) if err.to_string() == "no: yes"));
        let long = Process { args: vec!["x".repeat(LARGEST)], ..Process::default() };
        let err = a.ask(&Ask::Exec(Box::new(long)), &[]).unwrap_err().to_string();
        assert!(err.contains("too long"), "{err}");
        // Its last word is heard though it did not hear ours.
        a.ask(&Ask::Signal(15), &[]).unwrap();
        b.answer(&Answer::Exited(5)).unwrap();
        drop(b);
        assert!(matches!(a.answered().unwrap(), Some(Answer::Exited(5))));
        assert!(a.answered().unwrap().is_none());
    }
}
