//! The attendant: the part of a keeper that touches what a machine wrote.
//!
//! A fork of the keeper, jailed ([`super::jail`]): it reads the terminal and the log pipes, writes the log and the ring,
//! serves the console socket, and sifts the machine's notifications. The keeper never sees a byte of these but the
//! sifted words. If the attendant dies, the keeper makes another; if the keeper dies, the attendant goes on until a new
//! keeper takes the terminal over, or the machine ends, whose end it then records.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use locule_runtime::sys::{socket, tty};
use locule_runtime::time::rfc3339;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, getsockopt, sockopt};

use super::log::{Mark, Stream, Writer};
use super::notify;
use super::protocol::{self, LONGEST, inner, packet};
use super::record::Ended;
use super::ring::Ring;
use super::spool::{Before, Spool};

/// Consoles attached at once.
const CLIENTS: usize = 16;
/// How long clients may take to read the last output once everything is over.
const PATIENCE: Duration = Duration::from_secs(2);

/// The pipe of [`Attendant::pipes`] that the terminal's output goes through.
const THROUGH: usize = 2;

/// What an attendant is given.
#[derive(Debug)]
pub struct Attendant {
    /// The runtime directory of the machine.
    pub run: PathBuf,
    /// The keeper; `None` once it is gone.
    pub keeper: Option<OwnedFd>,
    /// The console socket.
    pub listener: OwnedFd,
    /// The read ends of the log pipes, and of the one below.
    pub pipes: [(Stream, OwnedFd); 3],
    /// The write end of the pipe through which the terminal's output goes, which the keeper holds as well.
    pub through: OwnedFd,
    /// Where the machine speaks to its service manager.
    pub notify: OwnedFd,
    /// The log.
    pub log: Writer,
    /// The machine's name and directory, for another log.
    pub machine: (String, PathBuf),
    /// The last output.
    pub ring: Ring,
    /// What is taken and not yet in the log.
    pub spool: Spool,
}

struct Client {
    sock: OwnedFd,
    attached: bool,
    /// How far it has read the ring.
    position: u64,
    /// How the machine ended, to be told after its output.
    end: Option<String>,
    /// Its socket was full.
    full: bool,
}

struct Serving {
    given: Attendant,
    clients: Vec<Client>,
    terminal: Option<Terminal>,
    init: Option<OwnedFd>,
    /// What is typed and not yet taken.
    typed: Vec<u8>,
    leaving: bool,
    /// The log could not be written; told once.
    log_failed: bool,
}

struct Terminal {
    master: OwnedFd,
    /// Kept open: with every other end closed, as an init does between two lines, the master would report a hang-up
    /// for ever.
    _peer: Option<OwnedFd>,
}

/// Serves until the keeper says that all is over; the exit code.
pub fn serve(given: Attendant) -> i32 {
    let mut serving = Serving {
        given,
        clients: Vec::new(),
        terminal: None,
        init: None,
        typed: Vec::new(),
        leaving: false,
        log_failed: false,
    };
    serving.recover();
    while !serving.leaving {
        if serving.turn().is_err() {
            return 1;
        }
    }
    serving.farewell();
    0
}

/// What a descriptor of the poll stands for.
#[derive(Clone, Copy)]
enum Source {
    Keeper,
    Init,
    Listener,
    Notify,
    Terminal,
    Pipe(usize),
    Client(usize),
}

impl Serving {
    fn turn(&mut self) -> nix::Result<()> {
        let mut sources = Vec::with_capacity(8 + self.clients.len());
        let mut fds = Vec::with_capacity(8 + self.clients.len());
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::new(fd, flags));
        };
        match (&self.given.keeper, &self.init) {
            (Some(keeper), _) => add(Source::Keeper, keeper.as_fd(), PollFlags::POLLIN),
            (None, Some(init)) => add(Source::Init, init.as_fd(), PollFlags::POLLIN),
            (None, None) => {}
        }
        add(Source::Listener, self.given.listener.as_fd(), PollFlags::POLLIN);
        add(Source::Notify, self.given.notify.as_fd(), PollFlags::POLLIN);
        if let Some(terminal) = &self.terminal {
            let more = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            add(Source::Terminal, terminal.master.as_fd(), PollFlags::POLLIN | more);
        }
        for (number, (_, pipe)) in self.given.pipes.iter().enumerate() {
            add(Source::Pipe(number), pipe.as_fd(), PollFlags::POLLIN);
        }
        for (number, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            // While what was typed is not taken, nobody may type more.
            flags.set(PollFlags::POLLIN, self.typed.is_empty());
            flags.set(PollFlags::POLLOUT, client.full);
            add(Source::Client(number), client.sock.as_fd(), flags);
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(()),
            other => other?,
        };
        let ready: Vec<Source> = sources
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| fd.any() == Some(true))
            .map(|(source, _)| *source)
            .collect();
        drop(fds);
        let mut gone = Vec::new();
        for source in ready {
            match source {
                Source::Keeper => self.hear_keeper(),
                Source::Init => self.record_end(),
                Source::Listener => self.admit(),
                Source::Notify => self.pass_on(),
                Source::Terminal => {
                    self.type_on();
                    self.read_terminal();
                }
                Source::Pipe(number) => drop(self.read_pipe(number)),
                Source::Client(number) => {
                    if !self.hear_client(number) {
                        gone.push(number);
                    }
                }
            }
        }
        for number in gone.into_iter().rev() {
            self.clients.remove(number);
        }
        self.show();
        Ok(())
    }

    fn hear_keeper(&mut self) {
        let Some(keeper) = &self.given.keeper else { return };
        let mut bytes = [0; LONGEST];
        match socket::recv(keeper, &mut bytes) {
            Ok((0, _)) | Err(_) => self.given.keeper = None,
            Ok((length, fds)) => {
                let text = String::from_utf8_lossy(&bytes[1..length]).into_owned();
                match bytes[0] {
                    inner::BEGIN => self.begin(fds, text == "terminal"),
                    inner::END => {
                        self.drain();
                        self.terminal = None;
                        self.init = None;
                        self.typed.clear();
                        for client in self.clients.iter_mut().filter(|client| client.attached) {
                            client.end = Some(text.clone());
                        }
                        self.tell_keeper(inner::DRAINED, &[]);
                    }
                    inner::LOG => self.change_log(&bytes[1..length], fds.into_iter().next()),
                    inner::LEAVE => self.leaving = true,
                    _ => {}
                }
            }
        }
    }

    /// What comes from now on goes to another log.
    fn change_log(&mut self, text: &[u8], fd: Option<OwnedFd>) {
        let (name, dir) = &self.given.machine;
        let log = serde_json::from_slice(text)
            .map_err(std::io::Error::from)
            .and_then(|log| Writer::handed(&log, name, dir, fd));
        match log {
            Ok(log) => self.given.log = log,
            Err(err) => self.tell_keeper(inner::TROUBLE, format!("changing the log: {err}").as_bytes()),
        }
    }

    fn begin(&mut self, fds: Vec<OwnedFd>, terminal: bool) {
        let mut fds = fds.into_iter();
        self.init = fds.next();
        self.terminal = fds.next().filter(|_| terminal).map(|master| {
            let _ = fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
            Terminal { _peer: tty::open_peer(&master).ok(), master }
        });
    }

    fn tell_keeper(&mut self, kind: u8, bytes: &[u8]) {
        if let Some(keeper) = &self.given.keeper
            && socket::send(keeper, &packet(kind, bytes), &[]).is_err()
        {
            self.given.keeper = None;
        }
    }

    /// The keeper is gone and the machine has ended: nobody else will tell how.
    fn record_end(&mut self) {
        let exit = self.init.as_ref().and_then(super::exit_of_stranger);
        let ended = Ended::new(exit, false, false, rfc3339(SystemTime::now()));
        let _ = ended.write(&self.given.run);
        self.drain();
        self.leaving = true;
    }

    fn admit(&mut self) {
        let Ok(sock) = socket::accept(&self.given.listener) else { return };
        let may = getsockopt(&sock, sockopt::PeerCredentials)
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw());
        let refusal = match may {
            false => "only root may use this console",
            true if self.clients.len() >= CLIENTS => "too many consoles are attached",
            true => {
                let _ = fcntl(&sock, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
                self.clients.push(Client {
                    sock,
                    attached: false,
                    position: self.given.ring.total(),
                    end: None,
                    full: false,
                });
                return;
            }
        };
        let _ = send_now(&sock, &packet(protocol::REFUSED, refusal.as_bytes()));
    }

    /// `false` when the client is gone.
    fn hear_client(&mut self, number: usize) -> bool {
        let mut bytes = [0; LONGEST];
        let client = &mut self.clients[number];
        let (length, _) = match socket::recv(&client.sock, &mut bytes) {
            Ok((0, _)) => return false,
            Err(Errno::EAGAIN) => {
                client.full = false;
                return true;
            }
            Err(_) => return false,
            Ok(read) => read,
        };
        let rest = &bytes[1..length];
        match bytes[0] {
            protocol::ATTACH => {
                client.attached = true;
                let past = rest.first().is_none_or(|flags| flags & protocol::WITHOUT_PAST == 0);
                client.position = if past { self.given.ring.oldest() } else { self.given.ring.total() };
            }
            protocol::INPUT if self.terminal.is_some() => {
                self.typed.extend_from_slice(rest);
                self.type_on();
            }
            protocol::SIZE => {
                if let (Some(terminal), Some((rows, columns))) = (&self.terminal, protocol::size(rest))
                    && (rows, columns) != (0, 0)
                {
                    let _ = tty::set_size(&terminal.master, rows, columns);
                }
            }
            protocol::TAKE => {
                self.drain();
                let fds: Vec<BorrowedFd<'_>> =
                    self.terminal.iter().map(|terminal| terminal.master.as_fd()).collect();
                let sock = &self.clients[number].sock;
                if self.given.keeper.is_some() {
                    let _ = send_now(sock, &packet(protocol::REFUSED, b"its keeper lives"));
                } else if socket::send(sock, &[protocol::TAKE], &fds).is_ok() {
                    self.leaving = true;
                }
                return false;
            }
            _ => {}
        }
        true
    }

    fn type_on(&mut self) {
        let Some(terminal) = &self.terminal else { return };
        while !self.typed.is_empty() {
            match nix::unistd::write(&terminal.master, &self.typed) {
                Ok(length) => drop(self.typed.drain(..length)),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// `false` when there is nothing more.
    fn read_terminal(&mut self) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        match splice(&terminal.master, None, &self.given.through, None, LONGEST, flags) {
            Err(Errno::EINTR) => true,
            Ok(0) | Err(_) => false,
            Ok(_) => {
                while self.read_pipe(THROUGH) {}
                true
            }
        }
    }

    fn read_pipe(&mut self, number: usize) -> bool {
        let mut bytes = [0; LONGEST];
        let (stream, pipe) = &self.given.pipes[number];
        let stream = *stream;
        // A log that says not how long it is will not take the bytes either, and says why.
        let log = self.given.log.mark().unwrap_or(Mark { file: 0, length: 0 });
        let before = Before { stream, log, ring: self.given.ring.total() };
        match self.given.spool.take(&before, pipe, &mut bytes) {
            Err(Errno::EINTR) => true,
            Err(Errno::ENOSPC) => match nix::unistd::read(pipe, &mut bytes) {
                Ok(0) | Err(_) => false,
                Ok(length) => {
                    self.keep(stream, &bytes[..length]);
                    true
                }
            },
            Ok([]) | Err(_) => false,
            Ok(bytes) => {
                self.keep(stream, bytes);
                let _ = self.given.spool.settle();
                true
            }
        }
    }

    /// Writes what one that was killed had taken, in place of what it wrote of it.
    fn recover(&mut self) {
        if let Ok(Some((before, bytes))) = self.given.spool.pending() {
            let _ = self.given.log.rewind(before.log);
            self.given.ring.rewind(before.ring);
            self.keep(before.stream, &bytes);
        }
        let _ = self.given.spool.settle();
    }

    /// The log comes first.
    fn keep(&mut self, stream: Stream, bytes: &[u8]) {
        match self.given.log.write(stream, bytes) {
            Ok(()) => self.log_failed = false,
            Err(err) if !self.log_failed => {
                self.log_failed = true;
                self.tell_keeper(inner::TROUBLE, format!("writing the log: {err}").as_bytes());
            }
            Err(_) => {}
        }
        let _ = self.given.ring.append(bytes);
    }

    /// Reads what is there already.
    fn drain(&mut self) {
        self.pass_on();
        while self.read_terminal() {}
        for number in 0..self.given.pipes.len() {
            while self.read_pipe(number) {}
        }
    }

    fn pass_on(&mut self) {
        let mut bytes = [0; notify::LONGEST + 1];
        // So many at once, so that a machine that talks without end keeps nobody from the rest.
        for _ in 0..64 {
            let Ok(Some(length)) = socket::next_datagram(&self.given.notify, &mut bytes) else { return };
            if length > notify::LONGEST {
                continue;
            }
            let said = notify::sift(&bytes[..length]);
            if !said.lines.is_empty() {
                self.tell_keeper(inner::NOTIFY, &said.lines);
            }
        }
    }

    /// Sends each client what it has not seen; one that does not read holds nobody up.
    fn show(&mut self) {
        let ring = &self.given.ring;
        self.clients.retain_mut(|client| !client.attached || client.feed(ring));
    }

    fn farewell(&mut self) {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            self.show();
            let mut fds: Vec<PollFd<'_>> = self
                .clients
                .iter()
                .filter(|client| client.full)
                .map(|client| PollFd::new(client.sock.as_fd(), PollFlags::POLLOUT))
                .collect();
            let left = until.saturating_duration_since(std::time::Instant::now());
            if fds.is_empty() || left.is_zero() {
                return;
            }
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
        }
    }
}

impl Client {
    /// `false` when it is gone.
    fn feed(&mut self, ring: &Ring) -> bool {
        let mut bytes = [0; LONGEST];
        bytes[0] = protocol::OUTPUT;
        self.full = false;
        loop {
            let mut position = self.position;
            let Ok(length) = ring.read(&mut position, &mut bytes[1..]) else { return false };
            let sent = match (length, &self.end) {
                (0, None) => return true,
                (0, Some(text)) => send_now(&self.sock, &packet(protocol::ENDED, text.as_bytes())),
                _ => send_now(&self.sock, &bytes[..=length]),
            };
            match sent {
                Ok(()) if length == 0 => self.end = None,
                Ok(()) => self.position = position,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    self.full = true;
                    return true;
                }
                Err(_) => return false,
            }
        }
    }
}

fn send_now(sock: &OwnedFd, bytes: &[u8]) -> nix::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    nix::sys::socket::send(sock.as_raw_fd(), bytes, flags).map(drop)
}
