//! Single rules of the compiler, each with the call that shows it, and what is refused.

use super::{arg, profile, rule};
use crate::error::Kind;
use crate::seccomp::arch::Abi;
use crate::seccomp::oracle::interpret::{Data, check, run};
use crate::seccomp::{compile_for, known, syscalls};
use crate::spec::{Seccomp, SeccompRule};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn call(abi: Abi, name: &str, args: [u64; 6]) -> Data {
    Data { nr: syscalls::lookup(name).unwrap().number(abi).unwrap(), arch: abi.audit(), args }
}

fn number(abi: Abi, nr: u32) -> Data {
    Data { nr, arch: abi.audit(), args: [0; 6] }
}

fn decide(made: &Seccomp, data: &Data) -> u32 {
    let program = compile_for(made, Abi::X86_64).unwrap().program;
    check(&program);
    run(&program, data)
}

fn listing(mut made: Seccomp, archs: &[&str]) -> Seccomp {
    made.architectures = archs.iter().map(|arch| (*arch).to_owned()).collect();
    made
}

fn errno(mut one: SeccompRule, errno: u32) -> SeccompRule {
    one.errno_ret = Some(errno);
    one
}

fn refusal(made: &Seccomp) -> String {
    let err = compile_for(made, Abi::X86_64).unwrap_err();
    assert_eq!(err.kind(), Kind::Invalid);
    err.to_string()
}

#[test]
fn abis_that_are_not_listed_are_killed() {
    let made = profile("SCMP_ACT_ALLOW", vec![rule("SCMP_ACT_ERRNO", &["mkdir"], vec![])]);
    assert_eq!(decide(&made, &call(Abi::X86_64, "mkdir", [0; 6])), EPERM);
    assert_eq!(decide(&made, &call(Abi::X86_64, "read", [0; 6])), ALLOW);
    assert_eq!(decide(&made, &call(Abi::X86, "read", [0; 6])), KILL);
    assert_eq!(decide(&made, &call(Abi::X32, "read", [0; 6])), KILL);
    assert_eq!(decide(&made, &call(Abi::Aarch64, "read", [0; 6])), KILL);
    // A tracer's cancelled call is none of x32's, though it has its bit.
    assert_eq!(decide(&made, &number(Abi::X86_64, u32::MAX)), ALLOW);

    // Others alone listed: the native ABI is there all the same.
    let made = listing(made, &["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"]);
    for abi in [Abi::X86_64, Abi::X86, Abi::X32] {
        assert_eq!(decide(&made, &call(abi, "mkdir", [0; 6])), EPERM, "{abi:?}");
        assert_eq!(decide(&made, &call(abi, "read", [0; 6])), ALLOW, "{abi:?}");
    }
    assert_eq!(decide(&made, &call(Abi::Arm, "read", [0; 6])), KILL);
}

#[test]
fn x32_has_numbers_of_its_own() {
    let made = profile("SCMP_ACT_ALLOW", vec![rule("SCMP_ACT_ERRNO", &["rt_sigaction"], vec![])]);
    let made = listing(made, &["SCMP_ARCH_X32"]);
    assert_eq!(decide(&made, &number(Abi::X32, 0x4000_0000 + 512)), EPERM);
    assert_eq!(decide(&made, &number(Abi::X32, 0x4000_0000 + 13)), ALLOW);
}

#[test]
fn conditions_on_one_argument_are_alternatives_and_on_several_a_conjunction() {
    let two = |a, b| vec![arg(a, "SCMP_CMP_EQ", 100), arg(b, "SCMP_CMP_EQ", 9001)];
    let made = profile("SCMP_ACT_ERRNO", vec![rule("SCMP_ACT_ALLOW", &["kcmp"], two(0, 0))]);
    for (value, want) in [(100, ALLOW), (9001, ALLOW), (0, EPERM)] {
        assert_eq!(decide(&made, &call(Abi::X86_64, "kcmp", [value, 0, 0, 0, 0, 0])), want, "{value}");
    }
    let made = profile("SCMP_ACT_ERRNO", vec![rule("SCMP_ACT_ALLOW", &["kcmp"], two(0, 1))]);
    for (values, want) in [([100, 9001], ALLOW), ([100, 100], EPERM), ([9001, 9001], EPERM)] {
        let args = [values[0], values[1], 0, 0, 0, 0];
        assert_eq!(decide(&made, &call(Abi::X86_64, "kcmp", args)), want, "{values:?}");
    }
}

#[test]
fn a_rule_without_conditions_wins_and_the_first_of_its_kind() {
    let conditional = |n| errno(rule("SCMP_ACT_ERRNO", &["dup"], vec![arg(0, "SCMP_CMP_EQ", 1)]), n);
    let always = |n| errno(rule("SCMP_ACT_ERRNO", &["dup"], vec![]), n);
    let cases = [
        (vec![conditional(2), always(3)], 3),
        (vec![always(3), conditional(2)], 3),
        (vec![always(3), always(4)], 3),
        (vec![conditional(2), conditional(5)], 2),
    ];
    for (rules, want) in cases {
        let made = profile("SCMP_ACT_ALLOW", rules);
        assert_eq!(decide(&made, &call(Abi::X86_64, "dup", [1, 0, 0, 0, 0, 0])), 0x0005_0000 | want);
    }
}

#[test]
fn a_rule_that_repeats_the_default_hides_nothing() {
    let rules = vec![
        rule("SCMP_ACT_ERRNO", &["dup"], vec![]),
        rule("SCMP_ACT_ALLOW", &["dup"], vec![arg(0, "SCMP_CMP_EQ", 1)]),
    ];
    let made = profile("SCMP_ACT_ERRNO", rules);
    assert_eq!(decide(&made, &call(Abi::X86_64, "dup", [1, 0, 0, 0, 0, 0])), ALLOW);
}

#[test]
fn arguments_of_32_bit_abis_are_compared_by_their_low_word() {
    let minus_one = vec![arg(0, "SCMP_CMP_EQ", u64::MAX)];
    let made = listing(
        profile("SCMP_ACT_ALLOW", vec![rule("SCMP_ACT_ERRNO", &["personality"], minus_one)]),
        &["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    );
    let low = [0xffff_ffff, 0, 0, 0, 0, 0];
    assert_eq!(decide(&made, &call(Abi::X86_64, "personality", low)), ALLOW);
    assert_eq!(decide(&made, &call(Abi::X86, "personality", low)), EPERM);
    assert_eq!(decide(&made, &call(Abi::X32, "personality", [0x5_ffff_ffff, 0, 0, 0, 0, 0])), EPERM);
}

#[test]
fn multiplexers_of_i386_are_no_way_around_a_rule() {
    let deny = |args| {
        listing(
            profile("SCMP_ACT_ALLOW", vec![rule("SCMP_ACT_ERRNO", &["socket", "msgsnd"], args)]),
            &["SCMP_ARCH_X86"],
        )
    };
    let through = |made: &Seccomp, name, first| decide(made, &call(Abi::X86, name, [first, 40, 0, 0, 0, 0]));
    for made in [deny(vec![]), deny(vec![arg(0, "SCMP_CMP_EQ", 40)]), deny(vec![arg(2, "SCMP_CMP_EQ", 40)])] {
        assert_eq!(through(&made, "socketcall", 1), EPERM);
        assert_eq!(through(&made, "socketcall", 2), ALLOW);
        assert_eq!(through(&made, "ipc", 11), EPERM);
        assert_eq!(through(&made, "ipc", 1 << 16 | 11), EPERM);
        assert_eq!(through(&made, "ipc", 12), ALLOW);
    }
    let allow = |args| {
        listing(
            profile("SCMP_ACT_ERRNO", vec![rule("SCMP_ACT_ALLOW", &["socket"], args)]),
            &["SCMP_ARCH_X86"],
        )
    };
    assert_eq!(through(&allow(vec![]), "socketcall", 1), ALLOW);
    assert_eq!(through(&allow(vec![]), "socketcall", 2), EPERM);
    // What cannot be checked is not allowed, and no refusal replaces another.
    let other = errno(rule("SCMP_ACT_ERRNO", &["socket"], vec![arg(0, "SCMP_CMP_EQ", 40)]), 2);
    let made = listing(profile("SCMP_ACT_ERRNO", vec![other]), &["SCMP_ARCH_X86"]);
    assert_eq!(through(&made, "socketcall", 1), EPERM);
    assert_eq!(through(&allow(vec![arg(0, "SCMP_CMP_NE", 40)]), "socketcall", 1), EPERM);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let rules = vec![
        rule("SCMP_ACT_ALLOW", &["read", "openat2"], vec![]),
        rule("SCMP_ACT_ERRNO", &["faccessat2", "set_tls"], vec![]),
    ];
    let made = listing(profile("SCMP_ACT_ERRNO", rules), &["SCMP_ARCH_X86"]);
    // faccessat2, 439, is the newest that the profile mentions, though only to refuse it.
    for abi in [Abi::X86_64, Abi::X86] {
        assert_eq!(decide(&made, &number(abi, 438)), EPERM);
        assert_eq!(decide(&made, &number(abi, 439)), EPERM);
        assert_eq!(decide(&made, &number(abi, 440)), ENOSYS);
        assert_eq!(decide(&made, &number(abi, 1000)), ENOSYS);
    }
    // arm's private numbers say nothing of the profile's age.
    let program = compile_for(&listing(made.clone(), &["SCMP_ARCH_ARM"]), Abi::Aarch64).unwrap().program;
    assert_eq!(run(&program, &number(Abi::Arm, 440)), ENOSYS);

    // Whoever kills the unknown means it, and a default that allows stays.
    for (default, want) in
        [("SCMP_ACT_KILL", KILL), ("SCMP_ACT_ALLOW", ALLOW), ("SCMP_ACT_TRAP", 0x0003_0000)]
    {
        let mut other = made.clone();
        other.default_action = default.to_owned();
        assert_eq!(decide(&other, &number(Abi::X86_64, 1000)), want, "{default}");
    }
}

#[test]
fn wrong_documents_are_refused_with_the_place_and_the_remedy() {
    let with = |one| profile("SCMP_ACT_ALLOW", vec![rule("SCMP_ACT_ERRNO", &["dup"], vec![]), one]);
    let cases = [
        (
            profile("SCMP_ACT_NOPE", vec![]),
            "unknown action \"SCMP_ACT_NOPE\" (default): one of SCMP_ACT_ALLOW",
        ),
        (with(rule("ALLOW", &["read"], vec![])), "unknown action \"ALLOW\" (syscalls[1])"),
        (
            with(rule("SCMP_ACT_LOG", &["read"], vec![arg(0, "==", 0)])),
            "unknown operator \"==\" (syscalls[1])",
        ),
        (with(rule("SCMP_ACT_LOG", &["read"], vec![arg(6, "SCMP_CMP_EQ", 0)])), "argument 6 (syscalls[1])"),
        (
            with(errno(rule("SCMP_ACT_KILL", &["read"], vec![]), 1)),
            "SCMP_ACT_KILL (syscalls[1]) cannot carry the errno 1",
        ),
        (
            with(errno(rule("SCMP_ACT_ERRNO", &["read"], vec![]), 4096)),
            "errno 4096 (syscalls[1]) is above 4095",
        ),
        (with(errno(rule("SCMP_ACT_TRACE", &["read"], vec![]), 65536)), "trace datum 65536"),
        (profile("SCMP_ACT_NOTIFY", vec![]), "defaultAction SCMP_ACT_NOTIFY"),
        (with(rule("SCMP_ACT_NOTIFY", &["read"], vec![])), "needs listenerPath"),
        (
            with(rule("SCMP_ACT_NOTIFY", &["write"], vec![])),
            "cannot be used for the write syscall (syscalls[1])",
        ),
    ];
    for (made, want) in cases {
        let text = refusal(&made);
        assert!(text.starts_with("compiling linux.seccomp: ") && text.contains(want), "{text}");
    }
    let mut made = profile("SCMP_ACT_ALLOW", vec![]);
    made.default_errno_ret = Some(1);
    assert!(refusal(&made).contains("SCMP_ACT_ALLOW (default) cannot carry the errno 1"));
}

#[test]
fn unknown_words_warn_and_known_ones_do_not() {
    let mut made = listing(profile("SCMP_ACT_ALLOW", vec![]), &["SCMP_ARCH_TOASTER"]);
    made.flags = Some(vec!["SECCOMP_FILTER_FLAG_NEW".to_owned(), "SECCOMP_FILTER_FLAG_LOG".to_owned()]);
    let compiled = compile_for(&made, Abi::X86_64).unwrap();
    assert_eq!(compiled.flags, libc::SECCOMP_FILTER_FLAG_LOG as u32);
    assert_eq!(compiled.warnings.len(), 2, "{:?}", compiled.warnings);

    let words = known();
    let made = listing(profile("SCMP_ACT_ALLOW", vec![]), words.archs);
    assert!(compile_for(&made, Abi::X86_64).unwrap().warnings.is_empty());
    assert_eq!((words.actions.len(), words.operators.len(), words.flags.len()), (9, 7, 4));
    for action in words.actions {
        let mut made = profile("SCMP_ACT_ALLOW", vec![rule(action, &["read"], vec![])]);
        made.listener_path = Some("/run/listener".into());
        assert!(compile_for(&made, Abi::X86_64).is_ok(), "{action}");
    }
}

#[test]
fn flags_absent_are_not_flags_empty() {
    let flags = |json: &str| {
        let made: Seccomp = serde_json::from_str(json).unwrap();
        compile_for(&made, Abi::X86_64).unwrap().flags
    };
    assert_eq!(flags(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#), 4);
    assert_eq!(flags(r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": null}"#), 4);
    assert_eq!(flags(r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": []}"#), 0);
    let tsync = r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"]}"#;
    assert_eq!(flags(tsync), 1);
}

#[test]
fn notification_asks_for_a_listener() {
    let mut made = profile("SCMP_ACT_ALLOW", vec![rule("SCMP_ACT_NOTIFY", &["mkdir"], vec![])]);
    made.listener_path = Some("/run/listener".into());
    made.flags = Some(vec!["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".to_owned()]);
    let compiled = compile_for(&made, Abi::X86_64).unwrap();
    assert!(compiled.needs_listener && compiled.warnings.is_empty());
    assert_eq!(compiled.flags, 1 << 3 | 1 << 5);

    // Without a rule that notifies, the kernel would refuse the flag.
    made.syscalls.clear();
    let compiled = compile_for(&made, Abi::X86_64).unwrap();
    assert!(!compiled.needs_listener);
    assert_eq!((compiled.flags, compiled.warnings.len()), (0, 2), "{:?}", compiled.warnings);
}

#[test]
fn a_profile_that_asks_for_nothing_has_no_program() {
    let compiled = compile_for(&serde_json::from_str("{}").unwrap(), Abi::X86_64).unwrap();
    assert!(compiled.program.is_empty());
    assert_eq!(compiled.warnings.len(), 1);
}

#[test]
fn a_program_above_the_kernels_limit_is_refused_with_both_numbers() {
    let rules =
        (0..1500).map(|n| rule("SCMP_ACT_ERRNO", &["ioctl"], vec![arg(1, "SCMP_CMP_EQ", n)])).collect();
    let err = compile_for(&profile("SCMP_ACT_ALLOW", rules), Abi::X86_64).unwrap_err();
    let text = err.to_string();
    assert_eq!(err.kind(), Kind::Unsupported);
    assert!(text.contains("instructions, the kernel takes at most 4096: use fewer"), "{text}");
}

#[test]
fn branches_longer_than_a_jump_reach_their_targets() {
    // 250 conditional rules on each of two neighbours: more than 255 instructions for each leaf.
    let on = |name: &'static str, base: u64| {
        (0..250).map(move |n| {
            errno(rule("SCMP_ACT_ERRNO", &[name], vec![arg(1, "SCMP_CMP_EQ", base + n)]), n as u32 + 2)
        })
    };
    let made = profile("SCMP_ACT_ALLOW", on("ioctl", 0).chain(on("pread64", 1000)).collect());
    let program = compile_for(&made, Abi::X86_64).unwrap().program;
    check(&program);
    assert!(program.iter().any(|one| one.code == 0x05), "no long jump was needed");
    for n in 0..250 {
        let want = 0x0005_0000 | (n as u32 + 2);
        assert_eq!(run(&program, &call(Abi::X86_64, "ioctl", [0, n, 0, 0, 0, 0])), want);
        assert_eq!(run(&program, &call(Abi::X86_64, "pread64", [0, 1000 + n, 0, 0, 0, 0])), want);
    }
    assert_eq!(run(&program, &call(Abi::X86_64, "ioctl", [0, 1000, 0, 0, 0, 0])), ALLOW);
    assert_eq!(run(&program, &call(Abi::X86_64, "read", [0; 6])), ALLOW);
}
