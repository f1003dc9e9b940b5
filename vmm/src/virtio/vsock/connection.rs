//! One connection between a port of the guest's and a socket of the host's: its phase, its credit, its bytes.
//!
//! Owns the host's socket and what that did not take yet, never more than [`ROOM`]. Never waits.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};

use super::packet::{
    CREDIT_REQUEST, CREDIT_UPDATE, HEADER, Header, NO_RECEIVE, NO_SEND, REQUEST, RESPONSE, RW, SHUTDOWN,
};
use crate::Result;
use crate::virtio::device::Watcher;

/// Bytes that the guest may send before the host's socket took them.
pub const ROOM: usize = 64 << 10;
/// Bytes that go to the guest in one packet at most.
const MOST: usize = 64 << 10;
/// So many bytes are passed on before the guest is told unasked.
const TELL: u32 = ROOM as u32 / 4;
/// The longest first line of the host's: `CONNECT 4294967295`.
const LONGEST_LINE: usize = 18;

/// What a connection waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Phase {
    /// The host's first line, of which this is there.
    Greeting(Vec<u8>),
    /// The guest's answer to a request.
    Asked,
    /// Nothing: it stands.
    Open,
    /// The host's socket to take the last bytes. The guest knows it no more.
    Draining,
}

/// What the host's first line said.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// It is not whole yet.
    Part,
    /// A port of the guest's.
    Port(u32),
    /// No sense, or the end.
    Wrong,
}

/// The host's socket is of no more use.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// Words that the guest is to be told, as soon as there is a buffer for them.
#[derive(Debug, Default)]
struct Due {
    request: bool,
    response: bool,
    credit: bool,
    /// The flags of a shutdown.
    shutdown: u32,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// The port on the host's side.
    pub host_port: u32,
    /// The port on the guest's side.
    pub guest_port: u32,
    /// What it waits for.
    pub phase: Phase,
    socket: OwnedFd,
    due: Due,
    /// What the host's socket did not take yet.
    backlog: Vec<u8>,
    /// Bytes that the host's socket took, which the guest was told last.
    passed: u32,
    told: u32,
    /// Bytes that were sent to the guest, the guest's room, and what it has passed on.
    sent: u32,
    guest_room: u32,
    guest_passed: u32,
    /// The guest was asked for its room since it told it last.
    asked: bool,
    /// [`NO_RECEIVE`] and [`NO_SEND`], as the guest has said.
    guest_ended: u32,
    /// The host's socket was told that the guest sends no more.
    finished: bool,
    /// There may be something to read.
    readable: bool,
    /// The host's socket gave its last byte; nobody has it open any more.
    end: bool,
    gone: bool,
    /// What is waited for; none if nothing is.
    watched: Option<u32>,
}

impl Connection {
    /// One in `phase` over `socket`.
    fn new(socket: OwnedFd, phase: Phase) -> Connection {
        Connection {
            host_port: 0,
            guest_port: 0,
            phase,
            socket,
            due: Due::default(),
            backlog: Vec::new(),
            passed: 0,
            told: 0,
            sent: 0,
            guest_room: 0,
            guest_passed: 0,
            asked: false,
            guest_ended: 0,
            finished: false,
            readable: false,
            end: false,
            gone: false,
            watched: None,
        }
    }

    /// One that a program on the host began, and will say its wish on.
    pub fn begun_by_host(socket: OwnedFd) -> Connection {
        Connection::new(socket, Phase::Greeting(Vec::new()))
    }

    /// One that the guest asked for by `request`, over a socket that is connected.
    pub fn begun_by_guest(socket: OwnedFd, request: &Header) -> Connection {
        let mut connection = Connection::new(socket, Phase::Open);
        connection.host_port = request.to_port;
        connection.guest_port = request.from_port;
        connection.due.response = true;
        connection.credit(request);
        connection
    }

    /// Whether the guest knows it under these ports.
    pub fn is(&self, host_port: u32, guest_port: u32) -> bool {
        matches!(self.phase, Phase::Asked | Phase::Open)
            && (self.host_port, self.guest_port) == (host_port, guest_port)
    }

    /// Reads of the host's first line what is there, and not a byte more than that.
    pub fn greeting(&mut self) -> Line {
        let Phase::Greeting(line) = &mut self.phase else { return Line::Wrong };
        while line.len() <= LONGEST_LINE {
            let mut byte = [0];
            match recv(self.socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
                Ok(1) if byte == *b"\n" => {
                    let port = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix("CONNECT "));
                    return port.and_then(|port| port.parse().ok()).map_or(Line::Wrong, Line::Port);
                }
                Ok(1) => line.push(byte[0]),
                Err(Errno::EAGAIN | Errno::EINTR) => return Line::Part,
                _ => return Line::Wrong,
            }
        }
        Line::Wrong
    }

    /// Asks the guest for its port.
    pub fn ask(&mut self, host_port: u32, guest_port: u32) {
        (self.host_port, self.guest_port) = (host_port, guest_port);
        self.phase = Phase::Asked;
        self.due.request = true;
    }

    /// The guest has accepted: the program on the host is told by its second line.
    pub fn accepted(&mut self) -> std::result::Result<(), Broken> {
        self.phase = Phase::Open;
        let line = format!("OK {}\n", self.host_port);
        // There is room for it, as nothing was written before.
        match send(self.socket.as_raw_fd(), line.as_bytes(), FLAGS) {
            Ok(count) if count == line.len() => Ok(()),
            _ => Err(Broken),
        }
    }

    /// Takes what a packet of the guest's says of its room.
    pub fn credit(&mut self, header: &Header) {
        self.guest_room = header.room;
        self.guest_passed = header.passed;
        self.asked = false;
    }

    /// Takes bytes of the guest's; broken if it had no room for them, which the guest knew.
    pub fn put(&mut self, bytes: &[u8]) -> std::result::Result<(), Broken> {
        if self.guest_ended & NO_SEND != 0 || bytes.len() > ROOM - self.backlog.len() {
            return Err(Broken);
        }
        self.backlog.extend_from_slice(bytes);
        self.flush()
    }

    /// The guest asks how much room there is.
    pub fn asked_for_credit(&mut self) {
        self.due.credit = true;
    }

    /// The guest ends what `flags` name.
    pub fn shut_down(&mut self, flags: u32) -> std::result::Result<(), Broken> {
        self.guest_ended |= flags & (NO_RECEIVE | NO_SEND);
        self.flush()
    }

    /// The guest has ended both ways, and every byte of its own has arrived.
    pub fn is_over(&self) -> bool {
        let ended = self.guest_ended == NO_RECEIVE | NO_SEND || self.phase == Phase::Draining;
        ended && self.backlog.is_empty()
    }

    /// The guest forgot it. True if something is left for the host that was sent in good order.
    pub fn drain(&mut self) -> bool {
        let left = self.guest_ended & NO_SEND != 0 && !self.backlog.is_empty();
        self.phase = Phase::Draining;
        left
    }

    /// Writes what waits.
    pub fn flush(&mut self) -> std::result::Result<(), Broken> {
        while !self.backlog.is_empty() {
            match send(self.socket.as_raw_fd(), &self.backlog, FLAGS) {
                Ok(count) => {
                    self.backlog.drain(..count);
                    self.passed = self.passed.wrapping_add(count as u32);
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return Err(Broken),
            }
        }
        if self.passed.wrapping_sub(self.told) >= TELL {
            self.due.credit = true;
        }
        if self.backlog.is_empty() && self.guest_ended & NO_SEND != 0 && !self.finished {
            self.finished = true;
            // Fails where the other end is gone already, which is told by reading.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        }
        Ok(())
    }

    /// The host's socket is ready for something.
    pub fn ready(&mut self) -> std::result::Result<(), Broken> {
        self.readable = true;
        let gone = self.is_gone();
        match self.phase {
            Phase::Asked if gone => return Err(Broken),
            Phase::Open if gone && self.end && !self.gone => {
                self.gone = true;
                self.due.shutdown |= NO_RECEIVE | NO_SEND;
            }
            _ => {}
        }
        self.flush()
    }

    /// Nobody has the other end of the host's socket open.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        fds[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Lets others have their turn: what is readable is told anew.
    pub fn rest(&mut self) {
        self.readable = false;
    }

    /// The next packet for the guest that fits `room` bytes, from the first of the addresses to the second.
    pub fn next(&mut self, addresses: (u64, u64), room: usize) -> Option<(Header, Vec<u8>)> {
        if matches!(self.phase, Phase::Greeting(_) | Phase::Draining) {
            return None;
        }
        let mut bytes = Vec::new();
        let (word, flags) = if std::mem::take(&mut self.due.request) {
            (REQUEST, 0)
        } else if std::mem::take(&mut self.due.response) {
            (RESPONSE, 0)
        } else if std::mem::take(&mut self.due.credit) {
            (CREDIT_UPDATE, 0)
        } else {
            let credit = self.guest_credit();
            if credit > 0 {
                bytes = self.read(credit.min(room.saturating_sub(HEADER)));
            }
            if !bytes.is_empty() {
                (RW, 0)
            } else if self.due.shutdown != 0 {
                (SHUTDOWN, std::mem::take(&mut self.due.shutdown))
            } else if self.can_read() && credit == 0 && !self.asked {
                self.asked = true;
                (CREDIT_REQUEST, 0)
            } else {
                return None;
            }
        };
        self.sent = self.sent.wrapping_add(bytes.len() as u32);
        self.told = self.passed;
        let header = Header {
            from: addresses.0,
            to: addresses.1,
            from_port: self.host_port,
            to_port: self.guest_port,
            length: bytes.len() as u32,
            kind: super::packet::STREAM,
            word,
            flags,
            room: ROOM as u32,
            passed: self.passed,
        };
        Some((header, bytes))
    }

    /// Bytes that the guest has room for. One that says to have passed on more than it got has none.
    fn guest_credit(&self) -> usize {
        let on_the_way = self.sent.wrapping_sub(self.guest_passed);
        self.guest_room.saturating_sub(on_the_way) as usize
    }

    fn can_read(&self) -> bool {
        self.readable && !self.end && self.phase == Phase::Open && self.guest_ended & NO_RECEIVE == 0
    }

    /// Reads at most `most` bytes of the host's.
    fn read(&mut self, most: usize) -> Vec<u8> {
        if !self.can_read() || most == 0 {
            return Vec::new();
        }
        let mut bytes = vec![0; most.min(MOST)];
        match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(count) if count > 0 => bytes.truncate(count),
            Err(Errno::EAGAIN | Errno::EINTR) => {
                self.readable = false;
                bytes.clear();
            }
            _ => {
                bytes.clear();
                self.end = true;
                self.gone = self.is_gone();
                self.due.shutdown |= if self.gone { NO_RECEIVE | NO_SEND } else { NO_SEND };
            }
        }
        bytes
    }

    /// Has the host's socket watched for what can be done with it now.
    pub fn watch(&mut self, watcher: &Watcher, token: u64) -> Result<()> {
        let reads = match self.phase {
            Phase::Greeting(_) => true,
            Phase::Open => !self.readable && !self.end && self.guest_ended & NO_RECEIVE == 0,
            Phase::Asked | Phase::Draining => false,
        };
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLIN, reads);
        wanted.set(EpollFlags::EPOLLOUT, !self.backlog.is_empty());
        // Hang-ups are told even to those who wait for nothing: only who has not heard of it may.
        let waits = self.phase == Phase::Asked || (self.phase == Phase::Open && self.end && !self.gone);
        let wanted = (!wanted.is_empty() || waits).then_some(wanted.bits() as u32);
        match (self.watched, wanted) {
            (old, new) if old == new => {}
            (None, Some(bits)) => watcher.add(self.socket.as_fd(), bits, token)?,
            (Some(_), Some(bits)) => watcher.change(self.socket.as_fd(), bits, token)?,
            (_, None) => watcher.remove(self.socket.as_fd())?,
        }
        self.watched = wanted;
        Ok(())
    }

    /// Waits for nothing any more.
    pub fn forget(&mut self, watcher: &Watcher) {
        if self.watched.take().is_some() {
            let _ = watcher.remove(self.socket.as_fd());
        }
    }
}

/// Of everything that is written.
const FLAGS: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);
