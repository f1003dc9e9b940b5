//! Virtio on PCI (version 1 only): four registers blocks and the interrupt table in one piece of memory.
//!
//! The layout of the memory: common configuration, interrupt status, the device's own configuration, doorbells,
//! MSI-X table, pending bits; one page each.

use std::sync::{Arc, Mutex};

use kvm_ioctls::{IoEventAddress, VmFd};
use virtio_queue::{Queue, QueueT as _};

use super::device::{Activation, Device, Ring};
use crate::events::Events;
use crate::memory::Memory;
use crate::pci::config::{Identity, Space};
use crate::pci::message::{ENTRY, Routes, Table};
use crate::pci::root::Function;
use crate::sys::Event;
use crate::{Doing as _, Error, Result};

/// Bytes of the memory.
pub const LENGTH: u32 = 0x8000;
const COMMON: u64 = 0x0000;
const STATUS: u64 = 0x1000;
const OWN: u64 = 0x2000;
const DOORBELLS: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x5000;
const PAGE: u64 = 0x1000;
/// Registers of the common configuration that do nothing at once: start and bytes. All but the status, that is.
const QUIET: [(u64, u32); 2] = [(0x00, 0x14), (0x16, 0x22)];
/// Of an entry of the table all but its control: address and data.
const MESSAGE: u32 = 12;
/// Bytes between two doorbells.
const STRIDE: u32 = 4;

const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
const CAPABILITY_VENDOR: u8 = 9;
const CAPABILITY_MSIX: u8 = 0x11;
const VERSION_1: u64 = 1 << 32;
const NO_VECTOR: u16 = 0xffff;

// Device status.
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 0x40;

/// Where in the memory of a device with `vectors` interrupts writes can wait until the guest does something else that
/// the monitor sees: start and bytes.
///
/// Whatever depends on them is a read, or a write elsewhere: the status, or the control word of an interrupt, which
/// is masked while its message changes.
pub fn posted(vectors: usize) -> impl Iterator<Item = (u64, u32)> {
    let messages = (0..vectors).map(|index| (TABLE + (index * ENTRY) as u64, MESSAGE));
    QUIET.into_iter().map(|(start, length)| (COMMON + start, length)).chain(messages)
}

/// A device as the transport and the thread of the devices share it.
pub type Shared = Arc<Mutex<Box<dyn Device>>>;

/// A virtio device on the bus.
pub struct Transport {
    device: Shared,
    memory: Memory,
    /// None in tests: doorbells are then written by hand.
    vm: Option<Arc<VmFd>>,
    events: Events,
    /// Its number among those of `events`.
    number: u32,
    space: Space,
    msix: usize,
    table: Table,
    offered: u64,
    accepted: u64,
    offered_select: u32,
    accepted_select: u32,
    status: u8,
    queue_select: u16,
    changed_vector: u16,
    queues: Vec<(Queue, u16, Event)>,
    /// Where the doorbells are that KVM knows.
    doorbells: Option<u64>,
    active: bool,
}

impl Transport {
    /// Puts `device` on the bus, its memory at `address`.
    pub fn new(
        device: Shared,
        memory: Memory,
        vm: Option<Arc<VmFd>>,
        routes: &Arc<Routes>,
        events: Events,
        address: u32,
    ) -> Result<Transport> {
        let doing = "adding a device";
        let (kind, offered, sizes, vectors) = {
            let device = lock(&device);
            (
                device.kind() as u16,
                device.features() | VERSION_1,
                device.queue_sizes().to_vec(),
                device.vectors(),
            )
        };
        let class = match kind {
            1 => [2, 0, 0],
            2 => [1, 0x80, 0],
            3 => [7, 0x80, 0],
            _ => [0xff, 0, 0],
        };
        let identity = Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE + kind,
            class,
            revision: 1,
            subsystem: 0x40 + kind,
        };
        let mut space = Space::new(identity, LENGTH, address);
        let full = || Error::refused(doing, "its capabilities do not fit");
        for (kind, offset) in [(1u8, COMMON), (3, STATUS), (4, OWN), (2, DOORBELLS)] {
            let doorbells = kind == 2;
            let mut body = vec![if doorbells { 20 } else { 16 }, kind, 0, 0, 0, 0];
            body.extend((offset as u32).to_le_bytes());
            body.extend((PAGE as u32).to_le_bytes());
            if doorbells {
                body.extend(STRIDE.to_le_bytes());
            }
            space.add_capability(CAPABILITY_VENDOR, &body).ok_or_else(full)?;
        }
        let table = Table::new(routes, vectors)?;
        let mut body = ((table.vectors() - 1) as u16).to_le_bytes().to_vec();
        body.extend((TABLE as u32).to_le_bytes());
        body.extend((PENDING as u32).to_le_bytes());
        let msix = space.add_capability(CAPABILITY_MSIX, &body).ok_or_else(full)?;
        // Enable and function mask.
        space.allow(msix + 2, &0xc000u16.to_le_bytes());
        let queues = sizes.iter().map(|size| {
            let queue = Queue::new(*size).map_err(|error| Error::refused(doing, error.to_string()))?;
            Ok((queue, NO_VECTOR, Event::new().doing(doing)?))
        });
        let queues = queues.collect::<Result<_>>()?;
        let number = events.add(&device);
        Ok(Transport {
            device,
            memory,
            vm,
            events,
            number,
            space,
            msix,
            table,
            offered,
            accepted: 0,
            offered_select: 0,
            accepted_select: 0,
            status: 0,
            queue_select: 0,
            changed_vector: NO_VECTOR,
            queues,
            doorbells: None,
            active: false,
        })
    }

    fn selected(&self) -> Option<&(Queue, u16, Event)> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// A register of the common configuration (virtio 1.2, 4.1.4.3).
    fn register(&self, offset: u64) -> u32 {
        let half = |value: u64, select: u32| match select {
            0 => value as u32,
            1 => (value >> 32) as u32,
            _ => 0,
        };
        let queue = self.selected();
        let of = |what: fn(&Queue) -> u64| queue.map_or(0, |(queue, ..)| what(queue));
        match offset {
            0x00 => self.offered_select,
            0x04 => half(self.offered, self.offered_select),
            0x08 => self.accepted_select,
            0x0c => half(self.accepted, self.accepted_select),
            0x10 => self.changed_vector.into(),
            0x12 => self.queues.len() as u32,
            0x14 => self.status.into(),
            // The configuration's generation: ours changes as a whole, under a lock.
            0x15 => 0,
            0x16 => self.queue_select.into(),
            0x18 => of(|queue| queue.size().into()) as u32,
            0x1a => queue.map_or(NO_VECTOR, |(_, vector, _)| *vector).into(),
            0x1c => of(|queue| queue.ready().into()) as u32,
            0x1e => queue.map_or(0, |_| self.queue_select.into()),
            0x20 => of(Queue::desc_table) as u32,
            0x24 => (of(Queue::desc_table) >> 32) as u32,
            0x28 => of(Queue::avail_ring) as u32,
            0x2c => (of(Queue::avail_ring) >> 32) as u32,
            0x30 => of(Queue::used_ring) as u32,
            0x34 => (of(Queue::used_ring) >> 32) as u32,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) -> Result<()> {
        let vectors = self.table.vectors();
        let vector = |value: u32| if (value as usize) < vectors { value as u16 } else { NO_VECTOR };
        match offset {
            0x00 => self.offered_select = value,
            0x08 => self.accepted_select = value,
            0x0c if self.status & FEATURES_OK == 0 => {
                let shift = match self.accepted_select {
                    0 => 0,
                    1 => 32,
                    _ => return Ok(()),
                };
                self.accepted = self.accepted & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            0x10 => self.changed_vector = vector(value),
            0x14 => return self.set_status(value as u8),
            0x16 => self.queue_select = value as u16,
            _ => {}
        }
        // The rest is of a queue, which is fixed once the device works with it.
        let active = self.active;
        let Some((queue, place, _)) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return Ok(());
        };
        if offset == 0x1a {
            *place = vector(value);
        }
        if active {
            return Ok(());
        }
        match offset {
            0x18 => queue.set_size(value as u16),
            0x1c => queue.set_ready(value == 1),
            0x20 => queue.set_desc_table_address(Some(value), None),
            0x24 => queue.set_desc_table_address(None, Some(value)),
            0x28 => queue.set_avail_ring_address(Some(value), None),
            0x2c => queue.set_avail_ring_address(None, Some(value)),
            0x30 => queue.set_used_ring_address(Some(value), None),
            0x34 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
        Ok(())
    }

    fn set_status(&mut self, status: u8) -> Result<()> {
        if status == 0 {
            self.reset();
            return Ok(());
        }
        let new = status & !self.status;
        self.status = status | self.status & NEEDS_RESET;
        if new & FEATURES_OK != 0 && (self.accepted & !self.offered != 0 || self.accepted & VERSION_1 == 0) {
            self.status &= !FEATURES_OK;
        }
        if new & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 && !self.active {
            // A driver that set its device up wrongly has a device that needs a reset; the machine lives on.
            if self.activate().is_err() {
                self.deactivate();
                self.status |= NEEDS_RESET;
            }
        }
        Ok(())
    }

    fn activate(&mut self) -> Result<()> {
        let doing = "activating a device";
        let mut rings = Vec::with_capacity(self.queues.len());
        for (queue, vector, kick) in &self.queues {
            let mut queue =
                Queue::try_from(queue.state()).map_err(|error| Error::refused(doing, error.to_string()))?;
            if queue.ready() && !queue.is_valid::<vm_memory::GuestMemoryMmap>(&self.memory) {
                return Err(Error::refused(doing, "a queue lies outside of memory"));
            }
            queue.set_event_idx(self.accepted & 1 << 29 != 0);
            kick.take().doing(doing)?;
            let call = self.table.interrupt(*vector);
            rings.push(Ring { queue, kick: kick.try_clone().doing(doing)?, call });
        }
        self.active = true;
        self.ring_at(self.space.memory());
        let activation = Activation {
            memory: self.memory.clone(),
            rings,
            features: self.accepted,
            changed: self.table.interrupt(self.changed_vector),
            watcher: self.events.watcher(self.number),
        };
        lock(&self.device).activate(activation)
    }

    fn deactivate(&mut self) {
        self.events.forget(self.number);
        lock(&self.device).reset();
        // What cannot be taken back is rung in vain: the kick has no listener any more.
        self.ring_at(None);
        self.active = false;
    }

    /// Lets KVM turn writes to the doorbells at `address` into kicks, and no longer those where they were.
    ///
    /// What KVM refuses, as where a guest has moved two devices to one place, comes to us as any other write.
    fn ring_at(&mut self, address: Option<u64>) {
        let address = address.filter(|_| self.active);
        let Some(vm) = self.vm.clone().filter(|_| address != self.doorbells) else { return };
        let bell = |base: u64, index: usize| {
            IoEventAddress::Mmio(base + DOORBELLS + u64::from(STRIDE) * index as u64)
        };
        for (index, (_, _, kick)) in self.queues.iter().enumerate() {
            if let Some(base) = self.doorbells {
                let _ = vm.unregister_ioevent(kick.eventfd(), &bell(base, index), index as u16);
            }
            if let Some(base) = address {
                let _ = vm.register_ioevent(kick.eventfd(), &bell(base, index), index as u16);
            }
        }
        self.doorbells = address;
    }
}

fn lock(device: &Shared) -> std::sync::MutexGuard<'_, Box<dyn Device>> {
    device.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The registers of the common configuration: offset and bytes.
const REGISTERS: [(u64, usize); 20] = [
    (0x00, 4),
    (0x04, 4),
    (0x08, 4),
    (0x0c, 4),
    (0x10, 2),
    (0x12, 2),
    (0x14, 1),
    (0x15, 1),
    (0x16, 2),
    (0x18, 2),
    (0x1a, 2),
    (0x1c, 2),
    (0x1e, 2),
    (0x20, 4),
    (0x24, 4),
    (0x28, 4),
    (0x2c, 4),
    (0x30, 4),
    (0x34, 4),
    (0x38, 4),
];

impl Function for Transport {
    fn word(&self, offset: usize) -> u32 {
        self.space.word(offset)
    }

    fn write_configuration(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        self.space.write(offset, data);
        if offset & !3 == self.msix {
            self.table.set_control((self.space.word(self.msix) >> 16) as u16)?;
        }
        // It may have moved.
        self.ring_at(self.space.memory());
        Ok(())
    }

    fn memory(&self) -> Option<(u64, u64)> {
        self.space.memory().map(|address| (address, self.space.memory_length()))
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match offset & !(PAGE - 1) {
            COMMON => {
                // Linux reads registers whole; whoever reads parts of one gets these.
                for (start, bytes) in REGISTERS {
                    let value = self.register(start).to_le_bytes();
                    for (index, byte) in value.iter().take(bytes).enumerate() {
                        let at = (start + index as u64).checked_sub(offset).map(|at| at as usize);
                        if let Some(place) = at.and_then(|at| data.get_mut(at)) {
                            *place = *byte;
                        }
                    }
                }
            }
            OWN => lock(&self.device).read_config(offset - OWN, data),
            TABLE => self.table.read((offset - TABLE) as usize, data),
            PENDING => self.table.read_pending((offset - PENDING) as usize, data),
            // The interrupt status is only used without MSI-X, which we do not offer.
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        match offset & !(PAGE - 1) {
            COMMON => {
                // Drivers must write whole registers (4.1.3.1); 64-bit ones may come at once.
                if data.len() == 8 {
                    let (low, high) = data.split_at(4);
                    self.write(offset, low)?;
                    return self.write(offset + 4, high);
                }
                let known = REGISTERS.iter().any(|(start, bytes)| *start == offset && *bytes == data.len());
                let mut value = [0; 4];
                if known {
                    value[..data.len()].copy_from_slice(data);
                    return self.set_register(offset, u32::from_le_bytes(value));
                }
                Ok(())
            }
            OWN => {
                lock(&self.device).write_config(offset - OWN, data);
                Ok(())
            }
            // KVM takes well-formed ones; whoever writes otherwise still rings.
            DOORBELLS => match self.queues.get((offset - DOORBELLS) as usize / STRIDE as usize) {
                Some((_, _, kick)) if self.active => kick.raise().doing("ringing a doorbell"),
                _ => Ok(()),
            },
            TABLE => self.table.write((offset - TABLE) as usize, data),
            _ => Ok(()),
        }
    }

    fn reset(&mut self) {
        if self.active || self.status & NEEDS_RESET != 0 {
            self.deactivate();
        }
        self.status = 0;
        self.accepted = 0;
        self.offered_select = 0;
        self.accepted_select = 0;
        self.queue_select = 0;
        self.changed_vector = NO_VECTOR;
        for (queue, vector, _) in &mut self.queues {
            queue.reset();
            *vector = NO_VECTOR;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_that_the_guest_would_notice() {
        let waits =
            |at: u64| posted(2).any(|(start, length)| (start..start + u64::from(length)).contains(&at));
        for at in [0x14, STATUS, OWN, DOORBELLS, TABLE + 12, TABLE + 15, TABLE + 28, TABLE + 32, PENDING] {
            assert!(!waits(COMMON + at), "{at:#x}");
        }
        for at in [0x16, 0x34, 0x37, TABLE, TABLE + 11, TABLE + 16] {
            assert!(waits(COMMON + at), "{at:#x}");
        }
    }
}
