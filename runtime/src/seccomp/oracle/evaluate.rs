//! What a profile means, read directly from the document, one call at a time.
//!
//! Shares the table of numbers with the compiler and nothing else.

use super::interpret::Data;
use crate::seccomp::arch::Abi;
use crate::seccomp::syscalls;
use crate::spec::{Seccomp, SeccompArg, SeccompRule};

/// The ABI that a call belongs to, or `None` for one of a foreign or unlisted ABI.
fn abi_of(profile: &Seccomp, native: Abi, data: &Data) -> Option<Abi> {
    let listed = |abi: Abi, word: &str| abi == native || profile.architectures.iter().any(|one| one == word);
    let on_x86 = native == Abi::X86_64;
    let (abi, word) = match (data.arch, data.nr >= 0x4000_0000) {
        (0xc000_003e, false) if on_x86 => (Abi::X86_64, "SCMP_ARCH_X86_64"),
        (0xc000_003e, true) if on_x86 => (Abi::X32, "SCMP_ARCH_X32"),
        (0x4000_0003, _) if on_x86 => (Abi::X86, "SCMP_ARCH_X86"),
        (0xc000_00b7, _) if !on_x86 => (Abi::Aarch64, "SCMP_ARCH_AARCH64"),
        (0x4000_0028, _) if !on_x86 => (Abi::Arm, "SCMP_ARCH_ARM"),
        _ => return None,
    };
    listed(abi, word).then_some(abi)
}

fn value(action: &str, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(1);
    match action {
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 | errno,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        _ => panic!("{action}"),
    }
}

fn holds(arg: &SeccompArg, data: &Data, narrow: bool) -> bool {
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let (have, want, two) = (cut(data.args[arg.index as usize]), cut(arg.value), cut(arg.value_two));
    match arg.op.as_str() {
        "SCMP_CMP_NE" => have != want,
        "SCMP_CMP_LT" => have < want,
        "SCMP_CMP_LE" => have <= want,
        "SCMP_CMP_EQ" => have == want,
        "SCMP_CMP_GE" => have >= want,
        "SCMP_CMP_GT" => have > want,
        "SCMP_CMP_MASKED_EQ" => have & want == two & want,
        op => panic!("{op}"),
    }
}

fn conditions_hold(rule: &SeccompRule, data: &Data, narrow: bool) -> bool {
    let mut indices: Vec<_> = rule.args.iter().map(|arg| arg.index).collect();
    indices.sort_unstable();
    if indices.windows(2).any(|pair| pair[0] == pair[1]) {
        rule.args.iter().any(|arg| holds(arg, data, narrow))
    } else {
        rule.args.iter().all(|arg| holds(arg, data, narrow))
    }
}

/// i386: the calls behind socketcall(2) and ipc(2), in the order of their numbers.
const SOCKETCALLS: &str = "- socket bind connect listen accept getsockname getpeername socketpair send recv \
                           sendto recvfrom shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg";
const IPC_CALLS: &str = "- semop semget semctl semtimedop - - - - - - msgsnd msgrcv msgget msgctl - - - - - - \
                         shmat shmdt shmget shmctl";

fn multiplexed_name(data: &Data) -> Option<&'static str> {
    let (names, call) = match data.nr {
        102 => (SOCKETCALLS, data.args[0] as u32 as usize),
        117 => (IPC_CALLS, data.args[0] as u16 as usize),
        _ => return None,
    };
    names.split_whitespace().nth(call).filter(|name| *name != "-")
}

/// 0 is the most severe.
fn severity(action: u32) -> usize {
    let order =
        [0x8000_0000, 0, 0x0003_0000, 0x0005_0000, 0x7fc0_0000, 0x7ff0_0000, 0x7ffc_0000, 0x7fff_0000];
    order.iter().position(|one| *one == action & 0xffff_0000).unwrap_or_else(|| panic!("{action:#x}"))
}

/// The verdict of `profile` on the call `data`.
pub(in crate::seccomp) fn verdict(profile: &Seccomp, native: Abi, data: &Data) -> u32 {
    let default = value(&profile.default_action, profile.default_errno_ret);
    let Some(abi) = abi_of(profile, native, data) else {
        let cancelled = data.nr == u32::MAX && data.arch == 0xc000_003e && native == Abi::X86_64;
        return if cancelled { default } else { 0 };
    };
    if data.nr == u32::MAX {
        return default;
    }
    let narrow = !matches!(abi, Abi::X86_64 | Abi::Aarch64);
    let number = |name: &String| syscalls::lookup(name).and_then(|row| row.number(abi));
    let second_name = multiplexed_name(data).filter(|_| abi == Abi::X86);

    let mut conditional = None;
    for rule in &profile.syscalls {
        let action = value(&rule.action, rule.errno_ret);
        if action == default {
            continue;
        }
        for name in &rule.names {
            if number(name) == Some(data.nr) {
                if rule.args.is_empty() {
                    return action;
                }
                if conditions_hold(rule, data, narrow) {
                    conditional = conditional.or(Some(action));
                }
            }
            let reaches = rule.args.is_empty() || severity(action) < severity(default);
            if second_name == Some(name.as_str()) && reaches {
                conditional = conditional.or(Some(action));
            }
        }
    }
    if let Some(action) = conditional {
        return action;
    }
    // Named with conditions that fail is still known to the profile.
    let named = profile.syscalls.iter().flat_map(|rule| &rule.names).filter_map(number);
    let newest = named.filter(|nr| abi != Abi::Arm || *nr < 0x000f_0000).max();
    let mentioned = |nr| {
        profile.syscalls.iter().any(|rule| {
            value(&rule.action, rule.errno_ret) != default
                && rule.names.iter().any(|name| number(name) == Some(nr))
        })
    };
    match newest {
        Some(newest) if default & 0xffff_0000 == 0x0005_0000 && data.nr > newest && !mentioned(data.nr) => {
            0x0005_0000 | 38
        }
        _ => default,
    }
}
