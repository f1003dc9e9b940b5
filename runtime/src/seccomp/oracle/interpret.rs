//! The part of classic BPF that seccomp programs may use, as the kernel's checker and machine define it.

use libc::sock_filter;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::seccomp) struct Data {
    pub(in crate::seccomp) nr: u32,
    pub(in crate::seccomp) arch: u32,
    pub(in crate::seccomp) args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => 0, // The instruction pointer, which no profile can name.
            16..64 => {
                let arg = self.args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// Runs `program`; panics where the kernel would refuse it.
pub(in crate::seccomp) fn run(program: &[sock_filter], data: &Data) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let one = program[at];
        at += 1;
        let taken = match one.code {
            0x20 => {
                assert!(one.k.is_multiple_of(4));
                accumulator = data.word(one.k);
                continue;
            }
            0x54 => {
                accumulator &= one.k;
                continue;
            }
            0x05 => {
                at += one.k as usize;
                continue;
            }
            0x06 => return one.k,
            0x15 => accumulator == one.k,
            0x25 => accumulator > one.k,
            0x35 => accumulator >= one.k,
            code => panic!("opcode {code:#x} at {}", at - 1),
        };
        at += usize::from(if taken { one.jt } else { one.jf });
    }
}

/// What the kernel checks at installation: every jump inside, a return at the end.
pub(in crate::seccomp) fn check(program: &[sock_filter]) {
    assert!(!program.is_empty() && program.len() <= 4096);
    for (at, one) in program.iter().enumerate() {
        let furthest = match one.code {
            0x05 => one.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(one.jt.max(one.jf)),
            0x06 => continue,
            _ => 0,
        };
        assert!(at + 1 + furthest < program.len(), "instruction {at} leaves the program");
    }
    assert_eq!(program[program.len() - 1].code, 0x06);
}
