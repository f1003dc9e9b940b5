//! One frame as a value.

use std::borrow::Cow;
use std::fmt;

use crate::document::{
    Create, Exec, Failure, GuestHello, HostHello, Interface, Processes, Remove, Running, Update,
};
use serde_json::Value;

/// Breach of the protocol: in the words of the side that saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(Cow<'static, str>);

impl Violation {
    /// A breach.
    pub fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Violation(what.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "breach of the channel's protocol: {}", self.0)
    }
}

impl std::error::Error for Violation {}

/// A stream of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// To the process; with a terminal, its keyboard.
    Stdin,
    /// From the process; with a terminal, its screen.
    Stdout,
    /// From the process; never used with a terminal.
    Stderr,
}

impl Stream {
    pub(crate) fn number(self) -> u8 {
        match self {
            Stream::Stdin => 0,
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Stream> {
        [Stream::Stdin, Stream::Stdout, Stream::Stderr].into_iter().find(|stream| stream.number() == number)
    }
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The session's process.
    Process,
    /// Every process of the container that the session is of.
    All,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Code(u32),
    /// By this signal.
    Signal(u32),
}

/// One frame; the crate's documentation has the table.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Frame {
    HostHello(HostHello),
    Network { request: u32, interface: Interface },
    Create { session: u32, create: Create },
    Start { session: u32 },
    Exec { session: u32, exec: Exec },
    Signal { session: u32, scope: Scope, signal: u32 },
    Resize { session: u32, rows: u16, columns: u16 },
    Stats { request: u32, container: u32 },
    Ps { request: u32, container: u32 },
    SetTime { seconds: u64, nanoseconds: u32 },
    Update { request: u32, update: Update },
    Remove { request: u32, remove: Remove },
    Shutdown,
    Notified,
    Data { session: u32, stream: Stream, bytes: Vec<u8> },
    Eof { session: u32, stream: Stream },
    Credit { session: u32, stream: Stream, bytes: u32 },
    Close { session: u32, stream: Stream },
    Refused { reason: String },
    GuestHello(GuestHello),
    Created { session: u32, running: Running },
    Started { session: u32, running: Running },
    Failed { id: u32, failure: Failure },
    Done { request: u32, answer: Value },
    Exited { session: u32, ending: Ending, out_of_memory: bool },
    Flushed { session: u32 },
    OutOfMemory { container: u32, kills: u64 },
    Notify { message: Vec<u8> },
}

impl Frame {
    /// The answer to Ps.
    pub fn processes(answer: Value) -> Result<Processes, Violation> {
        serde_json::from_value(answer).map_err(|err| Violation::new(format!("a list of processes: {err}")))
    }
}
