//! The eBPF program that enforces device rules, and changing its rules while it runs.
//!
//! The rules lie in the program's map, so an update changes numbers and swaps no program. The map
//! holds two tables and the number of the one in force:
//!
//! ```text
//! u64 turn; u64 table[2][capacity][2];     in force: table[turn & 1]
//! ```
//!
//! An update writes the idle table, then `turn`, then waits until every program that began before
//! has ended, so the table that became idle has no reader when the next update writes it. A reader
//! therefore sees the old rules or the new ones, never a mixture. Nothing is pinned: the program is
//! found by asking the cgroup, the map by asking the program.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::devices::{
    ACCESS_SHIFT, DEFAULT_DEVICES, DENY_SHIFT, KIND_SHIFT, Kind, MAJOR_SHIFT, PTS_MAJOR, Policy, RECORD_WORDS,
};
use crate::error::{Context, Error, Result};
use crate::sys::bpf::{self, Insn};

const PROGRAM: bpf::Name = bpf::name("locule_devices");
const MAP: bpf::Name = bpf::name("locule_rules");

/// Records a table has at least, and by which it grows. The default devices are in the program itself,
/// so the common table is empty and these are room for an update. Each costs about 4 µs to load.
const STEP: usize = 4;
/// 10,000 instructions, well within what every kernel's verifier walks.
const MOST: usize = 512;
const WORD: usize = size_of::<u64>();

fn table_bytes(capacity: usize) -> usize {
    capacity * RECORD_WORDS * WORD
}

fn map_bytes(capacity: usize) -> usize {
    WORD + 2 * table_bytes(capacity)
}

/// What became of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A new program was attached.
    Attached,
    /// The running program has new rules.
    Rewritten,
    /// Everything is allowed, so no program is needed.
    Unneeded,
}

/// Puts `policy` in force on a new cgroup.
pub fn attach(cgroup: BorrowedFd<'_>, policy: &Policy) -> Result<Outcome> {
    if policy.allows_all() {
        return Ok(Outcome::Unneeded);
    }
    load(policy)
        .and_then(|prog| bpf::device_attach(cgroup, &prog, None))
        .map(|()| Outcome::Attached)
        .map_err(|errno| refused(errno, policy))
}

/// Puts `policy` in force on a cgroup in use: by new rules for our program where there is one with
/// room, else by a new program in its place.
pub fn update(cgroup: BorrowedFd<'_>, policy: &Policy) -> Result<Outcome> {
    let Some(found) = find(cgroup).doing(|| "looking for the cgroup's device program")? else {
        return attach(cgroup, policy);
    };
    if policy.allows_all() {
        bpf::device_detach(cgroup, &found.prog).doing(|| "removing the cgroup's device program")?;
        return Ok(Outcome::Unneeded);
    }
    let records = policy.records();
    match records.len() <= found.capacity * RECORD_WORDS {
        true => {
            rewrite(&found, records).doing(|| "writing the device rules")?;
            Ok(Outcome::Rewritten)
        }
        false => load(policy)
            .and_then(|prog| bpf::device_attach(cgroup, &prog, Some(&found.prog)))
            .map(|()| Outcome::Attached)
            .map_err(|errno| refused(errno, policy)),
    }
}

fn refused(errno: Errno, policy: &Policy) -> Error {
    let doing = format!("attaching the device program ({} rules) to the cgroup", policy.rules.len());
    let err = Error::sys(errno, doing);
    match errno {
        Errno::EPERM => err.hint("device rules need CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN"),
        Errno::E2BIG => {
            err.hint(format!("at most {MOST} device rules and 64 programs a cgroup are possible"))
        }
        Errno::EINVAL => err.hint("the kernel needs CONFIG_CGROUP_BPF"),
        _ => err,
    }
}

struct Found {
    prog: OwnedFd,
    map: OwnedFd,
    capacity: usize,
}

/// Our program on `cgroup`. Others (systemd's, an outer runtime's) are left alone.
fn find(cgroup: BorrowedFd<'_>) -> nix::Result<Option<Found>> {
    for id in bpf::device_query(cgroup)? {
        let prog = bpf::prog_by_id(id)?;
        let info = bpf::prog_info(&prog)?;
        let (PROGRAM, [map]) = (info.name, &info.maps[..]) else { continue };
        let map = bpf::map_by_id(*map)?;
        let info = bpf::map_info(&map)?;
        let capacity = (info.value_size as usize).saturating_sub(WORD) / (2 * table_bytes(1));
        if info.name == MAP && info.value_size as usize == map_bytes(capacity) {
            return Ok(Some(Found { prog, map, capacity }));
        }
    }
    Ok(None)
}

fn rewrite(found: &Found, mut records: Vec<u64>) -> nix::Result<()> {
    records.resize(found.capacity * RECORD_WORDS, 0);
    let size = map_bytes(found.capacity) as u32;
    let mut value = bpf::map_read(&found.map, size)?;
    let turn = value.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word)).wrapping_add(1);
    let idle = WORD + (turn & 1) as usize * table_bytes(found.capacity);
    for (to, from) in value[idle..].chunks_exact_mut(WORD).zip(records) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    // Rewrites what readers look at by the same bytes, and only the idle table by others.
    bpf::map_write(&found.map, size, &value)?;
    // Only the lowest bit counts, so no reader can see half of the change.
    value[..WORD].copy_from_slice(&turn.to_ne_bytes());
    bpf::map_write(&found.map, size, &value)?;
    match bpf::wait_for_running_programs() {
        // With nohz_full the kernel has no such barrier. The updates of one container are made
        // one at a time by separate processes, which is longer than any program runs.
        Err(Errno::EINVAL | Errno::ENOSYS) => Ok(()),
        other => other,
    }
}

fn load(policy: &Policy) -> nix::Result<OwnedFd> {
    let records = policy.records();
    let capacity = (records.len() / RECORD_WORDS).next_multiple_of(STEP).max(STEP);
    if capacity > MOST {
        return Err(Errno::E2BIG);
    }
    let mut value = vec![0u8; WORD];
    value.extend(records.iter().flat_map(|word| word.to_ne_bytes()));
    value.resize(map_bytes(capacity), 0);
    let map = bpf::map_create(MAP, map_bytes(capacity) as u32)?;
    bpf::map_write(&map, map_bytes(capacity) as u32, &value)?;
    bpf::prog_load(PROGRAM, &program(map.as_raw_fd(), capacity), None)
}

// Registers by what they hold.
const RESULT: u64 = 0;
const CONTEXT: u64 = 1;
/// The accesses asked for and not decided yet.
const ASKED: u64 = 2;
const KEY: u64 = 3;
const FIRST: u64 = 4;
const MASK: u64 = 5;
const HIT: u64 = 6;
/// The accesses asked for and denied.
const DENIED: u64 = 7;
const TABLE: u64 = 9;

// Classes, sizes and operations of linux/bpf_common.h and linux/bpf.h.
const LD_IMM64: u64 = 0x18;
const LDX_WORD: u64 = 0x61;
const LDX_DOUBLE: u64 = 0x79;
const EXIT: u64 = 0x95;
const IMM: u64 = 0x07;
const REG: u64 = 0x0f;
const ADD: u64 = 0x00;
const MUL: u64 = 0x20;
const OR: u64 = 0x40;
const AND: u64 = 0x50;
const LSH: u64 = 0x60;
const RSH: u64 = 0x70;
const XOR: u64 = 0xa0;
const MOV: u64 = 0xb0;
const ARSH: u64 = 0xc0;
const PSEUDO_MAP_VALUE: u64 = 2;

const fn insn(code: u64, dst: u64, src: u64, off: i16, imm: i32) -> Insn {
    let regs = if cfg!(target_endian = "little") { dst | src << 4 } else { dst << 4 | src };
    let (off, imm) = (off as u16 as u64, imm as u32 as u64);
    if cfg!(target_endian = "little") {
        Insn(code | regs << 8 | off << 16 | imm << 32)
    } else {
        Insn(code << 56 | regs << 48 | off << 32 | imm)
    }
}

const fn imm(op: u64, dst: u64, value: i32) -> Insn {
    insn(op | IMM, dst, 0, 0, value)
}

const fn reg(op: u64, dst: u64, src: u64) -> Insn {
    insn(op | REG, dst, src, 0, 0)
}

/// The program for tables of `capacity` records.
///
/// It has no branch: each comparison becomes a mask of all ones or all zeros. So the verifier walks
/// it once, in a time that grows with its length alone; with a branch a record it takes four times
/// as long, as it saves and compares states.
fn program(map: RawFd, capacity: usize) -> Vec<Insn> {
    let mut code = Vec::with_capacity(64 + capacity * 15);
    code.extend([
        // struct bpf_cgroup_dev_ctx: access_type (accesses << 16 | kind), major, minor
        insn(LDX_WORD, ASKED, CONTEXT, 0, 0),
        reg(MOV, KEY, ASKED),
        imm(AND, KEY, 0xffff),
        imm(LSH, KEY, KIND_SHIFT as i32),
        insn(LDX_WORD, FIRST, CONTEXT, 4, 0),
        imm(LSH, FIRST, MAJOR_SHIFT as i32),
        reg(OR, KEY, FIRST),
        insn(LDX_WORD, FIRST, CONTEXT, 8, 0),
        reg(OR, KEY, FIRST),
        // Reading and writing are to be decided; making nodes is everyone's right.
        imm(RSH, ASKED, 16),
        imm(AND, ASKED, 6),
        imm(MOV, DENIED, 0),
    ]);
    // Default devices: all ones in HIT for pts, bit 0 of MASK for the others.
    code.extend([reg(MOV, HIT, KEY), imm(RSH, HIT, MAJOR_SHIFT as i32)]);
    code.extend(ones_if_equal(HIT, key_of(PTS_MAJOR)));
    for (major, minors) in DEFAULT_DEVICES {
        let bits = minors.iter().fold(0, |bits, minor| bits | 1 << minor);
        // Without its six lowest bits the key tells major number and a minor number below 64.
        code.extend([reg(MOV, FIRST, KEY), imm(RSH, FIRST, 6)]);
        code.extend(ones_if_equal(FIRST, key_of(major) << (MAJOR_SHIFT - 6)));
        // Shifts take the lowest six bits of their register.
        code.extend([imm(MOV, MASK, bits), reg(RSH, MASK, KEY), reg(AND, MASK, FIRST), reg(OR, HIT, MASK)]);
    }
    code.extend([
        imm(AND, HIT, 1),
        imm(ADD, HIT, -1),
        reg(AND, ASKED, HIT),
        insn(LD_IMM64, TABLE, PSEUDO_MAP_VALUE, 0, map),
        insn(0, 0, 0, 0, 0),
        insn(LDX_DOUBLE, FIRST, TABLE, 0, 0),
        imm(AND, FIRST, 1),
        imm(MUL, FIRST, table_bytes(capacity) as i32),
        reg(ADD, TABLE, FIRST),
    ]);
    for record in 0..capacity {
        let at = (WORD + table_bytes(record)) as i16;
        code.extend([
            insn(LDX_DOUBLE, FIRST, TABLE, at, 0),
            insn(LDX_DOUBLE, MASK, TABLE, at + WORD as i16, 0),
            reg(MOV, HIT, FIRST),
            reg(XOR, HIT, KEY),
            reg(AND, HIT, MASK),
        ]);
        code.extend(ones_if_zero(HIT));
        code.extend([
            // The accesses of the record, if it matches: those it speaks of, those it denies.
            imm(RSH, FIRST, ACCESS_SHIFT as i32),
            reg(AND, FIRST, HIT),
            reg(MOV, MASK, FIRST),
            imm(RSH, MASK, DENY_SHIFT as i32),
            reg(AND, MASK, ASKED),
            reg(OR, DENIED, MASK),
            imm(XOR, FIRST, -1),
            reg(AND, ASKED, FIRST),
        ]);
    }
    code.extend([
        // Allowed (1) where nothing was denied and nothing is left undecided.
        reg(MOV, RESULT, DENIED),
        reg(OR, RESULT, ASKED),
        imm(ADD, RESULT, -1),
        imm(RSH, RESULT, 63),
        insn(EXIT, 0, 0, 0, 0),
    ]);
    code
}

/// Kind and major number of a character device, as a key has them above the minor number.
const fn key_of(major: u32) -> i32 {
    ((Kind::Char as u32) << (KIND_SHIFT - MAJOR_SHIFT) | major) as i32
}

/// Keys and masks have 34 bits, so of zero less one alone the sign is set.
fn ones_if_zero(register: u64) -> [Insn; 2] {
    [imm(ADD, register, -1), imm(ARSH, register, 63)]
}

fn ones_if_equal(register: u64, value: i32) -> impl Iterator<Item = Insn> {
    [imm(XOR, register, value)].into_iter().chain(ones_if_zero(register))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::DeviceRule;

    /// Runs the program as the kernel would, with the table of `policy` in place `turn`.
    fn run(policy: &Policy, turn: u64, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let mut records = policy.records();
        let capacity = (records.len() / RECORD_WORDS).next_multiple_of(STEP).max(STEP);
        records.resize(capacity * RECORD_WORDS, 0);
        // The other table allows everything, to show that it is not looked at.
        let other = Policy { rules: Vec::new(), default_allow: true };
        let mut decoy = other.records();
        decoy.resize(capacity * RECORD_WORDS, 0);
        let tables = if turn & 1 == 0 { [records, decoy] } else { [decoy, records] };
        let map: Vec<u64> = [turn].into_iter().chain(tables.concat()).collect();

        let context = [u64::from(access) << 16 | kind as u64, u64::from(major), u64::from(minor)];
        let mut regs = [0u64; 10];
        for Insn(word) in program(0, capacity) {
            let bytes = word.to_ne_bytes();
            let (code, regs_byte) = (u64::from(bytes[0]), bytes[1]);
            let (dst, src) = match cfg!(target_endian = "little") {
                true => (regs_byte & 15, regs_byte >> 4),
                false => (regs_byte >> 4, regs_byte & 15),
            };
            let off = usize::from(u16::from_ne_bytes([bytes[2], bytes[3]]));
            let value = i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as i64 as u64;
            let (dst, src) = (usize::from(dst), usize::from(src));
            let operand = if code & 8 == 0 { value } else { regs[src] };
            regs[dst] = match code {
                0 => continue,
                LDX_WORD => context[off / 4],
                LDX_DOUBLE => map[(regs[src] as usize + off) / WORD],
                LD_IMM64 => 0,
                EXIT => break,
                _ => match code & 0xf0 {
                    ADD => regs[dst].wrapping_add(operand),
                    MUL => regs[dst].wrapping_mul(operand),
                    OR => regs[dst] | operand,
                    AND => regs[dst] & operand,
                    LSH => regs[dst] << (operand & 63),
                    RSH => regs[dst] >> (operand & 63),
                    XOR => regs[dst] ^ operand,
                    MOV => operand,
                    ARSH => (regs[dst] as i64 >> (operand & 63)) as u64,
                    other => panic!("instruction {other:#x}"),
                },
            };
        }
        assert!(regs[0] <= 1);
        regs[0] == 1
    }

    #[test]
    fn program_answers_as_the_policy_reads() {
        let policies = [
            "[]",
            r#"[{"allow":true}]"#,
            r#"[{"allow":true},{"allow":false,"type":"c","major":1,"access":"w"}]"#,
            r#"[{"allow":true,"type":"c","major":10,"access":"rw"},
                {"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#,
            r#"[{"allow":true,"type":"b","access":"r"},{"allow":true,"type":"b","minor":1,"access":"w"},
                {"allow":false,"type":"b","major":8,"minor":1}, {"allow":true,"type":"c","minor":64},
                {"allow":false,"type":"c","major":4095,"minor":1048575}, {"allow":true,"type":"c","major":0}]"#,
        ];
        let majors = [0, 1, 5, 8, 10, 136, 137, 4095];
        let minors = [0, 1, 3, 5, 9, 10, 64, 67, 200, 1_048_575];
        for text in policies {
            let rules: Vec<DeviceRule> = serde_json::from_str(text).unwrap();
            let policy = Policy::new(&rules).unwrap();
            for kind in [Kind::Block, Kind::Char] {
                for (major, minor) in majors.iter().flat_map(|a| minors.iter().map(move |i| (*a, *i))) {
                    for access in 1..8 {
                        let wanted = policy.decide(kind, major, minor, access);
                        for turn in [0, 7] {
                            let got = run(&policy, turn, kind, major, minor, access);
                            assert_eq!(got, wanted, "{text} {kind:?} {major}:{minor} access {access}");
                        }
                    }
                }
            }
        }
    }
}
