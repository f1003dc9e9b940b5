//! From a checked policy to instructions: numbers to ranges of equal outcome, ranges to a search tree.
//!
//! Layout: the audit word picks a block, the block searches the number, a leaf is a return or the
//! tests of some arguments. Returns and tests are shared by all leaves that can reach them.

use libc::{SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_THREAD, sock_filter};

use super::arch::{Abi, Multiplexed, X32_BIT};
use super::assemble::{Assembler, Jump, Target};
use super::policy::{Condition, Policy, Rule, Test};
use super::syscalls;

/// What a call of an ABI that the profile does not list gets: libseccomp's "bad architecture" action.
const BAD_ARCH: u32 = SECCOMP_RET_KILL_THREAD;

const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const DATA_NR: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGS: u32 = 16;

/// The number of a call that a tracer has cancelled; it belongs to no ABI and gets the default action.
const CANCELLED: u32 = u32::MAX;

/// "If all of these hold, this action."
struct Clause {
    action: u32,
    conditions: Vec<Condition>,
}

/// What a range of numbers comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Action(u32),
    /// Index of a list of clauses, the first that holds decides, the default otherwise.
    Tests(usize),
}

/// The rules of one ABI by number.
struct Table {
    abi: Abi,
    /// (number, clause), in the order of the document within a number.
    entries: Vec<(u32, u32)>,
    /// Highest number that the profile mentions, in a rule of whatever action.
    newest: Option<u32>,
}

/// Compiles `policy`.
pub(super) fn generate(policy: &Policy<'_>) -> Vec<sock_filter> {
    let (tables, clauses) = tabulate(policy);
    let mut asm = Assembler::default();
    // Written backwards: the jump over audit words last, so that it is the program's beginning.
    let mut next = Target::Return(BAD_ARCH);
    let mut audits: Vec<u32> = Vec::new();
    for abi in &policy.abis {
        if !audits.contains(&abi.audit()) {
            audits.push(abi.audit());
        }
    }
    let mut blocks = Vec::with_capacity(audits.len());
    for audit in audits.iter().rev() {
        blocks.push((*audit, block(&mut asm, policy, &tables, &clauses, *audit)));
    }
    for (audit, entry) in blocks {
        next = asm.jump(Jump::Equal, audit, entry, next);
    }
    asm.load(DATA_ARCH);
    asm.finish()
}

/// Sorts the rules by ABI and number.
fn tabulate(policy: &Policy<'_>) -> (Vec<Table>, Vec<Clause>) {
    let names = policy.rules.iter().map(|rule| rule.names.len()).sum();
    let table = |abi: &Abi| Table { abi: *abi, entries: Vec::with_capacity(names), newest: None };
    let mut tables: Vec<Table> = policy.abis.iter().map(table).collect();
    let mut clauses: Vec<Clause> = Vec::new();
    for rule in &policy.rules {
        // A rule that says what the default says is dropped, as in runc and crun: it does not even
        // hide a later rule for the same call. It still tells how new the profile is.
        let redundant = rule.action == policy.default;
        let first = clauses.len() as u32;
        if !redundant {
            let alternatives = rule.alternatives.iter().cloned();
            clauses.extend(alternatives.map(|conditions| Clause { action: rule.action, conditions }));
            if rule.alternatives.is_empty() {
                clauses.push(Clause { action: rule.action, conditions: Vec::new() });
            }
        }
        let last = clauses.len() as u32;
        for name in rule.names {
            // A name that no ABI has belongs to another kernel or machine: ignored, as in runc.
            let row = syscalls::lookup(name);
            for table in &mut tables {
                if let Some(number) = row.and_then(|row| row.number(table.abi)) {
                    if !table.abi.is_private(number) {
                        table.newest = table.newest.max(Some(number));
                    }
                    table.entries.extend((first..last).map(|clause| (number, clause)));
                }
                if table.abi == Abi::X86
                    && let Some(way) = row.and_then(|row| row.multiplexed)
                    && let Some(clause) = multiplex(way, rule, policy.default)
                {
                    table.entries.push((way.number, clauses.len() as u32));
                    clauses.push(clause);
                }
            }
        }
    }
    for table in &mut tables {
        // Clauses are numbered in the order of the document, so this keeps it. One integer for both
        // halves: comparing pairs costs the sort three times as much.
        table.entries.sort_unstable_by_key(|(number, clause)| u64::from(*number) << 32 | u64::from(*clause));
    }
    (tables, clauses)
}

/// The clause for i386's second way to make a call that `rule` names.
///
/// The arguments lie in memory there, where no filter can see them. A rule with conditions therefore
/// reaches the multiplexed call only if it is stricter than the default: denying too much is safe.
/// (libseccomp compares the multiplexer's own arguments, which lets denied calls through.)
fn multiplex(way: Multiplexed, rule: &Rule<'_>, default: u32) -> Option<Clause> {
    if rule.action == default || !rule.alternatives.is_empty() && !stricter(rule.action, default) {
        return None;
    }
    let (mask, datum) = (way.mask.into(), way.call.into());
    let condition = Condition { arg: 0, mask, test: Test::Eq, negate: false, datum };
    Some(Clause { action: rule.action, conditions: vec![condition] })
}

/// The kernel's own order of severity: actions compare as signed numbers, kill-process the lowest.
fn stricter(action: u32, than: u32) -> bool {
    let severity = |ret: u32| (ret & libc::SECCOMP_RET_ACTION_FULL) as i32;
    severity(action) < severity(than)
}

/// Ranges of equal outcome over all numbers that one audit word can come with.
struct Ranges {
    starts: Vec<(u32, Outcome)>,
}

impl Ranges {
    fn push(&mut self, start: u32, outcome: Outcome) {
        if self.starts.last().is_none_or(|(_, last)| *last != outcome) {
            self.starts.push((start, outcome));
        }
    }
}

/// Writes the block of one audit word.
fn block(
    asm: &mut Assembler,
    policy: &Policy<'_>,
    tables: &[Table],
    clauses: &[Clause],
    audit: u32,
) -> Target {
    let default = Outcome::Action(policy.default);
    let mut ranges = Ranges { starts: Vec::new() };
    let mut lists: Vec<(bool, Vec<u32>)> = Vec::new();
    let members = tables.iter().filter(|table| table.abi.audit() == audit);
    for table in members {
        table_ranges(&mut ranges, policy, table, clauses, &mut lists);
    }
    if audit == Abi::X86_64.audit() && !policy.abis.contains(&Abi::X32) {
        ranges.push(X32_BIT, Outcome::Action(BAD_ARCH));
    }
    ranges.push(CANCELLED, default);

    let tests: Vec<Target> =
        lists.iter().map(|(narrow, list)| write_tests(asm, list, clauses, *narrow, policy.default)).collect();
    let entry = tree(asm, &ranges.starts, &tests);
    asm.fall_through(entry);
    asm.load(DATA_NR)
}

/// Appends the ranges of one ABI; ABIs of one audit word come in the order of their bases.
fn table_ranges(
    ranges: &mut Ranges,
    policy: &Policy<'_>,
    table: &Table,
    clauses: &[Clause],
    lists: &mut Vec<(bool, Vec<u32>)>,
) {
    let default = Outcome::Action(policy.default);
    // Programs fall back on ENOSYS when a call is newer than the profile, and break on EPERM: runc's
    // rule, only where the profile refuses by an errno (whoever kills the unknown means it).
    let refuses = policy.default & libc::SECCOMP_RET_ACTION_FULL == SECCOMP_RET_ERRNO;
    let newest = table.newest.filter(|_| refuses && policy.default != ENOSYS);
    let gap = |ranges: &mut Ranges, from: u32, to: u32| {
        let newer = newest.map_or(to, |newest| newest + 1);
        if from < newer.min(to) {
            ranges.push(from, default);
        }
        if newer < to {
            ranges.push(from.max(newer), Outcome::Action(ENOSYS));
        }
    };
    let mut at = table.abi.base();
    for group in table.entries.chunk_by(|a, b| a.0 == b.0) {
        let number = group[0].0;
        gap(ranges, at, number);
        ranges.push(number, outcome(group, clauses, table.abi.narrow(), lists));
        at = number + 1;
    }
    let end = if table.abi == Abi::X86_64 { X32_BIT } else { CANCELLED };
    gap(ranges, at, end);
}

/// What the clauses of one number come to: the first without conditions wins over all, as in
/// libseccomp; otherwise the first that holds. (libseccomp orders conflicting conditions by its own
/// tree, or fails; the document's order is what an author can see.)
fn outcome(
    group: &[(u32, u32)],
    clauses: &[Clause],
    narrow: bool,
    lists: &mut Vec<(bool, Vec<u32>)>,
) -> Outcome {
    let all = || group.iter().map(|(_, clause)| *clause);
    if let Some(always) = all().find(|clause| clauses[*clause as usize].conditions.is_empty()) {
        return Outcome::Action(clauses[always as usize].action);
    }
    let known = lists.iter().position(|(width, list)| *width == narrow && list.iter().copied().eq(all()));
    Outcome::Tests(known.unwrap_or_else(|| {
        lists.push((narrow, all().collect()));
        lists.len() - 1
    }))
}

/// Writes the balanced search over `ranges`; the accumulator holds the number.
fn tree(asm: &mut Assembler, ranges: &[(u32, Outcome)], tests: &[Target]) -> Target {
    match ranges {
        [] => Target::Return(BAD_ARCH),
        [(_, Outcome::Action(action))] => Target::Return(*action),
        [(_, Outcome::Tests(list))] => tests[*list],
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let above = tree(asm, high, tests);
            let below = tree(asm, low, tests);
            if above == below {
                return above;
            }
            asm.jump(Jump::GreaterOrEqual, high[0].0, above, below)
        }
    }
}

/// Writes the tests of a list of clauses.
fn write_tests(asm: &mut Assembler, list: &[u32], clauses: &[Clause], narrow: bool, default: u32) -> Target {
    let mut otherwise = Target::Return(default);
    for clause in list.iter().rev() {
        let clause = &clauses[*clause as usize];
        let mut holds = Target::Return(clause.action);
        for condition in clause.conditions.iter().rev() {
            holds = write_test(asm, condition, narrow, holds, otherwise);
        }
        otherwise = holds;
    }
    otherwise
}

/// Writes one test of a 64-bit argument, of its low word alone if `narrow`.
fn write_test(
    asm: &mut Assembler,
    condition: &Condition,
    narrow: bool,
    holds: Target,
    fails: Target,
) -> Target {
    let (yes, no) = if condition.negate { (fails, holds) } else { (holds, fails) };
    if yes == no {
        return yes;
    }
    // Little-endian: the low word comes first.
    let offset = DATA_ARGS + 8 * condition.arg;
    let (datum, mask) = (condition.datum as u32, condition.mask as u32);
    let (datum_high, mask_high) = ((condition.datum >> 32) as u32, (condition.mask >> 32) as u32);
    let test = match condition.test {
        Test::Eq => {
            let low = word(asm, offset, mask, datum, yes, no);
            return if narrow { low } else { word(asm, offset + 4, mask_high, datum_high, low, no) };
        }
        Test::Ge => Jump::GreaterOrEqual,
        Test::Gt => Jump::Greater,
    };
    asm.jump(test, datum, yes, no);
    let low = asm.load(offset);
    if narrow {
        return low;
    }
    let equal = asm.jump(Jump::Equal, datum_high, low, no);
    asm.jump(Jump::Greater, datum_high, yes, equal);
    asm.load(offset + 4)
}

/// Writes the comparison of one masked word; a word of which nothing counts needs no code.
fn word(asm: &mut Assembler, offset: u32, mask: u32, datum: u32, yes: Target, no: Target) -> Target {
    if mask == 0 {
        return yes;
    }
    asm.jump(Jump::Equal, datum, yes, no);
    if mask != u32::MAX {
        asm.and(mask);
    }
    asm.load(offset)
}
