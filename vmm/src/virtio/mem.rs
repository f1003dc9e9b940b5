//! Memory that comes and goes while the guest runs.
//!
//! Virtio 1.2, 5.15. The device owns a range of the guest's physical addresses; the driver plugs and unplugs blocks of it,
//! until as much is plugged as is asked for. The range is mapped all the time: a guest that touches what it has not
//! plugged takes memory that the host's limit counts, as with everything it touches.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::epoll::EpollFlags;
use virtio_queue::QueueT as _;

use super::EVENT_IDX;
use super::device::{Activation, Device};
use crate::memory::Memory;
use crate::sys::{self, Event};
use crate::{Doing as _, Result};

const SIZES: [u16; 1] = [64];
const ASKED: u64 = 16;

/// What is plugged and unplugged at once, in bytes.
pub const BLOCK: u64 = 2 << 20;

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

const ACK: u16 = 0;
const NACK: u16 = 1;
const ERROR: u16 = 3;

const PLUGGED: u16 = 0;
const UNPLUGGED: u16 = 1;
const MIXED: u16 = 2;

/// Bytes of a request: type, address, number of blocks, each padded to eight.
const REQUEST: usize = 24;

/// How much is asked for, and how much there is.
#[derive(Debug)]
pub struct Target {
    wanted: AtomicU64,
    plugged: AtomicU64,
    most: u64,
    event: Event,
}

impl Target {
    /// Asks for `bytes`, in whole blocks, at most as many as the range has.
    pub fn set(&self, bytes: u64) -> Result<()> {
        let wanted = bytes.min(self.most).next_multiple_of(BLOCK);
        self.wanted.store(wanted, Ordering::Release);
        self.event.raise().doing("asking for another size of memory")
    }

    /// Bytes that the guest has plugged.
    pub fn plugged(&self) -> u64 {
        self.plugged.load(Ordering::Acquire)
    }
}

/// The device.
pub struct Mem {
    target: Arc<Target>,
    start: u64,
    /// Whether each block is plugged.
    blocks: Vec<bool>,
    active: Option<Activation>,
}

impl Mem {
    /// A device for the range of `length` bytes from `start` on, nothing of it plugged, and what sets its size.
    pub fn new(start: u64, length: u64) -> Result<(Mem, Arc<Target>)> {
        let event = Event::new().doing("making the memory device")?;
        let target = Arc::new(Target {
            wanted: AtomicU64::new(0),
            plugged: AtomicU64::new(0),
            most: length / BLOCK * BLOCK,
            event,
        });
        let blocks = vec![false; (length / BLOCK) as usize];
        Ok((Mem { target: target.clone(), start, blocks, active: None }, target))
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        let Some(mut active) = self.active.take() else { return Ok(()) };
        let done = self.serve(&mut active, token);
        self.active = Some(active);
        done
    }

    fn serve(&mut self, active: &mut Activation, token: u64) -> Result<()> {
        if token == ASKED {
            self.target.event.take().doing("reading the size of memory")?;
            return active.changed.raise();
        }
        let Activation { memory, rings, .. } = active;
        let Some(ring) = rings.get_mut(token as usize).filter(|ring| ring.queue.ready()) else {
            return Ok(());
        };
        ring.kick.take().doing("reading a queue's kick")?;
        ring.serve(memory, |chain| {
            let (answer, state) = self.obey(memory, &chain.copy(REQUEST));
            let mut response = [0; 10];
            response[..2].copy_from_slice(&answer.to_le_bytes());
            response[8..].copy_from_slice(&state.to_le_bytes());
            Ok(chain.answer(&response))
        })
    }

    /// What a request is answered with, and the state that was asked for.
    fn obey(&mut self, memory: &Memory, request: &[u8]) -> (u16, u16) {
        let Ok(request) = <&[u8; REQUEST]>::try_from(request) else { return (ERROR, 0) };
        let word = |at: usize| u16::from_le_bytes([request[at], request[at + 1]]);
        let address = u64::from_le_bytes(request[8..16].try_into().unwrap_or_default());
        let kind = word(0);
        if kind == UNPLUG_ALL {
            self.unplug_all(memory);
            return (ACK, 0);
        }
        let Some(range) = self.range(address, word(16).into()) else { return (ERROR, 0) };
        let plugged = self.blocks[range.clone()].iter().filter(|block| **block).count();
        let bytes = range.len() as u64 * BLOCK;
        match kind {
            PLUG if plugged > 0 => (ERROR, 0),
            PLUG if self.target.plugged() + bytes > self.target.wanted.load(Ordering::Acquire) => (NACK, 0),
            PLUG => {
                self.blocks[range].fill(true);
                self.target.plugged.fetch_add(bytes, Ordering::AcqRel);
                (ACK, 0)
            }
            UNPLUG if plugged < range.len() => (ERROR, 0),
            UNPLUG => {
                self.blocks[range].fill(false);
                self.target.plugged.fetch_sub(bytes, Ordering::AcqRel);
                // In memory and in whole pages, so that nothing refuses it.
                let _ = sys::discard(memory, address, bytes);
                (ACK, 0)
            }
            STATE if plugged == 0 => (ACK, UNPLUGGED),
            STATE if plugged == range.len() => (ACK, PLUGGED),
            STATE => (ACK, MIXED),
            _ => (ERROR, 0),
        }
    }

    /// The numbers of `count` blocks from `address` on, if there are such.
    fn range(&self, address: u64, count: usize) -> Option<std::ops::Range<usize>> {
        let offset = address.checked_sub(self.start).filter(|offset| offset.is_multiple_of(BLOCK))?;
        let first = usize::try_from(offset / BLOCK).ok()?;
        let end = first.checked_add(count)?;
        (count > 0 && end <= self.blocks.len()).then_some(first..end)
    }

    fn unplug_all(&mut self, memory: &Memory) {
        if self.target.plugged.swap(0, Ordering::AcqRel) == 0 {
            return;
        }
        self.blocks.fill(false);
        let _ = sys::discard(memory, self.start, self.blocks.len() as u64 * BLOCK);
    }
}

impl Device for Mem {
    fn kind(&self) -> u32 {
        24
    }

    fn features(&self) -> u64 {
        EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let length = self.target.most;
        let plugged = self.target.plugged();
        let wanted = self.target.wanted.load(Ordering::Acquire);
        let mut config = [0; 56];
        // Size of a block, node, start, length, usable length, plugged, wanted.
        for (at, word) in [BLOCK, 0, self.start, length, length, plugged, wanted].into_iter().enumerate() {
            config[at * 8..at * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        super::read_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<()> {
        super::watch_kicks(&activation)?;
        let event = self.target.event.as_fd();
        activation.watcher.add(event, EpollFlags::EPOLLIN.bits() as u32, ASKED)?;
        self.active = Some(activation);
        Ok(())
    }

    fn event(&mut self, token: u64) -> Result<()> {
        self.handle(token)
    }

    /// What is plugged stays: a driver that is loaded again asks for the state.
    fn reset(&mut self) {
        if let Some(active) = self.active.take() {
            super::forget_kicks(&active);
            let _ = active.watcher.remove(self.target.event.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes as _, GuestAddress};

    use super::*;

    const START: u64 = 1 << 32;
    const LENGTH: u64 = 8 * BLOCK;

    fn request(kind: u16, address: u64, blocks: u16) -> Vec<u8> {
        let mut bytes = vec![0; REQUEST];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&address.to_le_bytes());
        bytes[16..18].copy_from_slice(&blocks.to_le_bytes());
        bytes
    }

    #[test]
    fn blocks_are_plugged_as_far_as_they_are_wanted_and_come_back_empty() {
        let memory = Memory::growing(64 << 20, LENGTH).unwrap();
        assert_eq!(memory.growth(), Some((START, LENGTH)));
        let (mut mem, target) = Mem::new(START, LENGTH).unwrap();
        let mut ask =
            |kind, block: u64, count| mem.obey(&memory, &request(kind, START + block * BLOCK, count));
        assert_eq!(ask(PLUG, 0, 1), (NACK, 0));
        target.set(3 * BLOCK - 1).unwrap();
        assert_eq!(ask(PLUG, 0, 2), (ACK, 0));
        assert_eq!(ask(PLUG, 1, 1), (ERROR, 0), "it is plugged already");
        assert_eq!(ask(PLUG, 2, 2), (NACK, 0), "more than is wanted");
        assert_eq!(ask(PLUG, 2, 1), (ACK, 0));
        assert_eq!(target.plugged(), 3 * BLOCK);
        assert_eq!(
            (ask(STATE, 0, 3), ask(STATE, 2, 2), ask(STATE, 3, 1)),
            ((ACK, PLUGGED), (ACK, MIXED), (ACK, UNPLUGGED))
        );
        memory.write_obj(7u32, GuestAddress(START + BLOCK)).unwrap();
        assert_eq!(ask(UNPLUG, 1, 1), (ACK, 0));
        assert_eq!(ask(UNPLUG, 1, 1), (ERROR, 0), "it is unplugged already");
        assert_eq!(memory.read_obj::<u32>(GuestAddress(START + BLOCK)).unwrap(), 0);
        assert_eq!(ask(UNPLUG_ALL, 0, 0), (ACK, 0));
        assert_eq!(target.plugged(), 0);
        // No more than there is, whatever is asked for.
        target.set(u64::MAX).unwrap();
        assert_eq!(ask(PLUG, 0, 8), (ACK, 0));
    }

    #[test]
    fn what_is_outside_is_an_error() {
        let memory = Memory::growing(64 << 20, LENGTH).unwrap();
        let (mut mem, target) = Mem::new(START, LENGTH).unwrap();
        target.set(LENGTH).unwrap();
        for (kind, address, blocks) in [
            (PLUG, START - BLOCK, 1),
            (PLUG, START + 1, 1),
            (PLUG, START, 0),
            (PLUG, START, 9),
            (PLUG, START + LENGTH, 1),
            (UNPLUG, u64::MAX, u16::MAX),
            (STATE, START + 7 * BLOCK, 2),
            (4, START, 1),
        ] {
            assert_eq!(
                mem.obey(&memory, &request(kind, address, blocks)),
                (ERROR, 0),
                "{kind} {address:x} {blocks}"
            );
        }
        assert_eq!(mem.obey(&memory, &request(PLUG, START, 1)[..23]), (ERROR, 0));
        assert_eq!(target.plugged(), 0);
    }
}
