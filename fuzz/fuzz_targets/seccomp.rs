//! seccomp profile → BPF: the program's verdict on a call is what the profile says of it.
//!
//! The input makes a profile (default, rules, conditions, architectures) and then calls that aim at
//! it: its names in each ABI, its values and their neighbours, i386's multiplexers, foreign ABIs.
#![no_main]

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use locule_runtime::seccomp::oracle::{self, Call, Machine};
use locule_runtime::seccomp::{Known, known};
use locule_runtime::spec::{Seccomp, SeccompArg, SeccompRule};

/// Calls tried of one profile.
const CALLS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let _ = judge(&mut input);
});

fn judge(input: &mut Unstructured<'_>) -> Result<()> {
    let machine = if input.ratio(2, 3)? { Machine::X86_64 } else { Machine::Aarch64 };
    let names: Vec<&str> = oracle::names().collect();
    let profile = profile(input, &names)?;
    let compiled = match oracle::compile(&profile, machine) {
        Ok(compiled) => compiled,
        Err(err) => {
            assert!(err.to_string().contains("seccomp"), "{err}");
            return Ok(());
        }
    };
    if profile.default_action.is_empty() {
        assert!(compiled.program.is_empty());
        return Ok(());
    }
    oracle::check(&compiled);
    for _ in 0..CALLS {
        let call = call(input, machine, &profile, &names)?;
        let (have, want) =
            (oracle::program_says(&compiled, call), oracle::profile_says(&profile, machine, call));
        assert_eq!(have, want, "{have:#x}, not {want:#x}, for {call:x?} on {machine:?}\n{profile:#?}");
        if input.is_empty() {
            break;
        }
    }
    Ok(())
}

fn profile(input: &mut Unstructured<'_>, names: &[&str]) -> Result<Seccomp> {
    let Known { actions, archs, .. } = known();
    let mut profile = Seccomp::default();
    // Most of what a random default leads to is a refusal; errno and allow are what profiles have.
    profile.default_action = match input.int_in_range(0..=5)? {
        0..=2 => "SCMP_ACT_ERRNO".to_owned(),
        3 => "SCMP_ACT_ALLOW".to_owned(),
        4 => (*input.choose(actions)?).to_owned(),
        _ => input.arbitrary::<&str>()?.to_owned(),
    };
    profile.default_errno_ret = errno(input, &profile.default_action)?;
    for _ in 0..input.int_in_range(0..=4)? {
        profile.architectures.push((*input.choose(archs)?).to_owned());
    }
    profile.listener_path = input.ratio(3, 4)?.then(|| "/listener".into());
    for _ in 0..input.int_in_range(0..=12)? {
        profile.syscalls.push(rule(input, names)?);
    }
    Ok(profile)
}

fn rule(input: &mut Unstructured<'_>, names: &[&str]) -> Result<SeccompRule> {
    let Known { actions, operators, .. } = known();
    let mut rule = SeccompRule { action: (*input.choose(actions)?).to_owned(), ..SeccompRule::default() };
    rule.errno_ret = errno(input, &rule.action)?;
    for _ in 0..input.int_in_range(0..=4)? {
        // A few names often, so that rules meet on one call.
        let name = match input.int_in_range(0..=3)? {
            0 => *input.choose(&[
                "socket",
                "socketcall",
                "ipc",
                "msgsnd",
                "shmctl",
                "accept4",
                "no_such_call",
            ])?,
            1 => *input.choose(&names[..8])?,
            _ => *input.choose(names)?,
        };
        rule.names.push(name.to_owned());
    }
    for _ in 0..input.int_in_range(0..=3)? {
        rule.args.push(SeccompArg {
            index: if input.ratio(1, 50)? { input.arbitrary()? } else { input.int_in_range(0..=5)? },
            value: value(input)?,
            value_two: value(input)?,
            op: (*input.choose(operators)?).to_owned(),
        });
    }
    Ok(rule)
}

/// Mostly none where the action carries none, as the rest is refused.
fn errno(input: &mut Unstructured<'_>, action: &str) -> Result<Option<u32>> {
    let carries = matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    Ok(match input.int_in_range(0..=63)? {
        0 => Some(input.arbitrary()?),
        1..=24 if carries => Some(*input.choose(&[0, 1, 38, 95, 4095, 4096, 65535])?),
        _ => None,
    })
}

/// Around the places where a comparison of two words turns.
fn value(input: &mut Unstructured<'_>) -> Result<u64> {
    const TURNS: [u64; 10] = [
        0,
        1,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_ffff_ffff,
        0xffff_ffff_0000_0000,
        1 << 63,
        u64::MAX,
    ];
    Ok(match input.int_in_range(0..=3)? {
        0 => input.arbitrary()?,
        1 => input.choose(&TURNS)?.wrapping_add(1),
        2 => input.choose(&TURNS)?.wrapping_sub(1),
        _ => *input.choose(&TURNS)?,
    })
}

fn call(input: &mut Unstructured<'_>, machine: Machine, profile: &Seccomp, names: &[&str]) -> Result<Call> {
    let abis: Vec<_> = machine.abis().collect();
    let abi = *input.choose(&abis)?;
    let mut call = Call { arch: abi.0, nr: 0, args: [0; 6] };
    let named: Vec<&String> = profile.syscalls.iter().flat_map(|rule| &rule.names).collect();
    call.nr = match input.int_in_range(0..=9)? {
        0 => input.arbitrary()?,
        1 => {
            *input.choose(&[u32::MAX, 0x4000_0000, 0x3fff_ffff, 0x4000_0200, 0xf_0005, 1 << 31, 102, 117])?
        }
        2 => abi.1 + input.int_in_range(0..=700)?,
        3 => oracle::number(machine, abi, input.choose(names)?).unwrap_or(102),
        _ if named.is_empty() => abi.1 + input.int_in_range(0..=500)?,
        _ => oracle::number(machine, abi, input.choose(&named)?).unwrap_or(117),
    };
    if input.ratio(1, 12)? {
        call.nr = call.nr.wrapping_add(1);
    }
    if input.ratio(1, 20)? {
        call.arch = *input.choose(&[0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x8000_0016])?;
    }
    let conditions: Vec<&SeccompArg> = profile.syscalls.iter().flat_map(|rule| &rule.args).collect();
    for slot in &mut call.args {
        *slot = match input.int_in_range(0..=2)? {
            0 => value(input)?,
            1 if !conditions.is_empty() => input.choose(&conditions)?.value,
            _ if !conditions.is_empty() => {
                let one = input.choose(&conditions)?;
                *input.choose(&[one.value_two, one.value & one.value_two, one.value.wrapping_add(1)])?
            }
            _ => input.int_in_range(0..=26)?,
        };
    }
    Ok(call)
}
