//! Interrupts by message (MSI-X): a table that the guest fills, and KVM's routes that follow it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry};
use kvm_ioctls::VmFd;

use crate::sys::Event;
use crate::virtio::device::Interrupt;
use crate::x86_64::layout::FIRST_MESSAGE_GSI;
use crate::{Doing as _, Error, Result};

const DOING: &str = "routing a device's interrupt";
/// The control word of an entry: masked.
const MASKED: u32 = 1;
/// Message control of the capability.
const FUNCTION_MASKED: u16 = 1 << 14;
const ENABLED: u16 = 1 << 15;
/// Bytes of an entry of the table.
pub const ENTRY: usize = 16;

/// KVM's table of routes. It is replaced as a whole with each change.
pub struct Routes {
    vm: Option<Arc<VmFd>>,
    messages: Mutex<Vec<Option<[u32; 3]>>>,
}

impl Routes {
    /// Routes of a machine, or of none (in tests).
    pub fn new(vm: Option<Arc<VmFd>>) -> Arc<Routes> {
        Arc::new(Routes { vm, messages: Mutex::default() })
    }

    /// Numbers for `count` more interrupts; the first.
    fn reserve(&self, count: usize) -> u32 {
        let mut messages = lock(&self.messages);
        let first = messages.len() as u32;
        messages.extend(std::iter::repeat_n(None, count));
        FIRST_MESSAGE_GSI + first
    }

    /// Lets interrupt `gsi` send this message (address low, high, data). The first time, `event` becomes what raises it.
    fn set(&self, gsi: u32, message: [u32; 3], event: &Event) -> Result<()> {
        let mut messages = lock(&self.messages);
        let slot = messages
            .get_mut((gsi - FIRST_MESSAGE_GSI) as usize)
            .ok_or_else(|| Error::refused(DOING, "no such interrupt"))?;
        if *slot == Some(message) {
            return Ok(());
        }
        let first = slot.replace(message).is_none();
        let Some(vm) = &self.vm else { return Ok(()) };
        vm.set_gsi_routing(&routing(&messages)?).doing(DOING)?;
        if first { vm.register_irqfd(event.eventfd(), gsi).doing(DOING) } else { Ok(()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The pins of the two interrupt controllers as KVM has them by default, and all messages.
fn routing(messages: &[Option<[u32; 3]>]) -> Result<KvmIrqRouting> {
    let mut entries = Vec::new();
    for gsi in 0..FIRST_MESSAGE_GSI {
        let mut pin = |irqchip, pin| {
            let mut entry =
                kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
            entry.u.irqchip.irqchip = irqchip;
            entry.u.irqchip.pin = pin;
            entries.push(entry);
        };
        if gsi < 16 {
            pin(gsi / 8, gsi % 8);
        }
        pin(kvm_bindings::KVM_IRQCHIP_IOAPIC, gsi);
    }
    for (index, message) in messages.iter().enumerate() {
        let Some([low, high, data]) = *message else { continue };
        let gsi = FIRST_MESSAGE_GSI + index as u32;
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
        entry.u.msi.address_lo = low;
        entry.u.msi.address_hi = high;
        entry.u.msi.data = data;
        entries.push(entry);
    }
    KvmIrqRouting::from_entries(&entries).map_err(|_| Error::refused(DOING, "too many"))
}

/// One interrupt, as the devices see it.
struct Vector {
    event: Event,
    /// The guest has it masked, or MSI-X off.
    masked: AtomicBool,
    /// It was raised while it was masked.
    pending: AtomicBool,
}

impl Vector {
    fn raise(&self) -> Result<()> {
        if self.masked.load(Ordering::Acquire) {
            self.pending.store(true, Ordering::Release);
            // It may have been unmasked between the two.
            if self.masked.load(Ordering::Acquire) || !self.pending.swap(false, Ordering::AcqRel) {
                return Ok(());
            }
        }
        self.event.raise().doing("raising a device's interrupt")
    }

    fn unmask(&self) -> Result<()> {
        self.masked.store(false, Ordering::Release);
        if self.pending.swap(false, Ordering::AcqRel) { self.raise() } else { Ok(()) }
    }
}

/// The MSI-X table of a function.
pub struct Table {
    routes: Arc<Routes>,
    first: u32,
    entries: Vec<[u32; 4]>,
    vectors: Vec<Arc<Vector>>,
    control: u16,
}

impl Table {
    /// A table of `count` entries, all masked, MSI-X off.
    pub fn new(routes: &Arc<Routes>, count: usize) -> Result<Table> {
        let vectors = (0..count).map(|_| {
            let event = Event::new().doing("making an interrupt")?;
            Ok(Arc::new(Vector { event, masked: AtomicBool::new(true), pending: AtomicBool::new(false) }))
        });
        let vectors = vectors.collect::<Result<_>>()?;
        let first = routes.reserve(count);
        Ok(Table {
            routes: routes.clone(),
            first,
            entries: vec![[0, 0, 0, MASKED]; count],
            vectors,
            control: 0,
        })
    }

    /// Its entries, one an interrupt.
    pub fn vectors(&self) -> usize {
        self.entries.len()
    }

    /// What raises interrupt `index`; one that does nothing if there is none.
    pub fn interrupt(&self, index: u16) -> Interrupt {
        match self.vectors.get(usize::from(index)).cloned() {
            Some(vector) => Interrupt::new(move || vector.raise()),
            None => Interrupt::new(|| Ok(())),
        }
    }

    /// The guest wrote the capability's message control.
    pub fn set_control(&mut self, control: u16) -> Result<()> {
        self.control = control;
        (0..self.entries.len()).try_for_each(|index| self.follow(index))
    }

    /// Reads the table. Accesses are of 4 or 8 aligned bytes; others read as zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        for (index, part) in data.chunks_exact_mut(4).enumerate() {
            let at = offset + index * 4;
            if let Some(entry) = self.entries.get(at / ENTRY).filter(|_| at.is_multiple_of(4)) {
                part.copy_from_slice(&entry[at % ENTRY / 4].to_le_bytes());
            }
        }
    }

    /// Writes the table.
    pub fn write(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        for (index, part) in data.chunks_exact(4).enumerate() {
            let at = offset + index * 4;
            let Ok(part) = part.try_into() else { continue };
            if let Some(entry) = self.entries.get_mut(at / ENTRY).filter(|_| at.is_multiple_of(4)) {
                entry[at % ENTRY / 4] = u32::from_le_bytes(part);
                // A masked entry is written word by word: only with the control word it is complete.
                if entry[3] & MASKED == 0 || at % ENTRY == 12 {
                    self.follow(at / ENTRY)?;
                }
            }
        }
        Ok(())
    }

    /// The pending bits, which the guest only polls while it masks.
    pub fn read_pending(&self, offset: usize, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let bits = self.vectors.iter().skip((offset + index).saturating_mul(8)).take(8).enumerate();
            *byte = bits.fold(0, |byte, (bit, vector)| {
                byte | u8::from(vector.pending.load(Ordering::Acquire)) << bit
            });
        }
    }

    /// Lets KVM and the devices know what entry `index` says now.
    fn follow(&mut self, index: usize) -> Result<()> {
        let [low, high, data, control] = self.entries[index];
        let open = self.control & (ENABLED | FUNCTION_MASKED) == ENABLED && control & MASKED == 0;
        let vector = &self.vectors[index];
        if !open {
            vector.masked.store(true, Ordering::Release);
            return Ok(());
        }
        self.routes.set(self.first + index as u32, [low, high, data], &vector.event)?;
        vector.unmask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_interrupt_waits_until_it_is_unmasked() {
        let mut table = Table::new(&Routes::new(None), 2).unwrap();
        let interrupt = table.interrupt(1);
        interrupt.raise().unwrap();
        let mut pending = [0; 1];
        table.read_pending(0, &mut pending);
        assert_eq!(pending, [2]);
        assert!(!table.vectors[1].event.take().unwrap());
        table.set_control(ENABLED).unwrap();
        table.write(ENTRY, &[1; 12]).unwrap();
        assert!(!table.vectors[1].event.take().unwrap());
        table.write(ENTRY + 12, &[0; 4]).unwrap();
        assert!(table.vectors[1].event.take().unwrap());
        interrupt.raise().unwrap();
        assert!(table.vectors[1].event.take().unwrap());
        table.set_control(ENABLED | FUNCTION_MASKED).unwrap();
        interrupt.raise().unwrap();
        assert!(!table.vectors[1].event.take().unwrap());
    }

    #[test]
    fn what_is_beyond_the_table_is_harmless() {
        let mut table = Table::new(&Routes::new(None), 1).unwrap();
        table.set_control(u16::MAX).unwrap();
        table.write(ENTRY, &[0; 8]).unwrap();
        table.write(3, &[0; 4]).unwrap();
        table.write(0, &[0; 1]).unwrap();
        let mut data = [9; 8];
        table.read(4096, &mut data);
        assert_eq!(data, [0; 8]);
        table.read_pending(usize::MAX - 8, &mut data);
        table.interrupt(9).raise().unwrap();
    }
}
