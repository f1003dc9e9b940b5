//! The bus: functions in their places, reached by configuration and by memory accesses.

use std::sync::{Arc, Mutex};

use super::config::{FIXED, LENGTH};
use crate::sys::Window;
use crate::x86_64::layout::{PCI_CONFIGURATION_LENGTH, PCI_MEMORY, PCI_MEMORY_END};
use crate::{Doing as _, Error, Result};

/// Places on the bus; each could have eight functions, of which we use the first.
const PLACES: usize = 32;
const FUNCTIONS: usize = 8;

/// A function on the bus.
pub trait Function: Send {
    /// The aligned word of its configuration at `offset`.
    fn word(&self, offset: usize) -> u32;
    /// The guest writes 1, 2 or 4 bytes of its configuration.
    fn write_configuration(&mut self, offset: usize, data: &[u8]) -> Result<()>;
    /// Where its memory is, and how long; none while it does not decode.
    fn memory(&self) -> Option<(u64, u64)>;
    /// The guest reads its memory.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// The guest writes its memory.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()>;
    /// The machine ends.
    fn reset(&mut self);
}

/// A function that is shared between the processors.
pub type Shared = Arc<Mutex<dyn Function>>;

/// The bus.
pub struct Root {
    functions: Vec<Shared>,
    /// What the guest reads of the configuration, without an exit.
    window: Window,
    next: u64,
}

impl Root {
    /// A bus with its host bridge.
    pub fn new() -> Result<Root> {
        let window = Window::new(PCI_CONFIGURATION_LENGTH as usize).doing("making the PCI bus")?;
        let mut root = Root { functions: Vec::new(), window, next: PCI_MEMORY };
        // Nothing is in a place that reads as all ones. Other functions than the first are never looked for.
        for place in 0..PLACES {
            root.window.set(place * FUNCTIONS * LENGTH, u32::MAX);
        }
        root.add(Arc::new(Mutex::new(Bridge(bridge()))))?;
        Ok(root)
    }

    /// The memory of the guest's configuration window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// An address for `length` bytes (a power of two) of a function's memory.
    pub fn reserve(&mut self, length: u32) -> Result<u32> {
        let start = self.next.next_multiple_of(length.into());
        self.next = start + u64::from(length);
        if self.next > PCI_MEMORY_END {
            return Err(Error::refused("adding a device", "there is no room for its memory"));
        }
        Ok(start as u32)
    }

    /// Adds a function in the next place.
    pub fn add(&mut self, function: Shared) -> Result<()> {
        let place = self.functions.len();
        if place >= PLACES {
            return Err(Error::refused("adding a device", "the bus has room for 31"));
        }
        {
            let function = lock(&function);
            for offset in (0..256).step_by(4) {
                self.window.set(place * FUNCTIONS * LENGTH + offset, function.word(offset));
            }
        }
        self.functions.push(function);
        Ok(())
    }

    /// Where in the window writes change nothing, so that nobody need wait for them: start and bytes.
    pub fn posted(&self) -> impl Iterator<Item = (u64, u32)> {
        let places = (0..self.functions.len()).map(|place| place * FUNCTIONS * LENGTH);
        places.flat_map(|place| FIXED.map(|(offset, length)| ((place + offset) as u64, length)))
    }

    /// The function at `offset` of the configuration window, and the offset in it.
    fn at(&self, offset: u64) -> Option<(usize, &Shared, usize)> {
        let place = (offset as usize) / (FUNCTIONS * LENGTH);
        let function = offset as usize / LENGTH % FUNCTIONS;
        let shared = self.functions.get(place).filter(|_| function == 0)?;
        Some((place, shared, offset as usize % LENGTH))
    }

    /// A read of the configuration that KVM did not answer from the window.
    pub fn read_configuration(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((_, function, offset)) = self.at(offset) else { return };
        let function = lock(function);
        for (index, byte) in data.iter_mut().enumerate() {
            let at = offset + index;
            *byte = function.word(at & !3).to_le_bytes()[at % 4];
        }
    }

    /// A write to the configuration.
    pub fn write_configuration(&self, offset: u64, data: &[u8]) -> Result<()> {
        let Some((place, function, offset)) = self.at(offset) else { return Ok(()) };
        // Longer or crossing a word is nothing that a bus can carry.
        if data.len() > 4 || offset % 4 + data.len() > 4 {
            return Ok(());
        }
        let mut function = lock(function);
        function.write_configuration(offset, data)?;
        let at = offset & !3;
        self.window.set(place * FUNCTIONS * LENGTH + at, function.word(at));
        Ok(())
    }

    /// The function whose memory `address` is in, and the offset in it.
    fn find(&self, address: u64) -> Option<(&Shared, u64)> {
        self.functions.iter().find_map(|function| {
            let (start, length) = lock(function).memory()?;
            let offset = address.checked_sub(start)?;
            (offset < length).then_some((function, offset))
        })
    }

    /// A read of device memory: all ones where nothing is.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((function, offset)) => lock(function).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// A write to device memory.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        match self.find(address) {
            Some((function, offset)) => lock(function).write(offset, data),
            None => Ok(()),
        }
    }

    /// Ends what the functions do.
    pub fn reset(&self) {
        for function in &self.functions {
            lock(function).reset();
        }
    }
}

fn lock(function: &Shared) -> std::sync::MutexGuard<'_, dyn Function + 'static> {
    function.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The host bridge: there because a bus has one.
struct Bridge(super::config::Space);

fn bridge() -> super::config::Space {
    // The identity of QEMU's virtual host bridge ("PCIe host bridge of generic PCI").
    let identity = super::config::Identity {
        vendor: 0x1b36,
        device: 0x0008,
        class: [6, 0, 0],
        revision: 0,
        subsystem: 0x1100,
    };
    super::config::Space::new(identity, 0, 0)
}

impl Function for Bridge {
    fn word(&self, offset: usize) -> u32 {
        self.0.word(offset)
    }

    fn write_configuration(&mut self, offset: usize, data: &[u8]) -> Result<()> {
        self.0.write(offset, data);
        Ok(())
    }

    fn memory(&self) -> Option<(u64, u64)> {
        None
    }

    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_places_that_are_taken_answer() {
        let root = Root::new().unwrap();
        let mut word = [0; 4];
        root.read_configuration(0, &mut word);
        assert_eq!(word, [0x36, 0x1b, 8, 0]);
        for offset in [LENGTH as u64, (FUNCTIONS * LENGTH) as u64, PCI_CONFIGURATION_LENGTH - 4, u64::MAX - 3]
        {
            root.read_configuration(offset, &mut word);
            assert_eq!(word, [0xff; 4], "{offset:#x}");
            root.write_configuration(offset, &[0; 4]).unwrap();
        }
        root.write_configuration(2, &[0xff; 4]).unwrap();
        root.write_configuration(0, &[0xff; 8]).unwrap();
        root.read(PCI_MEMORY, &mut word);
        assert_eq!(word, [0xff; 4]);
        root.write(u64::MAX, &word).unwrap();
    }

    #[test]
    fn what_nobody_waits_for_changes_nothing() {
        let root = Root::new().unwrap();
        let mut before = [0; 256];
        root.read_configuration(0, &mut before);
        for (start, length) in root.posted() {
            for offset in (start..start + u64::from(length)).step_by(4) {
                root.write_configuration(offset, &[0xff; 4]).unwrap();
            }
        }
        let mut after = [0; 256];
        root.read_configuration(0, &mut after);
        assert_eq!(before, after);
    }

    #[test]
    fn the_room_for_memory_ends() {
        let mut root = Root::new().unwrap();
        assert_eq!(root.reserve(0x8000).unwrap(), PCI_MEMORY as u32);
        assert_eq!(root.reserve(0x10000).unwrap(), PCI_MEMORY as u32 + 0x10000);
        assert!(root.reserve(1 << 30).is_err());
    }
}
