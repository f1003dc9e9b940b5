//! A profile read and checked: words become kernel values, everything wrong is refused here.
//!
//! Owns the meaning of the document's words. It knows nothing of system call numbers or BPF.

use libc::{
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};

use super::arch::{self, Abi};
use crate::error::{Error, Result};
use crate::spec::{Seccomp, SeccompArg, SeccompRule};

/// `SECCOMP_RET_*` of each action word.
const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", SECCOMP_RET_ALLOW),
    ("SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO),
    ("SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_LOG", SECCOMP_RET_LOG),
    ("SCMP_ACT_NOTIFY", SECCOMP_RET_USER_NOTIF),
    ("SCMP_ACT_TRACE", SECCOMP_RET_TRACE),
    ("SCMP_ACT_TRAP", SECCOMP_RET_TRAP),
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC as u32),
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG as u32),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32),
];

/// Largest errno that the kernel returns (`MAX_ERRNO`); a larger one would be cut down silently.
const MAX_ERRNO: u32 = 4095;

/// The words of profiles, for the `features` verb.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// `SCMP_ACT_…`.
    pub actions: &'static [&'static str],
    /// `SCMP_CMP_…`.
    pub operators: &'static [&'static str],
    /// `SCMP_ARCH_…`.
    pub archs: &'static [&'static str],
    /// `SECCOMP_FILTER_FLAG_…`.
    pub flags: &'static [&'static str],
}

/// Everything that [`compile`](super::compile) understands.
pub fn known() -> Known {
    static ACTION_NAMES: [&str; ACTIONS.len()] = first(&ACTIONS);
    static FLAG_NAMES: [&str; FLAGS.len()] = first(&FLAGS);
    Known { actions: &ACTION_NAMES, operators: &OPERATORS, archs: &arch::NAMES, flags: &FLAG_NAMES }
}

const fn first<const N: usize>(pairs: &[(&'static str, u32); N]) -> [&'static str; N] {
    let (mut names, mut i) = ([""; N], 0);
    while i < N {
        names[i] = pairs[i].0;
        i += 1;
    }
    names
}

/// The flag that `word` names, for probing the kernel.
pub fn flag(word: &str) -> Option<u32> {
    FLAGS.iter().find(|(known, _)| *known == word).map(|(_, bit)| *bit)
}

/// The action without data that `word` names, for probing the kernel.
pub fn action(word: &str) -> Option<u32> {
    ACTIONS.iter().find(|(known, _)| *known == word).map(|(_, ret)| *ret)
}

/// A checked profile.
pub(super) struct Policy<'a> {
    pub(super) default: u32,
    pub(super) rules: Vec<Rule<'a>>,
    /// Listed ABIs of this machine, the native one always and first.
    pub(super) abis: Vec<Abi>,
    pub(super) flags: u32,
    pub(super) notifies: bool,
    pub(super) warnings: Vec<String>,
}

/// One entry of `syscalls`.
pub(super) struct Rule<'a> {
    pub(super) names: &'a [String],
    pub(super) action: u32,
    /// Sets of conditions, one of which must hold as a whole; empty means always.
    pub(super) alternatives: Vec<Vec<Condition>>,
}

/// A test of one argument: `(arg & mask) TEST datum`, or its opposite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) arg: u32,
    pub(super) mask: u64,
    pub(super) test: Test,
    pub(super) negate: bool,
    pub(super) datum: u64,
}

/// The three comparisons that the others are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Eq,
    Ge,
    Gt,
}

/// Reads `profile` for a machine whose native ABI is `native`.
pub(super) fn read<'a>(profile: &'a Seccomp, native: Abi) -> Result<Policy<'a>> {
    let mut warnings = Vec::new();
    let default = full_action(&profile.default_action, profile.default_errno_ret, "default")?;
    if default == SECCOMP_RET_USER_NOTIF {
        // The runtime itself could no longer hand over the listener: every call of its own would wait for it.
        return Err(refuse("defaultAction SCMP_ACT_NOTIFY would stop the container's own set-up")
            .hint("name the system calls to notify in rules"));
    }
    let mut rules = Vec::with_capacity(profile.syscalls.len());
    for (index, rule) in profile.syscalls.iter().enumerate() {
        rules.push(read_rule(rule, index)?);
    }
    let notifies = rules.iter().any(|rule| rule.action == SECCOMP_RET_USER_NOTIF && !rule.names.is_empty());
    if notifies && profile.listener_path.is_none() {
        return Err(refuse("SCMP_ACT_NOTIFY needs listenerPath, which is not set"));
    }
    if !notifies && profile.listener_path.is_some() {
        warnings.push("linux.seccomp: listenerPath is set, but no rule has SCMP_ACT_NOTIFY".to_owned());
    }
    if profile.listener_metadata.is_some() && profile.listener_path.is_none() {
        warnings.push("linux.seccomp: listenerMetadata is ignored without listenerPath".to_owned());
    }
    let abis = read_archs(&profile.architectures, native, &mut warnings);
    let flags = read_flags(profile.flags.as_deref(), notifies, &mut warnings);
    Ok(Policy { default, rules, abis, flags, notifies, warnings })
}

fn refuse(text: impl std::fmt::Display) -> Error {
    Error::invalid(format!("compiling linux.seccomp: {text}"))
}

/// An action word with its datum; `place` names it in errors.
fn full_action(word: &str, datum: Option<u32>, place: &str) -> Result<u32> {
    let Some(ret) = action(word) else {
        return Err(refuse(format!("unknown action {word:?} ({place})"))
            .hint(format!("one of {}", known().actions.join(", "))));
    };
    // EPERM where the profile gives none, as the runtime-spec says.
    match (ret, datum) {
        (SECCOMP_RET_ERRNO, datum) => match datum.unwrap_or(libc::EPERM as u32) {
            errno if errno > MAX_ERRNO => {
                Err(refuse(format!("errno {errno} ({place}) is above {MAX_ERRNO}, the largest there is")))
            }
            errno => Ok(ret | errno),
        },
        (SECCOMP_RET_TRACE, datum) => match datum.unwrap_or(libc::EPERM as u32) {
            value if value > libc::SECCOMP_RET_DATA => {
                Err(refuse(format!("trace datum {value} ({place}) does not fit into 16 bits")))
            }
            value => Ok(ret | value),
        },
        (_, None) => Ok(ret),
        (_, Some(errno)) => Err(refuse(format!("{word} ({place}) cannot carry the errno {errno}"))
            .hint("only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do")),
    }
}

fn read_rule(rule: &SeccompRule, index: usize) -> Result<Rule<'_>> {
    let place = format!("syscalls[{index}]");
    let action = full_action(&rule.action, rule.errno_ret, &place)?;
    if action == SECCOMP_RET_USER_NOTIF && rule.names.iter().any(|name| name == "write") {
        // Whoever installs the filter still has to report the listener to whoever passes it on.
        return Err(refuse(format!("SCMP_ACT_NOTIFY cannot be used for the write syscall ({place})")));
    }
    let conditions = rule.args.iter().map(|arg| condition(arg, &place)).collect::<Result<Vec<_>>>()?;
    let mut seen = 0u8;
    let mut repeated = false;
    for condition in &conditions {
        repeated |= seen & 1 << condition.arg != 0;
        seen |= 1 << condition.arg;
    }
    let alternatives = if conditions.is_empty() {
        Vec::new()
    } else if repeated {
        // Several conditions on one argument: each stands for itself, as in runc, crun and the
        // profiles written for them (runtime-spec's `args` says nothing of it).
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    };
    Ok(Rule { names: &rule.names, action, alternatives })
}

fn condition(arg: &SeccompArg, place: &str) -> Result<Condition> {
    if arg.index > 5 {
        return Err(refuse(format!("argument {} ({place}): system calls have arguments 0 to 5", arg.index)));
    }
    let (test, negate) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (Test::Eq, true),
        "SCMP_CMP_LT" => (Test::Ge, true),
        "SCMP_CMP_LE" => (Test::Gt, true),
        "SCMP_CMP_EQ" | "SCMP_CMP_MASKED_EQ" => (Test::Eq, false),
        "SCMP_CMP_GE" => (Test::Ge, false),
        "SCMP_CMP_GT" => (Test::Gt, false),
        word => {
            return Err(refuse(format!("unknown operator {word:?} ({place})"))
                .hint(format!("one of {}", OPERATORS.join(", "))));
        }
    };
    let (mask, datum) = match arg.op.as_str() {
        // libseccomp masks both sides, so bits of valueTwo outside the mask do not count.
        "SCMP_CMP_MASKED_EQ" => (arg.value, arg.value_two & arg.value),
        _ => (u64::MAX, arg.value),
    };
    Ok(Condition { arg: arg.index, mask, test, negate, datum })
}

fn read_archs(words: &[String], native: Abi, warnings: &mut Vec<String>) -> Vec<Abi> {
    let mut listed = vec![native];
    for word in words {
        match arch::from_word(word) {
            // An ABI of another machine cannot be called on this one: nothing to compile.
            Some(Some(abi)) if native.family().contains(&abi) && !listed.contains(&abi) => listed.push(abi),
            Some(_) => {}
            None => warnings.push(format!("linux.seccomp: unknown architecture {word:?} is ignored")),
        }
    }
    listed
}

fn read_flags(words: Option<&[String]>, notifies: bool, warnings: &mut Vec<String>) -> u32 {
    let killable = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;
    let mut flags = 0;
    match words {
        // Absent is not empty: runc and crun then leave speculation alone, as before Linux 5.16 made it default.
        None => flags |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
        Some(words) => {
            for word in words {
                match flag(word) {
                    Some(bit) if bit == killable && !notifies => warnings
                        .push(format!("linux.seccomp: {word} is ignored: no rule has SCMP_ACT_NOTIFY")),
                    Some(bit) => flags |= bit,
                    None => warnings.push(format!("linux.seccomp: unknown flag {word:?} is ignored")),
                }
            }
        }
    }
    if notifies {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    }
    flags
}
