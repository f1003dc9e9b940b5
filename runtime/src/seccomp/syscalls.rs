//! System call numbers by name, for every ABI that a host of ours can run.
//!
//! Owns the table of kernel 7.2's `linux-libc-dev`. `syscalls` 0.8.1 lacks x32 and aarch64's `newfstatat`,
//! `syscall-numbers` 4.0.3 lacks i386's `clock_gettime` and all of `mq_*`: neither can carry a profile.

use super::arch::{ABIS, Abi, Multiplexed, multiplexed};
use super::table::SOURCE;

/// "No such system call in this ABI".
pub(super) const NONE: u32 = u32::MAX;

/// One name with its number in each ABI; x32's without the x32 bit.
pub(super) struct Row {
    start: u16,
    len: u16,
    numbers: [u32; ABIS],
    /// i386's second way to make the call.
    pub(super) multiplexed: Option<Multiplexed>,
}

impl Row {
    /// The number in `abi`, with x32's bit.
    pub(super) fn number(&self, abi: Abi) -> Option<u32> {
        match self.numbers[abi as usize] {
            NONE => None,
            number => Some(abi.base() + number),
        }
    }

    fn name(&self) -> &'static [u8] {
        let start = usize::from(self.start);
        &NAMES[start..start + usize::from(self.len)]
    }
}

/// The names one after the other: a `&str` for each would be a relocation that every start of a
/// position-independent static binary pays for, whether it compiles a profile or not.
static NAMES: [u8; TEXT] = names();
static ROWS: [Row; SOURCE.len()] = rows();

/// Row numbers by hash, open addressing; a profile looks up hundreds of names and a binary search
/// costs ten comparisons each.
static INDEX: [u16; SLOTS] = index();

const SLOTS: usize = 2048;
const EMPTY: u16 = u16::MAX;

const TEXT: usize = {
    let (mut total, mut i) = (0, 0);
    while i < SOURCE.len() {
        total += SOURCE[i].0.len();
        i += 1;
    }
    total
};

const fn names() -> [u8; TEXT] {
    let mut text = [0; TEXT];
    let (mut at, mut i) = (0, 0);
    while i < SOURCE.len() {
        let (name, mut j) = (SOURCE[i].0.as_bytes(), 0);
        while j < name.len() {
            text[at] = name[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    text
}

const fn rows() -> [Row; SOURCE.len()] {
    let mut rows =
        [const { Row { start: 0, len: 0, numbers: [NONE; ABIS], multiplexed: None } }; SOURCE.len()];
    let (mut start, mut i) = (0, 0);
    while i < SOURCE.len() {
        rows[i].start = start;
        rows[i].len = SOURCE[i].0.len() as u16;
        rows[i].numbers = SOURCE[i].1;
        rows[i].multiplexed = multiplexed(SOURCE[i].0);
        start += rows[i].len;
        i += 1;
    }
    rows
}

const fn index() -> [u16; SLOTS] {
    let (mut index, mut i) = ([EMPTY; SLOTS], 0);
    while i < SOURCE.len() {
        let mut slot = hash(SOURCE[i].0.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = i as u16;
        i += 1;
    }
    index
}

/// FNV-1a, folded to a slot.
const fn hash(name: &[u8]) -> usize {
    let (mut hash, mut i) = (0x811c_9dc5_u32, 0);
    while i < name.len() {
        hash = (hash ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ hash >> 16) as usize % SLOTS
}

/// The row of `name`, or `None` for a name that no ABI of ours has.
pub(super) fn lookup(name: &str) -> Option<&'static Row> {
    let mut slot = hash(name.as_bytes());
    // Three slots of four are empty, so this ends.
    while INDEX[slot] != EMPTY {
        let row = &ROWS[usize::from(INDEX[slot])];
        if row.name() == name.as_bytes() {
            return Some(row);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_name_is_found() {
        assert!(SOURCE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (name, numbers) in SOURCE {
            let row = lookup(name).unwrap_or_else(|| panic!("{name} is not found"));
            assert_eq!(row.numbers, *numbers, "{name}");
        }
        for name in ["", "zzz", "opena", "Openat", "openat\0", "_"] {
            assert!(lookup(name).is_none(), "{name:?}");
        }
    }

    #[test]
    fn no_two_names_share_a_number_but_for_aliases() {
        for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm] {
            let mut numbers: Vec<_> =
                ROWS.iter().filter_map(|row| Some((row.number(abi)?, row.name()))).collect();
            numbers.sort();
            for pair in numbers.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                assert_eq!((abi, pair[0].0), (Abi::Arm, 341), "{pair:?}");
            }
        }
    }

    /// Two independent sources: libc's constants for the native ABI, where they exist.
    #[test]
    fn numbers_agree_with_libc() {
        let known = [
            ("read", libc::SYS_read),
            ("execveat", libc::SYS_execveat),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("newfstatat", libc::SYS_newfstatat),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("futex_waitv", libc::SYS_futex_waitv),
            ("mseal", libc::SYS_mseal),
        ];
        for (name, number) in known {
            let row = lookup(name).unwrap();
            assert_eq!(row.number(Abi::NATIVE).map(i64::from), Some(number), "{name}");
        }
    }

    /// The `syscalls` crate as the alarm for new kernels: what it knows and we do not is a stale table.
    #[test]
    fn the_table_is_not_behind_the_syscalls_crate() {
        for (abi, names) in crate_tables() {
            for (name, number) in names {
                // The crate calls aarch64's newfstatat fstatat, and gives that ABI 32-bit calls.
                let wrong = abi == Abi::Aarch64
                    && (name == "fstatat" || name.ends_with("time64") || (403..=423).contains(&number));
                let ours = lookup(name).and_then(|row| row.number(abi));
                assert!(wrong || ours == Some(number), "{abi:?} {name}: {ours:?}, crate says {number}");
            }
        }
    }

    type Names = Vec<(&'static str, u32)>;

    fn crate_tables() -> Vec<(Abi, Names)> {
        fn list<T: Copy>(all: impl Iterator<Item = T>, of: fn(&T) -> (&'static str, i32)) -> Names {
            all.map(|sysno| of(&sysno)).map(|(name, id)| (name.trim_start_matches("r#"), id as u32)).collect()
        }
        vec![
            (Abi::X86_64, list(syscalls::x86_64::Sysno::iter(), |s| (s.name(), s.id()))),
            (Abi::X86, list(syscalls::x86::Sysno::iter(), |s| (s.name(), s.id()))),
            (Abi::Arm, list(syscalls::arm::Sysno::iter(), |s| (s.name(), s.id()))),
            (Abi::Aarch64, list(syscalls::aarch64::Sysno::iter(), |s| (s.name(), s.id()))),
        ]
    }
}
