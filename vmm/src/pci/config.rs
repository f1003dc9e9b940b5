//! The configuration space of one function: bytes, and which of their bits the guest can change.

/// Where the words of the header begin that say the same whatever the guest writes, and their bytes: the addresses
/// from the second on, and that of a ROM.
pub const FIXED: [(usize, u32); 2] = [(BAR + 4, 20), (0x30, 4)];

/// Bytes that a function has.
pub const LENGTH: usize = 4096;
/// Bytes that are used: the rest, extended capabilities, is zero and stays so.
const USED: usize = 256;

const VENDOR: usize = 0x00;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BAR: usize = 0x10;
const SUBSYSTEM: usize = 0x2c;
const CAPABILITIES: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;

/// Memory decoding, bus mastering, and INTx off can be set.
const COMMAND_WRITABLE: u16 = 1 << 1 | 1 << 2 | 1 << 10;
const COMMAND_MEMORY: u16 = 1 << 1;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Who a function is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor and device.
    pub vendor: u16,
    /// The vendor's number of the device.
    pub device: u16,
    /// Class, subclass, programming interface.
    pub class: [u8; 3],
    /// Its revision.
    pub revision: u8,
    /// The subsystem's device number.
    pub subsystem: u16,
}

/// The configuration of a function with at most one BAR, of 32 bits, for memory.
#[derive(Debug, Clone)]
pub struct Space {
    bytes: [u8; USED],
    writable: [u8; USED],
    /// Bytes of BAR 0, a power of two; 0 is no BAR.
    bar: u32,
    next: usize,
    last_pointer: usize,
}

impl Space {
    /// A function that has BAR 0 of `bar` bytes at `address`.
    ///
    /// It does not decode memory before the guest says so: Linux would switch that off and on around each of the
    /// seven addresses that it looks at.
    pub fn new(identity: Identity, bar: u32, address: u32) -> Space {
        let mut space = Space {
            bytes: [0; USED],
            writable: [0; USED],
            bar,
            next: FIRST_CAPABILITY,
            last_pointer: CAPABILITIES,
        };
        space.put(VENDOR, &identity.vendor.to_le_bytes());
        space.put(VENDOR + 2, &identity.device.to_le_bytes());
        space.allow(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        let [class, subclass, interface] = identity.class;
        space.put(8, &[identity.revision, interface, subclass, class]);
        space.put(SUBSYSTEM, &identity.vendor.to_le_bytes());
        space.put(SUBSYSTEM + 2, &identity.subsystem.to_le_bytes());
        // The line register is the guest's to note something in.
        space.allow(0x3c, &[0xff]);
        if bar > 0 {
            space.put(BAR, &address.to_le_bytes());
            space.allow(BAR, &(!(bar - 1)).to_le_bytes());
        }
        space
    }

    /// Adds a capability: its number and what follows the pointer. Its offset; none if there is no room.
    pub fn add_capability(&mut self, number: u8, body: &[u8]) -> Option<usize> {
        let at = self.next;
        let end = at + 2 + body.len();
        if end > USED {
            return None;
        }
        self.put(at, &[number, 0]);
        self.put(at + 2, body);
        self.put(self.last_pointer, &[at as u8]);
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.last_pointer = at + 1;
        self.next = end.next_multiple_of(4);
        Some(at)
    }

    /// Lets the guest change these bits.
    pub fn allow(&mut self, offset: usize, bits: &[u8]) {
        for (place, bits) in self.writable.iter_mut().skip(offset).zip(bits) {
            *place |= bits;
        }
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        for (place, value) in self.bytes.iter_mut().skip(offset).zip(value) {
            *place = *value;
        }
    }

    /// Reads; beyond the used part is zero.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(offset.saturating_add(index)).copied().unwrap_or(0);
        }
    }

    /// Writes the bits that can be written.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (index, value) in data.iter().enumerate() {
            let at = offset.saturating_add(index);
            if let (Some(byte), Some(writable)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !writable | value & writable;
            }
        }
    }

    /// The aligned word at `offset`.
    pub fn word(&self, offset: usize) -> u32 {
        let mut word = [0; 4];
        self.read(offset & !3, &mut word);
        u32::from_le_bytes(word)
    }

    /// Where the function's memory is now; none while it does not decode.
    pub fn memory(&self) -> Option<u64> {
        let command = self.word(COMMAND) as u16;
        let address = u64::from(self.word(BAR) & 0xffff_fff0);
        (self.bar > 0 && command & COMMAND_MEMORY != 0).then_some(address)
    }

    /// Bytes of its memory.
    pub fn memory_length(&self) -> u64 {
        self.bar.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let identity =
            Identity { vendor: 0x1af4, device: 0x1043, class: [7, 0x80, 0], revision: 1, subsystem: 0x40 };
        Space::new(identity, 0x8000, 0xc000_0000)
    }

    #[test]
    fn a_bar_tells_its_size_and_moves() {
        let mut space = space();
        assert_eq!(space.memory(), None);
        space.write(COMMAND, &[2, 0]);
        assert_eq!(space.memory(), Some(0xc000_0000));
        space.write(BAR, &[0xff; 4]);
        assert_eq!(space.word(BAR), 0xffff_8000);
        space.write(BAR, &0xc100_1234u32.to_le_bytes());
        assert_eq!(space.memory(), Some(0xc100_0000));
        space.write(COMMAND, &[0, 0]);
        assert_eq!(space.memory(), None);
        space.write(BAR + 4, &[0xff; 4]);
        assert_eq!(space.word(BAR + 4), 0);
    }

    #[test]
    fn who_it_is_cannot_be_changed() {
        let mut space = space();
        space.write(0, &[0xff; 16]);
        assert_eq!(space.word(VENDOR), 0x1043_1af4);
        assert_eq!(space.word(8), 0x0780_0001);
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut space = space();
        let first = space.add_capability(9, &[3, 0, 0]).unwrap();
        let second = space.add_capability(0x11, &[0; 10]).unwrap();
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(space.word(CAPABILITIES) as u8, 0x40);
        assert_eq!(space.word(first) >> 8 & 0xff, 0x48);
        assert_eq!(space.word(second) >> 8 & 0xff, 0);
        assert!(space.add_capability(9, &[0; 250]).is_none());
    }

    #[test]
    fn accesses_over_the_end_are_harmless() {
        let mut space = space();
        let mut data = [1; 8];
        space.write(LENGTH - 2, &data);
        space.write(usize::MAX - 1, &data);
        space.read(usize::MAX - 1, &mut data);
        assert_eq!(data, [0; 8]);
        space.read(252, &mut data);
        assert_eq!(data[4..], [0; 4]);
    }
}
