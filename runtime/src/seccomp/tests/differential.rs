//! Random profiles and random calls: the program's verdict is the evaluator's.

use super::{Random, arg, profile};
use crate::seccomp::arch::Abi;
use crate::seccomp::oracle::evaluate::verdict;
use crate::seccomp::oracle::interpret::{Data, check, run};
use crate::seccomp::table::SOURCE;
use crate::seccomp::{compile_for, syscalls};
use crate::spec::{Seccomp, SeccompRule};

const PROFILES: u64 = 600;
const CALLS: usize = 400;

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
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

const ARCHS: [&str; 7] = [
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_TOASTER",
];

const AUDITS: [u32; 5] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x8000_0016];

/// Values around which comparisons turn, in both words.
const VALUES: [u64; 14] = [
    0,
    1,
    2,
    40,
    0x7e02_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x1_ffff_ffff,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

fn random_value(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => random.next(),
        1 => random.pick(&VALUES).wrapping_add(1),
        2 => random.pick(&VALUES).wrapping_sub(1),
        _ => random.pick(&VALUES),
    }
}

fn random_name(random: &mut Random) -> String {
    const MULTIPLEXED: [&str; 8] =
        ["socket", "socketcall", "ipc", "accept", "msgsnd", "semtimedop", "shmctl", "sendmmsg"];
    match random.below(20) {
        0 => "no_such_call".to_owned(),
        1..4 => random.pick(&MULTIPLEXED).to_owned(),
        // A few names often, so that rules meet on one call.
        4..10 => SOURCE[random.below(12)].0.to_owned(),
        _ => random.pick(SOURCE).0.to_owned(),
    }
}

fn random_errno(random: &mut Random, action: &str) -> Option<u32> {
    let carries = matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    (carries && random.chance(40)).then(|| random.pick(&[0, 1, 38, 95, 4095]))
}

fn random_rule(random: &mut Random) -> SeccompRule {
    let action = random.pick(&ACTIONS);
    let count = if random.chance(20) { 60 } else { 4 };
    let names = (0..=random.below(count)).map(|_| random_name(random)).collect();
    let conditions = if random.chance(50) { 0 } else { 1 + random.below(4) };
    let args = (0..conditions)
        .map(|_| {
            let mut one = arg(random.below(6) as u32, random.pick(&OPERATORS), random_value(random));
            one.value_two = random_value(random);
            one
        })
        .collect();
    SeccompRule { names, action: action.to_owned(), errno_ret: random_errno(random, action), args }
}

fn random_profile(random: &mut Random) -> Seccomp {
    let count = if random.chance(10) { 40 } else { 10 };
    let rules = (0..random.below(count)).map(|_| random_rule(random)).collect();
    let default = loop {
        let action = random.pick(&ACTIONS);
        if action != "SCMP_ACT_NOTIFY" {
            break action;
        }
    };
    let mut made = profile(default, rules);
    made.default_errno_ret = random_errno(random, default);
    made.listener_path = Some("/run/listener".into());
    made.architectures = (0..random.below(5)).map(|_| random.pick(&ARCHS).to_owned()).collect();
    for rule in &mut made.syscalls {
        if rule.action == "SCMP_ACT_NOTIFY" {
            rule.names.retain(|name| name != "write");
        }
    }
    made
}

fn random_call(random: &mut Random, made: &Seccomp, native: Abi) -> Data {
    let named: Vec<_> = made.syscalls.iter().flat_map(|rule| &rule.names).map(String::as_str).collect();
    let conditions: Vec<_> = made.syscalls.iter().flat_map(|rule| &rule.args).collect();
    let family = native.family();
    let abi = random.pick(family);
    let mut data = Data { arch: abi.audit(), ..Data::default() };
    data.nr = match random.below(10) {
        0 => random.next() as u32,
        1 => random.pick(&[
            u32::MAX,
            0x4000_0000,
            0x3fff_ffff,
            0x4000_0200,
            0x000f_0005,
            0x8000_0000,
            102,
            117,
        ]),
        2 => abi.base() + random.below(700) as u32,
        _ if named.is_empty() => abi.base() + random.below(500) as u32,
        _ => syscalls::lookup(random.pick(&named))
            .and_then(|row| row.number(abi))
            .unwrap_or_else(|| random.pick(&[102, 117])),
    };
    if random.chance(10) {
        data.nr = data.nr.wrapping_add(1);
    }
    if random.chance(5) {
        data.arch = random.pick(&AUDITS);
    }
    for slot in &mut data.args {
        *slot = random_value(random);
    }
    if random.chance(30) {
        data.args[0] = random.below(26) as u64 | if random.chance(20) { 1 << 16 } else { 0 };
    }
    // Aim at the conditions: their exact values, so that conjunctions come true as well.
    if !conditions.is_empty() && random.chance(70) {
        for _ in 0..4 {
            let condition = random.pick(&conditions);
            let exact = if random.chance(50) { condition.value } else { condition.value_two };
            data.args[condition.index as usize] = exact;
        }
    }
    data
}

#[test]
fn programs_decide_as_the_profile_says() {
    let mut seen = std::collections::BTreeSet::new();
    let (mut longest, mut refused) = (0, 0);
    for seed in 1..=PROFILES {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let native = if random.chance(60) { Abi::X86_64 } else { Abi::Aarch64 };
        let made = random_profile(&mut random);
        let compiled = match compile_for(&made, native) {
            Ok(compiled) => compiled,
            Err(err) => {
                assert!(err.to_string().contains("at most 4096"), "seed {seed}: {err}");
                refused += 1;
                continue;
            }
        };
        check(&compiled.program);
        longest = longest.max(compiled.program.len());
        for _ in 0..CALLS {
            let data = random_call(&mut random, &made, native);
            let (have, want) = (run(&compiled.program, &data), verdict(&made, native, &data));
            seen.insert(want & 0xffff_0000);
            assert_eq!(
                have, want,
                "seed {seed}, {native:?}: {have:#x}, not {want:#x}, for {data:x?}\n{made:#?}"
            );
        }
    }
    // The generator itself must have met what it is for: every action, and long jumps.
    assert_eq!(seen.len(), 8, "{seen:x?}");
    assert!(longest > 600, "{longest}");
    assert!(refused < PROFILES / 20, "{refused}");
}

/// Every number of every ABI, for a profile of the usual kind.
#[test]
fn the_default_profile_decides_every_number() {
    let text = include_str!("../../../tests/data/seccomp-default.json");
    let mut made: Seccomp = serde_json::from_str(text).unwrap();
    for native in [Abi::X86_64, Abi::Aarch64] {
        let words =
            ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
        made.architectures = words.map(str::to_owned).to_vec();
        let compiled = compile_for(&made, native).unwrap();
        check(&compiled.program);
        for abi in native.family() {
            for offset in 0..600 {
                for value in [0, 40, 0x7e02_0000, 0xffff_ffff] {
                    let args = [value; 6];
                    let data = Data { nr: abi.base() + offset, arch: abi.audit(), args };
                    assert_eq!(run(&compiled.program, &data), verdict(&made, native, &data), "{data:x?}");
                }
            }
        }
    }
}
