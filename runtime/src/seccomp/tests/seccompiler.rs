//! `seccompiler` as a second oracle: one ABI, one action, argument conditions.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::{Random, arg, profile, rule};
use crate::seccomp::arch::Abi;
use crate::seccomp::oracle::interpret::{Data, run};
use crate::seccomp::{compile_for, syscalls};

fn operator(word: &str, value_two: u64) -> (SeccompCmpOp, bool) {
    match word {
        "SCMP_CMP_NE" => (SeccompCmpOp::Ne, false),
        "SCMP_CMP_LT" => (SeccompCmpOp::Lt, false),
        "SCMP_CMP_LE" => (SeccompCmpOp::Le, false),
        "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, false),
        "SCMP_CMP_GE" => (SeccompCmpOp::Ge, false),
        "SCMP_CMP_GT" => (SeccompCmpOp::Gt, false),
        // There the mask is the operator's and the datum the value: the other way round.
        _ => (SeccompCmpOp::MaskedEq(value_two), true),
    }
}

#[test]
fn agrees_with_seccompiler() {
    let names = ["read", "clone", "ioctl", "socket", "personality", "openat2", "mseal"];
    let words = [
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    let values = [0, 1, 5, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, u64::MAX];
    for seed in 1..=300u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut rules = Vec::new();
        let mut theirs: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let mut free: Vec<_> = names.to_vec();
        for _ in 0..1 + random.below(12) {
            if free.is_empty() {
                break;
            }
            let at = random.below(free.len());
            let name = free[at];
            let number = syscalls::lookup(name).and_then(|row| row.number(Abi::X86_64)).unwrap();
            let mut args: Vec<_> = Vec::new();
            for index in 0..6 {
                if random.chance(25) {
                    let mut one = arg(index, random.pick(&words), random.pick(&values));
                    if one.op == "SCMP_CMP_MASKED_EQ" {
                        one.value_two = one.value & random.pick(&values);
                    }
                    args.push(one);
                }
            }
            let conditions: Vec<_> = args
                .iter()
                .map(|one| {
                    let (op, masked) = operator(&one.op, one.value);
                    let value = if masked { one.value_two } else { one.value };
                    SeccompCondition::new(one.index as u8, SeccompCmpArgLen::Qword, op, value).unwrap()
                })
                .collect();
            let chain = theirs.entry(i64::from(number)).or_default();
            if conditions.is_empty() {
                chain.clear();
                free.remove(at);
            } else {
                chain.push(SeccompRule::new(conditions).unwrap());
            }
            rules.push(rule("SCMP_ACT_ALLOW", &[name], args));
        }
        let mut made = profile("SCMP_ACT_ERRNO", rules);
        made.default_errno_ret = Some(38);
        let ours = compile_for(&made, Abi::X86_64).unwrap().program;
        let filter =
            SeccompFilter::new(theirs, SeccompAction::Errno(38), SeccompAction::Allow, TargetArch::x86_64);
        let theirs: BpfProgram = filter.unwrap().try_into().unwrap();
        let theirs: Vec<_> = theirs
            .iter()
            .map(|one| libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k: one.k })
            .collect();
        for _ in 0..300 {
            let name = random.pick(&names);
            let nr = syscalls::lookup(name).and_then(|row| row.number(Abi::X86_64)).unwrap();
            let args = std::array::from_fn(|_| {
                random.pick(&values).wrapping_add(random.below(3) as u64).wrapping_sub(1)
            });
            let data = Data { nr, arch: Abi::X86_64.audit(), args };
            assert_eq!(run(&ours, &data), run(&theirs, &data), "seed {seed}, {data:x?}\n{made:#?}");
        }
    }
}
