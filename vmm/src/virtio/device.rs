//! What every virtio device is to the transport, and what the transport hands to it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::sys::Event;
use virtio_queue::{Queue, QueueT as _};

use crate::memory::Memory;
use crate::{Error, Result};

/// A virtio device. The transport calls it under a lock; `event` comes from the thread of the devices, the
/// others from a virtual processor.
pub trait Device: Send {
    /// The device's number in the specification (1 network, 26 file system, …).
    fn kind(&self) -> u32;
    /// The features that it offers; the transport adds `VIRTIO_F_VERSION_1`.
    fn features(&self) -> u64;
    /// The largest size of each queue, powers of two.
    fn queue_sizes(&self) -> &[u16];
    /// Its interrupts: one for changes of the configuration and one for each queue, unless it can share.
    fn vectors(&self) -> usize {
        self.queue_sizes().len() + 1
    }
    /// Reads the device's own configuration. Bytes beyond its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// Writes the device's own configuration. What cannot be written is ignored.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
    /// The driver is ready. A queue that it left out is not `ready()`.
    fn activate(&mut self, activation: Activation) -> Result<()>;
    /// A descriptor that the device gave to its [`Watcher`] is ready. After an error the caller resets the device: the driver
    /// has broken it, and a queue that is broken beyond use is one that is not served any more.
    fn event(&mut self, _token: u64) -> Result<()> {
        Ok(())
    }
    /// The driver gave the device up: threads end, queues go, backends stay for the next `activate`.
    fn reset(&mut self);
}

/// What a device works with from `activate` to `reset`.
pub struct Activation {
    /// The guest's memory.
    pub memory: Memory,
    /// The queues, in the order of `queue_sizes`.
    pub rings: Vec<Ring>,
    /// What was negotiated.
    pub features: u64,
    /// Raises the interrupt for a change of the configuration.
    pub changed: Interrupt,
    /// Has descriptors watched by the thread of the devices.
    pub watcher: Watcher,
}

/// One queue with its two ways of calling.
pub struct Ring {
    /// The queue.
    pub queue: Queue,
    /// Readable when the driver has put something into the queue (non-blocking).
    pub kick: Event,
    /// Raises the queue's interrupt.
    pub call: Interrupt,
}

impl Ring {
    /// Raises the interrupt if the driver wants it for what was used since the last time.
    pub fn notify(&mut self, memory: &Memory) -> Result<()> {
        match self.queue.needs_notification::<vm_memory::GuestMemoryMmap>(memory) {
            Ok(true) => self.call.raise(),
            Ok(false) => Ok(()),
            Err(error) => Err(Error::refused("notifying the driver of a queue", error.to_string())),
        }
    }
}

/// One interrupt of a device.
#[derive(Clone)]
pub struct Interrupt(Arc<dyn Fn() -> Result<()> + Send + Sync>);

impl Interrupt {
    /// An interrupt that `raise` brings about.
    pub fn new(raise: impl Fn() -> Result<()> + Send + Sync + 'static) -> Interrupt {
        Interrupt(Arc::new(raise))
    }

    /// Raises it.
    pub fn raise(&self) -> Result<()> {
        (self.0)()
    }
}

/// Has descriptors watched for one device until its reset.
#[derive(Clone)]
pub struct Watcher(Arc<dyn Watch>);

/// What stands behind a [`Watcher`].
pub trait Watch: Send + Sync {
    /// Calls the device's `event(token)` when `descriptor` is ready for `events` (`EPOLLIN`, …; level-triggered).
    fn add(&self, descriptor: BorrowedFd, events: u32, token: u64) -> Result<()>;
    /// Changes what is waited for; 0 is nothing.
    fn change(&self, descriptor: BorrowedFd, events: u32, token: u64) -> Result<()>;
    /// Ends it. A descriptor that is closed must be removed first.
    fn remove(&self, descriptor: BorrowedFd) -> Result<()>;
}

impl Watcher {
    /// A watcher by `watch`.
    pub fn new(watch: impl Watch + 'static) -> Watcher {
        Watcher(Arc::new(watch))
    }
}

impl std::ops::Deref for Watcher {
    type Target = dyn Watch;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}
