//! The socket between guest and host without a network (virtio 1.2, 5.10): streams, which end in UNIX sockets here.
//!
//! As other monitors have it: who connects in the guest to port P of the host (CID 2) is connected to the socket
//! `NAME_P` in a directory; who connects to the listening socket and says `CONNECT P` gets `OK PORT`, and is
//! connected to port P of the guest. Bytes are kept within each side's credit; the monitor never waits.

mod connection;
mod packet;
mod table;

use std::os::fd::{AsFd as _, OwnedFd};

use locule_runtime::sys::socket;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use virtio_queue::QueueT as _;

use super::EVENT_IDX;
use super::device::{Activation, Device};
use crate::{Doing as _, Result};
use packet::{HEADER, RW};
use table::Table;

/// A socket between guest and host.
#[derive(Debug)]
pub struct Config {
    /// The guest's address, from 3 on.
    pub cid: u32,
    /// The directory of the sockets that the guest may connect to.
    pub directory: OwnedFd,
    /// What their names begin with; `_` and the port follow.
    pub name: String,
    /// A listening stream socket, where programs of the host ask for ports of the guest's.
    pub listener: OwnedFd,
}

const RECEIVE: usize = 0;
const SEND: usize = 1;
/// For the guest, from the guest, and events, of which there are none before a machine is moved.
const SIZES: [u16; 3] = [128, 128, 16];
const LISTENER: u64 = 16;
/// Tokens from here on are connections.
const CONNECTION: u64 = 32;
/// Packets with bytes for the guest that are moved before other devices have their turn.
const TURN: usize = 64;

/// The device.
pub struct Vsock {
    cid: u32,
    listener: OwnedFd,
    /// The listener is watched; taking a connection failed since the guest was heard last.
    listening: bool,
    deaf: bool,
    table: Table,
    active: Option<Activation>,
}

impl Vsock {
    /// A socket device.
    pub fn new(config: Config) -> Result<Vsock> {
        let doing = "making a socket device";
        let flags = OFlag::from_bits_truncate(fcntl(&config.listener, FcntlArg::F_GETFL).doing(doing)?);
        fcntl(&config.listener, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).doing(doing)?;
        Ok(Vsock {
            cid: config.cid,
            listener: config.listener,
            listening: false,
            deaf: false,
            table: Table::new(config.cid, config.directory, config.name),
            active: None,
        })
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        match token {
            LISTENER => self.accept(),
            CONNECTION.. => self.table.ready((token - CONNECTION) as usize, &active.watcher),
            queue => {
                if let Some(ring) = active.rings.get(queue as usize) {
                    ring.kick.take().doing("reading a queue's kick")?;
                }
                self.deaf = false;
            }
        }
        // What the guest says may need answers before more of it is heard.
        while self.send()? {
            self.receive()?;
            if self.table.is_full() {
                break;
            }
        }
        self.receive()?;
        self.watch()
    }

    /// Takes connections of programs on the host.
    fn accept(&mut self) {
        while self.table.has_room() {
            match socket::accept(&self.listener) {
                Ok(socket) => self.table.take(socket),
                Err(Errno::EAGAIN) => break,
                // Who has gone meanwhile is no matter. Want of descriptors is, and would be told without end.
                Err(Errno::ECONNABORTED) => {}
                Err(_) => {
                    self.deaf = true;
                    break;
                }
            }
        }
    }

    /// Hears what the guest says; true if it has more to say than can be answered now.
    fn send(&mut self) -> Result<bool> {
        let Some(active) = &mut self.active else { return Ok(false) };
        let ring = &mut active.rings[SEND];
        let mut used = false;
        while ring.queue.ready() && !self.table.is_full() {
            let Some(chain) = ring.next(&active.memory) else {
                match ring.again(&active.memory)? {
                    true => continue,
                    false => break,
                }
            };
            self.table.hear(&chain.copy(HEADER + connection::ROOM), &active.watcher);
            ring.done(&active.memory, chain.head, 0)?;
            used = true;
        }
        if used {
            ring.notify(&active.memory)?;
        }
        Ok(self.table.is_full())
    }

    /// Tells the guest what there is to tell, as far as it has room.
    fn receive(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let ring = &mut active.rings[RECEIVE];
        let (mut used, mut moved) = (false, 0);
        while ring.queue.ready() {
            let Some(chain) = ring.next(&active.memory) else {
                match ring.again(&active.memory)? {
                    true => continue,
                    false => break,
                }
            };
            let room = chain.room();
            let mut length = 0;
            // A buffer without room for a header goes back as it is.
            if room >= HEADER {
                let Some((header, bytes)) = self.table.next(room) else {
                    ring.undo();
                    break;
                };
                length = chain.answer(&[&header.bytes(), bytes.as_slice()].concat());
                moved += usize::from(header.word == RW);
                if moved == TURN {
                    self.table.rest();
                }
            }
            ring.done(&active.memory, chain.head, length)?;
            used = true;
        }
        if used { ring.notify(&active.memory) } else { Ok(()) }
    }

    /// Waits for what can be done now.
    fn watch(&mut self) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let listens = self.table.has_room() && !self.deaf;
        match (self.listening, listens) {
            (false, true) => {
                let wanted = EpollFlags::EPOLLIN.bits() as u32;
                active.watcher.add(self.listener.as_fd(), wanted, LISTENER)?;
            }
            (true, false) => active.watcher.remove(self.listener.as_fd())?,
            _ => {}
        }
        self.listening = listens;
        self.table.watch(&active.watcher, CONNECTION)
    }
}

impl Device for Vsock {
    fn kind(&self) -> u32 {
        19
    }

    fn features(&self) -> u64 {
        EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn vectors(&self) -> usize {
        // One for all queues: each further one costs a boot ten exits.
        2
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::read_bytes(&u64::from(self.cid).to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        super::watch_kicks(&activation)?;
        self.active = Some(activation);
        self.watch()
    }

    fn event(&mut self, token: u64) -> Result<()> {
        self.handle(token)
    }

    fn reset(&mut self) {
        if let Some(active) = self.active.take() {
            super::forget_kicks(&active);
            self.table.clear(&active.watcher);
            if self.listening {
                let _ = active.watcher.remove(self.listener.as_fd());
            }
        }
        self.listening = false;
        self.deaf = false;
    }
}

#[cfg(test)]
mod tests;
