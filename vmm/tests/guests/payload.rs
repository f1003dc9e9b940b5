//! Guests of a few instructions, in 32-bit protected mode without paging: where PVH begins.

use std::fs::File;
use std::io::Write as _;

/// Where their code lies; what devices are told to write to is elsewhere.
pub const CODE: u32 = 16 << 20;
/// What a guest needs to hold it, in MiB.
pub const MEMORY: u64 = 32;
const PAGE: usize = 4096;

/// Instructions.
#[derive(Default)]
pub struct Code(Vec<u8>);

impl Code {
    /// `mov [address], eax` with `value` in it, its low `bytes` (1, 2 or 4).
    pub fn write(&mut self, address: u32, value: u32, bytes: u8) -> &mut Code {
        self.op(&[0xb8], value);
        self.sized(bytes, 0xa2, 0xa3);
        self.0.extend(address.to_le_bytes());
        self
    }

    /// `mov eax, [address]`.
    pub fn read(&mut self, address: u32, bytes: u8) -> &mut Code {
        self.sized(bytes, 0xa0, 0xa1);
        self.0.extend(address.to_le_bytes());
        self
    }

    /// `out dx, eax`.
    pub fn output(&mut self, port: u16, value: u32, bytes: u8) -> &mut Code {
        self.op(&[0xba], port.into());
        self.op(&[0xb8], value);
        self.sized(bytes, 0xee, 0xef)
    }

    /// `in eax, dx`.
    pub fn input(&mut self, port: u16, bytes: u8) -> &mut Code {
        self.op(&[0xba], port.into());
        self.sized(bytes, 0xec, 0xed)
    }

    /// Powers off by ACPI: sleep type 5, enabled.
    pub fn power_off(&mut self) -> &mut Code {
        self.output(0x600, 5 << 2 | 1 << 5, 1)
    }

    /// Resets by ACPI.
    pub fn reset(&mut self) -> &mut Code {
        self.output(0x602, 1, 1)
    }

    /// A fault without a table of what to do then, which is a fault, of which nobody knows what to do: `lidt` of
    /// zeros, `ud2`.
    pub fn triple_fault(&mut self) -> &mut Code {
        let nothing = CODE - 16;
        self.op(&[0x0f, 0x01, 0x1d], nothing);
        self.0.extend([0x0f, 0x0b]);
        self
    }

    /// `hlt`, for ever, as no interrupt is let through.
    pub fn halt(&mut self) -> &mut Code {
        self.0.extend([0xf4, 0xeb, 0xfd]);
        self
    }

    fn op(&mut self, opcode: &[u8], argument: u32) {
        self.0.extend(opcode);
        self.0.extend(argument.to_le_bytes());
    }

    fn sized(&mut self, bytes: u8, byte: u8, word: u8) -> &mut Code {
        match bytes {
            1 => self.0.push(byte),
            2 => self.0.extend([0x66, word]),
            _ => self.0.push(word),
        }
        self
    }

    /// Writes it into `file` as a kernel: one segment, and a note that says where to begin.
    pub fn write_kernel(&self, file: &mut File) -> std::io::Result<()> {
        let length = self.0.len() as u64;
        let mut bytes = vec![0; PAGE];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        // x86-64; the program headers at 64, two of 56 bytes.
        for (at, value) in [(18, 62), (32, 64), (54, 56), (56, 2)] {
            bytes[at] = value;
        }
        let note = 0x200;
        let mut header = |at: usize, kind: u32, [offset, address, length]: [u64; 3]| {
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            for (place, value) in [(8, offset), (24, address), (32, length), (40, length)] {
                bytes[at + place..at + place + 8].copy_from_slice(&value.to_le_bytes());
            }
        };
        header(64, 1, [PAGE as u64, CODE.into(), length]);
        header(120, 4, [note as u64, 0, 20]);
        let words = [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), CODE];
        for (index, word) in words.iter().enumerate() {
            bytes[note + index * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
        bytes.extend(&self.0);
        file.write_all(&bytes)
    }
}
