//! The connections of a virtio socket: which there are, what a packet means to them, who is next to speak.
//!
//! Knows no queues. Whatever the guest says, there are at most [`MOST`] connections, and few refusals more than
//! [`MOST_REFUSALS`] while whoever brings packets heeds [`Table::is_full`].

use std::collections::VecDeque;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::connection::{Broken, Connection, Line, Phase};
use super::packet::{
    CREDIT_REQUEST, CREDIT_UPDATE, HEADER, HOST, Header, REQUEST, RESPONSE, RST, RW, SHUTDOWN, STREAM,
};
use crate::Result;
use crate::virtio::device::Watcher;

/// Connections at once; each takes two descriptors.
pub const MOST: usize = 128;
/// Refusals that wait for the driver; one that takes none is heard no more.
const MOST_REFUSALS: usize = 64;
/// Ports of the host's side for connections that it begins.
const FIRST_PORT: u32 = 1 << 30;

/// The connections.
#[derive(Debug)]
pub struct Table {
    cid: u64,
    /// Where the sockets are that the guest may connect to, and what their names begin with.
    directory: OwnedFd,
    name: String,
    connections: Vec<Option<Connection>>,
    refusals: VecDeque<Header>,
    port: u32,
    /// Whose turn it is.
    turn: usize,
}

impl Table {
    /// None yet, for the guest with the address `cid`.
    pub fn new(cid: u32, directory: OwnedFd, name: String) -> Table {
        Table {
            cid: cid.into(),
            directory,
            name,
            connections: Vec::new(),
            refusals: VecDeque::new(),
            port: FIRST_PORT,
            turn: 0,
        }
    }

    /// Whether too many refusals wait for more packets of the guest's to be taken.
    pub fn is_full(&self) -> bool {
        self.refusals.len() >= MOST_REFUSALS
    }

    /// Whether there is room for one more connection.
    pub fn has_room(&self) -> bool {
        self.connections.iter().flatten().count() < MOST
    }

    /// Takes a packet of the guest's.
    pub fn hear(&mut self, packet: &[u8], watcher: &Watcher) {
        let Some(header) = Header::read(packet).filter(|header| header.from == self.cid) else { return };
        if header.kind != STREAM || header.to != HOST {
            return self.refuse(&header);
        }
        let known = self
            .connections
            .iter()
            .position(|place| place.as_ref().is_some_and(|one| one.is(header.to_port, header.from_port)));
        let Some(at) = known else {
            return if header.word == REQUEST { self.request(&header) } else { self.refuse(&header) };
        };
        let Some(connection) = &mut self.connections[at] else { return };
        if header.word == RST {
            if !connection.drain() {
                self.end(at, watcher);
            }
            return;
        }
        let over = talk(connection, &header, &packet[HEADER..]) == Err(Broken) || connection.is_over();
        if over {
            self.refuse(&header);
            self.end(at, watcher);
        }
    }

    fn refuse(&mut self, header: &Header) {
        // A refusal is not refused (5.10.6.4).
        if header.word != RST {
            self.refusals.push_back(header.refusal());
        }
    }

    /// The guest asks for a connection with a socket of the host's.
    fn request(&mut self, header: &Header) {
        match self.connect(header.to_port) {
            Ok(socket) if self.has_room() => self.insert(Connection::begun_by_guest(socket, header)),
            // Nobody listens there, or too many wait.
            _ => self.refuse(header),
        }
    }

    fn connect(&self, port: u32) -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // Short enough for an address, wherever the directory is.
        let path = format!("/proc/self/fd/{}/{}_{port}", self.directory.as_raw_fd(), self.name);
        connect(socket.as_raw_fd(), &UnixAddr::new(&PathBuf::from(path))?)?;
        Ok(socket)
    }

    /// Takes a connection that a program on the host began, if there is room.
    pub fn take(&mut self, socket: OwnedFd) {
        if self.has_room() {
            self.insert(Connection::begun_by_host(socket));
        }
    }

    fn insert(&mut self, connection: Connection) {
        match self.connections.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(connection),
            None => self.connections.push(Some(connection)),
        }
    }

    fn end(&mut self, at: usize, watcher: &Watcher) {
        if let Some(mut connection) = self.connections[at].take() {
            connection.forget(watcher);
        }
    }

    /// The socket of connection `at` is ready for something.
    pub fn ready(&mut self, at: usize, watcher: &Watcher) {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else { return };
        if matches!(connection.phase, Phase::Greeting(_)) {
            return match connection.greeting() {
                Line::Part => {}
                Line::Port(port) => self.ask(at, port),
                Line::Wrong => self.end(at, watcher),
            };
        }
        let known = connection.phase != Phase::Draining;
        let broken = connection.ready() == Err(Broken);
        if broken || connection.is_over() {
            let header = Header {
                from: self.cid,
                to: HOST,
                from_port: connection.guest_port,
                to_port: connection.host_port,
                kind: STREAM,
                ..Header::default()
            };
            if known {
                self.refuse(&header);
            }
            self.end(at, watcher);
        }
    }

    fn ask(&mut self, at: usize, guest_port: u32) {
        let port = loop {
            let port = self.port;
            self.port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.connections.iter().flatten().any(|one| one.host_port == port) {
                break port;
            }
        };
        if let Some(connection) = &mut self.connections[at] {
            connection.ask(port, guest_port);
        }
    }

    /// The next packet for the guest that fits `room` bytes; one of each connection in turns.
    pub fn next(&mut self, room: usize) -> Option<(Header, Vec<u8>)> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some((refusal, Vec::new()));
        }
        let count = self.connections.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            let packet =
                self.connections[at].as_mut().and_then(|connection| connection.next((HOST, self.cid), room));
            if packet.is_some() {
                self.turn = at + 1;
                return packet;
            }
        }
        None
    }

    /// Reads nothing more from the host until it is told anew what can be read.
    pub fn rest(&mut self) {
        self.connections.iter_mut().flatten().for_each(Connection::rest);
    }

    /// Has every socket watched for what can be done with it now, connection N under the token `first` + N.
    pub fn watch(&mut self, watcher: &Watcher, first: u64) -> Result<()> {
        for (at, connection) in self.connections.iter_mut().enumerate() {
            if let Some(connection) = connection {
                connection.watch(watcher, first + at as u64)?;
            }
        }
        Ok(())
    }

    /// Ends all of them; the guest gave the device up.
    pub fn clear(&mut self, watcher: &Watcher) {
        for at in 0..self.connections.len() {
            self.end(at, watcher);
        }
        self.refusals.clear();
    }
}

/// What a packet means to its connection.
fn talk(connection: &mut Connection, header: &Header, bytes: &[u8]) -> std::result::Result<(), Broken> {
    connection.credit(header);
    match (header.word, &connection.phase) {
        (RESPONSE, Phase::Asked) => connection.accepted(),
        (RW, Phase::Open) => connection.put(bytes.get(..header.length as usize).ok_or(Broken)?),
        (SHUTDOWN, Phase::Open) => connection.shut_down(header.flags),
        (CREDIT_UPDATE, _) => Ok(()),
        (CREDIT_REQUEST, _) => {
            connection.asked_for_credit();
            Ok(())
        }
        _ => Err(Broken),
    }
}
