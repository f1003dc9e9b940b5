//! The network interface: packets between its two queues and a tap device.
//!
//! Virtio 1.2, 5.1. Received packets go through one buffer of ours, because only then their size is known and
//! the driver's buffers can be merged to it; sent ones are written from the guest's memory.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use virtio_queue::QueueT as _;

use super::EVENT_IDX;
use super::device::{Activation, Device};
use crate::sys::{self, Event};
use crate::{Doing as _, Result};

/// One network interface.
#[derive(Debug)]
pub struct Config {
    /// A tap device with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`; it can be attached later.
    pub tap: Option<OwnedFd>,
    /// The address that the guest's interface has.
    pub mac: [u8; 6],
    /// The largest packet in bytes, without the Ethernet header.
    pub mtu: u16,
}

/// Makes an open `/dev/net/tun` the tap device `name` of this network namespace, new or found.
pub fn open_tap(tun: OwnedFd, name: &str) -> Result<OwnedFd> {
    sys::name_tap(tun.as_fd(), name).doing(format!("opening the tap device {name}"))?;
    Ok(tun)
}

const CSUM: u64 = 1;
const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const MERGED: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;

const RECEIVE: usize = 0;
const SEND: usize = 1;
const SIZES: [u16; 2] = [256, 256];
const TAP: u64 = 16;
const ATTACHED: u64 = 17;

/// Bytes of the header before each packet; its last field counts merged buffers.
const HEADER: usize = 12;
const MERGED_COUNT: usize = 10;
/// The largest packet that segmentation offload makes, with all headers.
const LARGEST: usize = HEADER + 65_550;
/// Packets that are moved before other devices have their turn.
const TURN: usize = 64;

/// Brings a tap device to an interface.
#[derive(Debug)]
pub struct Attachment {
    tap: Mutex<Option<OwnedFd>>,
    event: Event,
}

impl Attachment {
    /// Hands the tap device over.
    pub fn attach(&self, tap: OwnedFd) -> Result<()> {
        *self.tap.lock().unwrap_or_else(PoisonError::into_inner) = Some(tap);
        self.event.raise().doing("attaching a network")
    }

    fn take(&self) -> Option<OwnedFd> {
        self.tap.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The device.
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    tap: Option<OwnedFd>,
    attachment: Arc<Attachment>,
    /// A packet that the driver had no room for yet, and its bytes in the buffer.
    waiting: usize,
    buffer: Vec<u8>,
    active: Option<Activation>,
    watched: bool,
}

impl Net {
    /// An interface, and what attaches a tap device to it.
    pub fn new(config: Config) -> Result<(Net, Arc<Attachment>)> {
        let event = Event::new().doing("making a network interface")?;
        let attachment = Arc::new(Attachment { tap: Mutex::new(config.tap), event });
        let net = Net {
            mac: config.mac,
            mtu: config.mtu,
            tap: None,
            attachment: attachment.clone(),
            waiting: 0,
            buffer: Vec::new(),
            active: None,
            watched: false,
        };
        Ok((net, attachment))
    }

    /// Takes a tap device that was attached, and says to both sides what the other can do.
    fn connect(&mut self) -> Result<()> {
        let arrived = self.attachment.take();
        let Some(active) = &self.active else { return Ok(()) };
        let doing = "attaching a network";
        let new = arrived.is_some();
        if let Some(tap) = arrived {
            if let Some(old) = self.tap.take().filter(|_| self.watched) {
                active.watcher.remove(old.as_fd())?;
            }
            self.watched = false;
            let flags = OFlag::from_bits_truncate(fcntl(&tap, FcntlArg::F_GETFL).doing(doing)?);
            fcntl(&tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).doing(doing)?;
            self.tap = Some(tap);
        }
        let Some(tap) = self.tap.as_ref().filter(|_| !self.watched) else { return Ok(()) };
        let mut offloads = 0;
        for (feature, offload) in
            [(GUEST_CSUM, libc::TUN_F_CSUM), (GUEST_TSO4, libc::TUN_F_TSO4), (GUEST_TSO6, libc::TUN_F_TSO6)]
        {
            if active.features & feature != 0 {
                offloads |= offload;
            }
        }
        sys::set_up_tap(tap.as_fd(), HEADER as i32, offloads).doing(doing)?;
        active.watcher.add(tap.as_fd(), EpollFlags::EPOLLIN.bits() as u32, TAP)?;
        self.watched = true;
        if self.buffer.is_empty() {
            self.buffer = vec![0; LARGEST];
        }
        if new { active.changed.raise() } else { Ok(()) }
    }

    /// Moves packets from the tap device to the guest.
    fn receive(&mut self) -> Result<()> {
        let (Some(active), Some(tap)) = (&mut self.active, &self.tap) else { return Ok(()) };
        let ring = &mut active.rings[RECEIVE];
        let mut used = false;
        let mut starved = false;
        for _ in 0..TURN {
            if self.waiting == 0 {
                match nix::unistd::read(tap, &mut self.buffer) {
                    Ok(count) => self.waiting = count,
                    Err(_) => break,
                }
            }
            if self.waiting < HEADER || !ring.queue.ready() {
                self.waiting = 0;
                continue;
            }
            match deliver(
                ring,
                &active.memory,
                &mut self.buffer[..self.waiting],
                active.features & MERGED != 0,
            )? {
                true => {
                    self.waiting = 0;
                    used = true;
                }
                false => {
                    if ring.again(&active.memory)? {
                        continue;
                    }
                    starved = true;
                    break;
                }
            }
        }
        if used {
            ring.notify(&active.memory)?;
        }
        if self.watched {
            // Without room the tap device keeps its packets, and drops what is too much.
            let wanted = if starved { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
            active.watcher.change(tap.as_fd(), wanted.bits() as u32, TAP)?;
        }
        Ok(())
    }

    /// Moves packets from the guest to the tap device.
    fn send(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let ring = &mut active.rings[SEND];
        if !ring.queue.ready() {
            return Ok(());
        }
        ring.serve(&active.memory, |chain| {
            if let Some(tap) = &self.tap {
                // A packet that the device does not take, for its form or for want of room, is lost as on a wire.
                let _ = sys::write(tap.as_fd(), &chain.readable);
            }
            Ok(0)
        })
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        match token {
            TAP => self.receive(),
            ATTACHED => {
                self.attachment.event.take().doing("attaching a network")?;
                self.connect()
            }
            queue => {
                let Some(active) = &self.active else { return Ok(()) };
                if let Some(ring) = active.rings.get(queue as usize) {
                    ring.kick.take().doing("reading a queue's kick")?;
                }
                if queue as usize == RECEIVE { self.receive() } else { self.send() }
            }
        }
    }
}

/// Gives a packet to the driver in as many buffers as it takes; false if there is no room now.
fn deliver(
    ring: &mut super::Ring,
    memory: &crate::memory::Memory,
    packet: &mut [u8],
    merged: bool,
) -> Result<bool> {
    let start = ring.queue.next_avail();
    let mut chains = Vec::new();
    let mut room = 0;
    while room < packet.len() && (merged || chains.is_empty()) && chains.len() < usize::from(u16::MAX) {
        match ring.next(memory) {
            Some(chain) => {
                room += chain.room();
                chains.push(chain);
            }
            None => {
                ring.queue.set_next_avail(start);
                return Ok(false);
            }
        }
    }
    packet[MERGED_COUNT..HEADER].copy_from_slice(&(chains.len() as u16).to_le_bytes());
    let mut rest: &[u8] = packet;
    for chain in &chains {
        let length = chain.answer(rest);
        rest = &rest[length as usize..];
        ring.done(memory, chain.head, length)?;
    }
    Ok(true)
}

impl Device for Net {
    fn kind(&self) -> u32 {
        1
    }

    fn features(&self) -> u64 {
        CSUM | GUEST_CSUM
            | MTU
            | MAC
            | GUEST_TSO4
            | GUEST_TSO6
            | HOST_TSO4
            | HOST_TSO6
            | MERGED
            | STATUS
            | EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0u8; 12];
        config[..6].copy_from_slice(&self.mac);
        // The link is up with a tap device behind it.
        config[6] = u8::from(self.tap.is_some());
        config[8] = 1;
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        super::read_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        super::watch_kicks(&activation)?;
        let event = self.attachment.event.as_fd();
        activation.watcher.add(event, EpollFlags::EPOLLIN.bits() as u32, ATTACHED)?;
        self.active = Some(activation);
        // A tap device is set up by the thread of the devices, as a processor's filter refuses that.
        self.attachment.event.raise().doing("attaching a network")
    }

    fn event(&mut self, token: u64) -> Result<()> {
        self.handle(token)
    }

    fn reset(&mut self) {
        if let Some(active) = self.active.take() {
            super::forget_kicks(&active);
            let _ = active.watcher.remove(self.attachment.event.as_fd());
            if let Some(tap) = &self.tap {
                let _ = active.watcher.remove(tap.as_fd());
            }
        }
        self.watched = false;
        self.waiting = 0;
    }
}
