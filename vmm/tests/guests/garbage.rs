//! What a hostile driver does: garbage everywhere, and in between enough sense that devices begin to work with it.

use super::payload::{CODE, Code};

/// One thing that it does.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Write { address: u32, value: u32, bytes: u8 },
    Read { address: u32, bytes: u8 },
    Output { port: u16, value: u32, bytes: u8 },
    Input { port: u16, bytes: u8 },
}

const DEVICES: u32 = 0xc000_0000;
const CONFIGURATION: u32 = 0xe000_0000;
/// Bytes of a device's memory, and of its place in the configuration.
const STRIDE: u32 = 0x8000;
/// Where the queues lie: a page each, 16 a device.
const QUEUES: u32 = 0x10_0000;
const QUEUE_SIZE: u32 = 16;
const AVAILABLE: u32 = 0x400;
const USED: u32 = 0x800;
/// What a device may write to without writing over the driver.
const SAFE: u32 = 8 << 20;
const BEYOND: u32 = CODE * 2;

/// Acts by a seed, for ever.
pub struct Garbage {
    state: u64,
    devices: u32,
}

impl Garbage {
    /// For a bus with `devices` virtio devices behind its bridge.
    pub fn new(seed: u64, devices: u32) -> Garbage {
        Garbage { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, devices }
    }

    /// xorshift64*.
    fn any(&mut self) -> u32 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    fn below(&mut self, end: u32) -> u32 {
        self.any() % end
    }

    fn bytes(&mut self) -> u8 {
        [1, 2, 4][self.below(3) as usize]
    }

    /// Often small, sometimes at an edge.
    fn value(&mut self) -> u32 {
        match self.below(6) {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << self.below(32),
            3 => self.below(32),
            _ => self.any(),
        }
    }

    /// Memory for a device to use: far from the driver's code, or none at all.
    fn place(&mut self) -> u32 {
        match self.below(8) {
            0 => BEYOND.saturating_add(self.any() % (u32::MAX - BEYOND)),
            1 => BEYOND - 1 - self.below(8),
            _ => self.below(SAFE),
        }
    }

    /// The next few acts.
    pub fn next(&mut self, acts: &mut Vec<Act>) {
        let device = self.below(self.devices);
        let base = DEVICES + device * STRIDE;
        let configuration = CONFIGURATION + (device + 1) * STRIDE;
        let queues = QUEUES + device * 0x1_0000;
        let mut write = |address, value, bytes| acts.push(Act::Write { address, value, bytes });
        match self.below(16) {
            0 | 1 => self.set_up(device, &mut write),
            // A request: descriptors, then the ring, then the doorbell.
            2..=6 => {
                let queue = queues + self.below(8) * 0x1000;
                for _ in 0..=self.below(4) {
                    let index = self.below(QUEUE_SIZE + 2);
                    let at = queue + index * 16;
                    let length =
                        if self.below(6) == 0 { u32::MAX - self.below(4096) } else { self.below(0x3000) };
                    let high = if self.below(20) == 0 { self.value() } else { 0 };
                    write(at, self.place(), 4);
                    write(at + 4, high, 4);
                    write(at + 8, length, 4);
                    write(at + 12, self.below(8) | (self.below(QUEUE_SIZE + 2) << 16), 4);
                }
                let ring = queue + AVAILABLE;
                for _ in 0..=self.below(3) {
                    write(ring + 4 + self.below(QUEUE_SIZE) * 2, self.below(QUEUE_SIZE + 1), 2);
                }
                let next = if self.below(8) == 0 { self.value() } else { self.below(64) };
                write(ring + 2, next, 2);
                let bell = (queue - queues) / 0x1000;
                write(base + 0x3000 + bell * 4, bell, 2);
            }
            // A request's content: what a driver would say to any device.
            7 => {
                for _ in 0..8 {
                    write(self.below(SAFE) & !3, self.value(), 4);
                }
            }
            // Registers.
            8 | 9 => {
                let offset = self.below(0x40);
                write(base + offset, self.value(), self.bytes());
            }
            10 => {
                let offset = self.below(STRIDE);
                write(base + offset, self.value(), self.bytes());
            }
            11 => acts.push(Act::Read { address: base + self.below(STRIDE), bytes: self.bytes() }),
            // Configuration, also of places that are empty.
            12 => {
                let offset = self.below(0x100);
                write(configuration + offset, self.value(), self.bytes());
            }
            // A device on top of another one, or of whatever is there.
            13 => {
                let other = DEVICES + self.below(self.devices + 1) * STRIDE;
                let to = if self.below(4) == 0 { self.any() | BEYOND } else { other };
                write(configuration + 0x10, to, 4);
                write(configuration + 4, 6, 2);
            }
            14 => {
                // Everything from the first device to the interrupt controllers; these are KVM's.
                let address = DEVICES + self.below(0x3ec0_0000);
                if self.below(2) == 0 {
                    write(address, self.value(), self.bytes());
                } else {
                    acts.push(Act::Read { address, bytes: self.bytes() });
                }
            }
            _ => {
                let (port, value, bytes) = (self.below(0x1_0000) as u16, self.value(), self.bytes());
                let near = if self.below(2) == 0 {
                    port
                } else {
                    [0x64, 0x70, 0x71, 0x3f8, 0x600, 0xcf8][port as usize % 6]
                };
                // Not the ends: these come last.
                let ends = matches!((near, value as u8), (0x64, 0xfe) | (0x600, 0x34) | (0x602, 1));
                if !ends && self.below(2) == 0 {
                    acts.push(Act::Output { port: near, value, bytes });
                } else {
                    acts.push(Act::Input { port: near, bytes });
                }
            }
        }
    }

    /// As a driver does it, but for a random bit here and there.
    fn set_up(&mut self, device: u32, write: &mut impl FnMut(u32, u32, u8)) {
        let base = DEVICES + device * STRIDE;
        let configuration = CONFIGURATION + (device + 1) * STRIDE;
        write(configuration + 0x10, base, 4);
        write(configuration + 4, 6, 2);
        // MSI-X on; the capability lies behind the four of virtio.
        write(configuration + 0x84 + 2, 0x8000, 2);
        for index in 0..4 {
            let entry = base + 0x4000 + index * 16;
            write(entry, 0xfee0_0000, 4);
            write(entry + 8, self.value(), 4);
            write(entry + 12, self.below(2), 4);
        }
        write(base + 0x14, 0, 1);
        let features = if self.below(2) == 0 { self.any() } else { 0 };
        for (offset, value) in [(0x08, 0), (0x0c, features), (0x08, 1), (0x0c, 1)] {
            write(base + offset, value, 4);
        }
        write(base + 0x14, 11, 1);
        for queue in 0..8 {
            let at = QUEUES + device * 0x1_0000 + queue * 0x1000;
            write(base + 0x16, queue, 2);
            let odd = self.below(24) == 0;
            write(base + 0x18, if odd { self.value() } else { QUEUE_SIZE }, 2);
            write(base + 0x1a, self.below(5), 2);
            for (offset, place) in [(0x20, 0), (0x28, AVAILABLE), (0x30, USED)] {
                write(base + offset, if odd { self.place() } else { at + place }, 4);
                write(base + offset + 4, 0, 4);
            }
            write(base + 0x1c, 1, 2);
        }
        // With refused features a driver would try with fewer; this one does not look.
        write(base + 0x14, 15, 1);
    }
}

/// A guest that does `decisions` of garbage and then powers off.
pub fn guest(seed: u64, devices: u32, decisions: usize) -> Code {
    let mut garbage = Garbage::new(seed, devices);
    let mut acts = Vec::new();
    for _ in 0..decisions {
        garbage.next(&mut acts);
    }
    let mut code = Code::default();
    for act in acts {
        match act {
            Act::Write { address, value, bytes } => code.write(address, value, bytes),
            Act::Read { address, bytes } => code.read(address, bytes),
            Act::Output { port, value, bytes } => code.output(port, value, bytes),
            Act::Input { port, bytes } => code.input(port, bytes),
        };
    }
    code.power_off().halt();
    code
}
