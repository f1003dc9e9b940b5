//! Virtio: what a device is, its queues, and how it sits on the PCI bus.

pub mod balloon;
pub mod block;
pub mod chain;
pub mod console;
pub mod device;
pub mod mem;
pub mod net;
pub mod rng;
pub mod transport;
pub mod vsock;

use std::os::fd::AsFd as _;

use nix::sys::epoll::EpollFlags;
use virtio_queue::QueueT as _;

pub use crate::sys::Event;
pub use device::{Activation, Device, Interrupt, Ring, Watcher};

use crate::Result;

/// `VIRTIO_RING_F_EVENT_IDX`: each side says from which request on it wants to be called.
pub const EVENT_IDX: u64 = 1 << 29;

/// Reads a device's configuration from its bytes; zero beyond the end.
pub fn read_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    for (index, byte) in data.iter_mut().enumerate() {
        let at = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(index);
        *byte = config.get(at).copied().unwrap_or(0);
    }
}

/// Has the kick of each queue that the driver set up watched, under the queue's number.
pub fn watch_kicks(active: &Activation) -> Result<()> {
    for (number, ring) in active.rings.iter().enumerate().filter(|(_, ring)| ring.queue.ready()) {
        active.watcher.add(ring.kick.as_fd(), EpollFlags::EPOLLIN.bits() as u32, number as u64)?;
    }
    Ok(())
}

/// Watches no queue of a device any more.
pub fn forget_kicks(active: &Activation) {
    for ring in &active.rings {
        // It may not have been watched.
        let _ = active.watcher.remove(ring.kick.as_fd());
    }
}
