//! Machines, the ABIs that each can run, and the words that profiles call them by.
//!
//! Owns what differs between ABIs: audit word, number base, width of arguments, i386's multiplexers.

/// An ABI whose system calls we know; the discriminant is its column in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    X86,
    X32,
    Arm,
    Aarch64,
}

/// How many ABIs the table has.
pub(super) const ABIS: usize = 5;

/// `AUDIT_ARCH_*` of linux/audit.h: ELF machine, 64-bit flag, little-endian flag.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// Set in the number of every x32 call (asm/unistd.h).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// First of arm's private calls (`__ARM_NR_BASE`): far above the table and never "newer".
const ARM_PRIVATE: u32 = 0x0f_0000;

impl Abi {
    /// The ABI that locule itself is built for.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Abi = Abi::X86_64;
    /// The ABI that locule itself is built for.
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Abi = Abi::Aarch64;

    /// What the kernel puts in `seccomp_data.arch`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => AUDIT_ARCH_X86_64,
            Abi::X86 => AUDIT_ARCH_I386,
            Abi::Arm => AUDIT_ARCH_ARM,
            Abi::Aarch64 => AUDIT_ARCH_AARCH64,
        }
    }

    /// First number of the ABI.
    pub(super) fn base(self) -> u32 {
        if self == Abi::X32 { X32_BIT } else { 0 }
    }

    /// True where only the low word of an argument counts; x32 among them, as in libseccomp.
    pub(super) fn narrow(self) -> bool {
        matches!(self, Abi::X86 | Abi::X32 | Abi::Arm)
    }

    /// True for a number outside the common sequence, which says nothing about a profile's age.
    pub(super) fn is_private(self, number: u32) -> bool {
        self == Abi::Arm && number >= ARM_PRIVATE
    }

    /// The ABIs that a kernel for `self` can run, itself first.
    pub(super) fn family(self) -> &'static [Abi] {
        match self {
            Abi::X86_64 | Abi::X86 | Abi::X32 => &[Abi::X86_64, Abi::X86, Abi::X32],
            Abi::Aarch64 | Abi::Arm => &[Abi::Aarch64, Abi::Arm],
        }
    }
}

/// Every word that a profile may use, with our ABI where it is one.
const WORDS: &[(&str, Option<Abi>)] = &[
    ("SCMP_ARCH_X86", Some(Abi::X86)),
    ("SCMP_ARCH_X86_64", Some(Abi::X86_64)),
    ("SCMP_ARCH_X32", Some(Abi::X32)),
    ("SCMP_ARCH_ARM", Some(Abi::Arm)),
    ("SCMP_ARCH_AARCH64", Some(Abi::Aarch64)),
    ("SCMP_ARCH_MIPS", None),
    ("SCMP_ARCH_MIPS64", None),
    ("SCMP_ARCH_MIPS64N32", None),
    ("SCMP_ARCH_MIPSEL", None),
    ("SCMP_ARCH_MIPSEL64", None),
    ("SCMP_ARCH_MIPSEL64N32", None),
    ("SCMP_ARCH_PPC", None),
    ("SCMP_ARCH_PPC64", None),
    ("SCMP_ARCH_PPC64LE", None),
    ("SCMP_ARCH_S390", None),
    ("SCMP_ARCH_S390X", None),
    ("SCMP_ARCH_PARISC", None),
    ("SCMP_ARCH_PARISC64", None),
    ("SCMP_ARCH_RISCV64", None),
    ("SCMP_ARCH_LOONGARCH64", None),
    ("SCMP_ARCH_M68K", None),
    ("SCMP_ARCH_SH", None),
    ("SCMP_ARCH_SHEB", None),
];

/// The known words, for `features`.
pub(super) static NAMES: [&str; WORDS.len()] = {
    let mut names = [""; WORDS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = WORDS[i].0;
        i += 1;
    }
    names
};

/// The outer `None` is an unknown word, the inner one an architecture that we have no table of.
pub(super) fn from_word(word: &str) -> Option<Option<Abi>> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, abi)| *abi)
}

/// socketcall(2)'s calls by number (linux/net.h).
const SOCKETCALLS: [(&str, u8); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// ipc(2)'s calls by number (linux/ipc.h).
const IPC_CALLS: [(&str, u8); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// i386's second way to make some calls: through socketcall(2) or ipc(2).
///
/// A rule for `socket` that left socketcall(2) alone could be walked around by any 32-bit program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Multiplexed {
    /// Number of the multiplexer.
    pub(super) number: u32,
    /// Its first argument, which picks the call.
    pub(super) call: u8,
    /// The bits of the first argument that the kernel picks by.
    pub(super) mask: u32,
}

/// The second way to make the call `name`, for the table to be built with.
pub(super) const fn multiplexed(name: &str) -> Option<Multiplexed> {
    if let Some(call) = call(&SOCKETCALLS, name) {
        return Some(Multiplexed { number: 102, call, mask: u32::MAX });
    }
    match call(&IPC_CALLS, name) {
        // The upper half is a version (ipc/syscall.c).
        Some(call) => Some(Multiplexed { number: 117, call, mask: 0xffff }),
        None => None,
    }
}

const fn call(calls: &[(&str, u8)], name: &str) -> Option<u8> {
    let mut i = 0;
    while i < calls.len() {
        if equal(calls[i].0.as_bytes(), name.as_bytes()) {
            return Some(calls[i].1);
        }
        i += 1;
    }
    None
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}
