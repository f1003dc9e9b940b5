//! bpf(2): one program for the packet scheduler, of four instructions.
//!
//! Owned descriptors out. The only unsafe code of this crate.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD needs; the kernel takes what follows as zero.
#[repr(C)]
#[derive(Debug)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    version: u32,
    flags: u32,
}

/// A program that gives each packet the priority `number`, which HTB takes as its class, and matches.
pub fn classifier(number: u32) -> nix::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const SCHED_CLS: u32 = 3;
    const PRIORITY: i16 = 32; // offset in struct __sk_buff
    const MATCH: i32 = -1;
    let program = [
        // r2 = number; *(u32 *)(r1 + PRIORITY) = r2; r0 = MATCH; exit
        Insn { code: 0xb7, registers: 0x02, offset: 0, immediate: number as i32 },
        Insn { code: 0x63, registers: 0x21, offset: PRIORITY, immediate: 0 },
        Insn { code: 0xb7, registers: 0x00, offset: 0, immediate: MATCH },
        Insn { code: 0x95, registers: 0x00, offset: 0, immediate: 0 },
    ];
    let license = c"GPL";
    let attr = Load {
        kind: SCHED_CLS,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        version: 0,
        flags: 0,
    };
    // SAFETY: attr is an initialised structure of the size given, and the two addresses in it are of a program of
    // that length and of a C string; all three outlive the call, which only reads them.
    let ret = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attr, size_of::<Load>()) };
    let fd = Errno::result(ret)? as libc::c_int;
    // SAFETY: the kernel returned a fresh descriptor (close-on-exec) that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
