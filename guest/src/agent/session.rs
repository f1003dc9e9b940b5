//! One process of a container with its streams: pipes, or a terminal of the container's.
//!
//! Owns the agent's ends of them, the accounts of their credit, and what was received but not yet
//! taken by the process. Never waits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use locule_channel::{Frame, Incoming, LARGEST_DATA, Link, Outgoing, Stream, Violation, encode_data};
use locule_runtime::error::{Context, Result};
use locule_runtime::sys::{socket, tty};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A worker is at it.
    Making,
    /// It has this pid.
    Running(i32),
    /// It has ended, but not all that it wrote was sent.
    Ended,
}

/// Standard descriptors for a worker to be.
#[derive(Debug)]
pub enum Stdio {
    /// Its ends of three pipes.
    Pipes([OwnedFd; 3]),
    /// The path of the socket that gets its terminal.
    Terminal(String),
}

/// A process and its streams.
#[derive(Debug)]
pub struct Session {
    /// Its id on the channel.
    pub id: u32,
    /// The container that it is in.
    pub container: u32,
    /// Where it is.
    pub stage: Stage,
    /// Signals that came while it was made.
    pub early: Vec<i32>,
    /// How often the kernel had killed in the container when this one began.
    pub kills: u64,
    input: Input,
    outputs: Vec<Output>,
    console: Option<(OwnedFd, String)>,
    /// Of a terminal, the other end: held so that the master does not seem hung up while the process has
    /// closed its own.
    peer: Option<OwnedFd>,
    size: Option<(u16, u16)>,
    flushed: bool,
}

#[derive(Debug, Default)]
struct Input {
    fd: Option<OwnedFd>,
    pending: Vec<u8>,
    account: Incoming,
    ends: bool,
    closed: bool,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    fd: Option<OwnedFd>,
    account: Outgoing,
    told_end: bool,
    /// Read empty since the process ended.
    empty: bool,
}

impl Output {
    fn new(stream: Stream, fd: Option<OwnedFd>) -> Output {
        Output { stream, fd, account: Outgoing::default(), told_end: false, empty: false }
    }
}

/// The one of `sessions` with that id.
pub fn find(sessions: &mut [Session], id: u32) -> Option<&mut Session> {
    sessions.iter_mut().find(|session| session.id == id)
}

fn nonblocking(fd: OwnedFd) -> nix::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}

impl Session {
    /// A session and what its worker gets: a terminal's socket is listened on below [`crate::PLACE`].
    pub fn new(id: u32, container: u32, terminal: bool, kills: u64) -> Result<(Session, Stdio)> {
        let doing = || "making a process's standard descriptors";
        let mut session = Session {
            id,
            container,
            stage: Stage::Making,
            early: Vec::new(),
            kills,
            input: Input::default(),
            outputs: Vec::new(),
            console: None,
            peer: None,
            size: None,
            flushed: false,
        };
        if terminal {
            let name = format!("console-{id}");
            let place = socket_dir()?;
            let listener = socket::listen_stream_at(&place, &name, 1).and_then(nonblocking).doing(doing)?;
            let path = format!("{}/{name}", crate::PLACE);
            session.console = Some((listener, path.clone()));
            session.outputs.push(Output::new(Stream::Stdout, None));
            return Ok((session, Stdio::Terminal(path)));
        }
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let (stdin, to_stdin) = pipe().doing(doing)?;
        let (from_stdout, stdout) = pipe().doing(doing)?;
        let (from_stderr, stderr) = pipe().doing(doing)?;
        session.input.fd = Some(nonblocking(to_stdin).doing(doing)?);
        for (stream, fd) in [(Stream::Stdout, from_stdout), (Stream::Stderr, from_stderr)] {
            session.outputs.push(Output::new(stream, Some(nonblocking(fd).doing(doing)?)));
        }
        Ok((session, Stdio::Pipes([stdin, stdout, stderr])))
    }

    /// The process runs, or waits at its gate: takes its terminal over, if it has one.
    pub fn made(&mut self, pid: i32) -> Result<()> {
        self.stage = Stage::Running(pid);
        let Some((listener, path)) = self.console.take() else { return Ok(()) };
        let _ = std::fs::remove_file(path);
        let doing = || "taking over a terminal";
        // All of it was said before the worker told that it was done.
        let connection = socket::accept(&listener).and_then(nonblocking).doing(doing)?;
        let (_, mut fds) = socket::recv(&connection, &mut [0u8; 256]).doing(doing)?;
        let master = fds.pop().ok_or(Errno::EBADMSG).and_then(nonblocking).doing(doing)?;
        self.peer = tty::open_peer(&master).ok();
        if let Some((rows, columns)) = self.size {
            let _ = tty::set_size(&master, rows, columns);
        }
        self.input.fd = Some(master.try_clone().doing(doing)?);
        if let Some(output) = self.outputs.first_mut() {
            output.fd = Some(master);
        }
        self.write_input();
        Ok(())
    }

    /// The process has ended.
    pub fn ended(&mut self) {
        self.stage = Stage::Ended;
        // Nobody whose end anybody waits for reads it any more.
        self.input = Input { closed: true, ..Input::default() };
    }

    /// Whether everything is told and it can be forgotten.
    pub fn is_over(&self) -> bool {
        self.flushed && self.outputs.iter().all(|output| output.told_end)
    }

    /// Whether it has a terminal.
    fn is_terminal(&self) -> bool {
        self.outputs.len() == 1
    }

    /// Takes in bytes for the process.
    pub fn take(&mut self, bytes: &[u8]) -> std::result::Result<(), Violation> {
        if self.input.closed {
            return Ok(());
        }
        if self.input.ends {
            return Err(Violation::new("data after the end of its stream"));
        }
        self.input.account.take(bytes.len())?;
        self.input.pending.extend_from_slice(bytes);
        self.write_input();
        Ok(())
    }

    /// Nothing more comes for the process.
    pub fn end_input(&mut self) {
        if self.is_terminal() && !self.input.ends {
            // End of input for the workload: its line discipline's end-of-file character.
            self.input.pending.push(4);
        }
        self.input.ends = true;
        self.write_input();
    }

    /// Gives the process what waits for it, as far as it takes it.
    pub fn write_input(&mut self) {
        let terminal = self.is_terminal();
        let input = &mut self.input;
        let Some(fd) = &input.fd else { return };
        let mut done = 0;
        let broken = loop {
            let rest = input.pending.get(done..).unwrap_or_default();
            if rest.is_empty() {
                break false;
            }
            match nix::unistd::write(fd, rest) {
                Ok(0) | Err(Errno::EAGAIN) => break false,
                Ok(written) => done += written,
                Err(Errno::EINTR) => {}
                Err(_) => break true,
            }
        };
        input.pending.drain(..done);
        input.account.passed(done);
        if broken || (input.ends && input.pending.is_empty() && !terminal) {
            input.fd = None;
            input.pending = Vec::new();
        }
    }

    /// Tells the host what it should know of the input: credit, or that nobody reads it.
    pub fn tell_input(&mut self, link: &mut Link) {
        let (session, stream) = (self.id, Stream::Stdin);
        let making = self.stage == Stage::Making;
        if self.input.fd.is_none() && !self.input.ends && !self.input.closed && !making {
            self.input.closed = true;
            let _ = link.send(&Frame::Close { session, stream });
        } else if let Some(bytes) = self.input.account.credit() {
            let _ = link.send(&Frame::Credit { session, stream, bytes });
        }
    }

    /// The host takes more of an output.
    pub fn grant(&mut self, stream: Stream, bytes: u32) -> std::result::Result<(), Violation> {
        self.outputs
            .iter_mut()
            .find(|output| output.stream == stream)
            .map_or(Ok(()), |output| output.account.grant(bytes))
    }

    /// The host takes no more of an output: the process is to see a closed pipe, or a hang-up.
    pub fn close(&mut self, stream: Stream) {
        for output in self.outputs.iter_mut().filter(|output| output.stream == stream) {
            output.fd = None;
        }
        if self.is_terminal() {
            self.peer = None;
            self.input = Input { closed: true, ..Input::default() };
        }
    }

    /// Sets the terminal's size, if it has one.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.size = Some((rows, columns));
        if let (true, Some(master)) = (self.is_terminal(), &self.input.fd) {
            let _ = tty::set_size(master, rows, columns);
        }
    }

    /// What to wait for: the descriptor, and whether for writing.
    pub fn interests(&self, link_full: bool) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let making = self.stage == Stage::Making;
        let input = self.input.fd.as_ref().filter(|_| !self.input.pending.is_empty());
        let outputs = self.outputs.iter().filter(move |output| output.account.room() > 0 && !link_full);
        input
            .into_iter()
            .map(|fd| (fd.as_fd(), true))
            .chain(outputs.filter_map(|output| output.fd.as_ref()).map(|fd| (fd.as_fd(), false)))
            .filter(move |_| !making)
    }

    /// Sends what the process has written, as far as the host takes it, and the ends that are due.
    pub fn read_outputs(&mut self, link: &mut Link, buffer: &mut [u8]) {
        if self.stage == Stage::Making {
            return;
        }
        let (id, ended, terminal) = (self.id, self.stage == Stage::Ended, self.is_terminal());
        for output in &mut self.outputs {
            let empty = pump(output, id, link, buffer);
            output.empty |= ended && empty;
            if terminal && output.empty {
                // As `run` and `exec` have it: what the process leaves behind loses its terminal.
                output.fd = None;
                self.peer = None;
            }
            if output.fd.is_none() && !output.told_end {
                output.told_end = true;
                let _ = link.send(&Frame::Eof { session: id, stream: output.stream });
            }
        }
        if ended && !self.flushed && self.outputs.iter().all(|output| output.empty || output.fd.is_none()) {
            self.flushed = true;
            let _ = link.send(&Frame::Flushed { session: id });
        }
    }
}

/// Reads one output until there is nothing, or no room; whether there was nothing.
fn pump(output: &mut Output, session: u32, link: &mut Link, buffer: &mut [u8]) -> bool {
    // A turn each: what one writes without end must not keep the others waiting.
    for _ in 0..4 {
        let Some(fd) = &output.fd else { return true };
        let most = output.account.room().min(LARGEST_DATA).min(buffer.len());
        if most == 0 || link.is_full() {
            return false;
        }
        let Some(space) = buffer.get_mut(..most) else { return false };
        match nix::unistd::read(fd, space) {
            Ok(0) | Err(Errno::EIO) => output.fd = None,
            Ok(length) => {
                output.account.spend(length);
                let _ = encode_data(
                    link.buffer(),
                    session,
                    output.stream,
                    space.get(..length).unwrap_or_default(),
                );
            }
            Err(Errno::EAGAIN) => return true,
            Err(Errno::EINTR) => {}
            Err(_) => output.fd = None,
        }
    }
    false
}

fn socket_dir() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    locule_runtime::sys::fs::openat2(nix::fcntl::AT_FDCWD, crate::PLACE, flags, 0, 0)
        .doing(|| format!("opening {}", crate::PLACE))
}
