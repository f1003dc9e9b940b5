//! The balloon: memory that the guest gives up, when it is asked to or because it is free.
//!
//! Virtio 1.2, 5.5. Queues: inflate, deflate, free pages. (Drivers count only the queues that were negotiated.)

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::epoll::EpollFlags;
use virtio_queue::QueueT as _;

use super::EVENT_IDX;
use super::device::{Activation, Device};
use crate::sys::{self, Event};
use crate::{Doing as _, Result};

const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;

const INFLATE: usize = 0;
const FREE: usize = 2;
const SIZES: [u16; 3] = [128, 128, 32];
const ASKED: u64 = 16;
/// The balloon's page, whatever the guest's is.
const PAGE: u64 = 4096;
/// Bytes of one request's list of pages: the driver sends 256 numbers.
const MOST: usize = 4096;

/// What the balloon is asked for, and what it has.
#[derive(Debug)]
pub struct Target {
    /// Pages that the guest shall give up.
    wanted: AtomicU32,
    /// Pages that it gave up, by its own count.
    actual: AtomicU32,
    event: Event,
}

impl Target {
    /// Asks for `bytes`.
    pub fn set(&self, bytes: u64) -> Result<()> {
        self.wanted.store(u32::try_from(bytes / PAGE).unwrap_or(u32::MAX), Ordering::Release);
        self.event.raise().doing("setting the balloon")
    }

    /// Bytes that the guest says to have given up.
    pub fn actual(&self) -> u64 {
        u64::from(self.actual.load(Ordering::Acquire)) * PAGE
    }
}

/// The device.
pub struct Balloon {
    target: Arc<Target>,
    active: Option<Activation>,
}

impl Balloon {
    /// An empty balloon, and what sets its size.
    pub fn new() -> Result<(Balloon, Arc<Target>)> {
        let event = Event::new().doing("making the balloon")?;
        let target = Arc::new(Target { wanted: AtomicU32::new(0), actual: AtomicU32::new(0), event });
        Ok((Balloon { target: target.clone(), active: None }, target))
    }

    fn handle(&mut self, token: u64) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if token == ASKED {
            self.target.event.take().doing("reading the balloon's target")?;
            return active.changed.raise();
        }
        let memory = &active.memory;
        let Some(ring) = active.rings.get_mut(token as usize).filter(|ring| ring.queue.ready()) else {
            return Ok(());
        };
        ring.kick.take().doing("reading a queue's kick")?;
        ring.serve(memory, |chain| {
            // What cannot be discarded (not in memory, not whole pages) stays; the guest does not learn of it.
            match token as usize {
                INFLATE => {
                    for (start, length) in runs(&chain.copy(MOST)) {
                        let _ = sys::discard(memory, start, length);
                    }
                }
                FREE => {
                    for (start, length) in &chain.written {
                        let _ = sys::discard(memory, start.0, *length);
                    }
                }
                // What comes back is there again as soon as it is touched.
                _ => {}
            }
            Ok(0)
        })
    }
}

/// The ranges of a list of page numbers: neighbours are one.
fn runs(list: &[u8]) -> Vec<(u64, u64)> {
    let mut pages: Vec<u64> =
        list.as_chunks::<4>().0.iter().map(|page| u64::from(u32::from_le_bytes(*page))).collect();
    pages.sort_unstable();
    pages.dedup();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((start, length)) if *start + *length == page * PAGE => *length += PAGE,
            _ => runs.push((page * PAGE, PAGE)),
        }
    }
    runs
}

impl Device for Balloon {
    fn kind(&self) -> u32 {
        5
    }

    fn features(&self) -> u64 {
        DEFLATE_ON_OOM | REPORTING | EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn vectors(&self) -> usize {
        2
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 8];
        config[..4].copy_from_slice(&self.target.wanted.load(Ordering::Acquire).to_le_bytes());
        config[4..].copy_from_slice(&self.target.actual.load(Ordering::Acquire).to_le_bytes());
        super::read_bytes(&config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (4, Ok(actual)) = (offset, data.try_into()) {
            self.target.actual.store(u32::from_le_bytes(actual), Ordering::Release);
        }
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

    fn reset(&mut self) {
        if let Some(active) = self.active.take() {
            super::forget_kicks(&active);
            let _ = active.watcher.remove(self.target.event.as_fd());
        }
        self.target.actual.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_given_back_at_once() {
        let list: Vec<u8> = [7u32, 5, 6, 6, 9, u32::MAX].iter().flat_map(|page| page.to_le_bytes()).collect();
        assert_eq!(runs(&list), [(5 * PAGE, 3 * PAGE), (9 * PAGE, PAGE), (u64::from(u32::MAX) * PAGE, PAGE)]);
        assert!(runs(&list[..3]).is_empty());
    }
}
