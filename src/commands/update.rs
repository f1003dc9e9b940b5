//! `update`: other limits for a container.
//!
//! Owns the reading of limits from flags or from a document. Never writes a cgroup file.

use std::io::Read;

use clap::{ArgMatches, value_parser};
use locule_runtime::Result;
use locule_runtime::error::Context;
use locule_runtime::spec::{BlockIo, Cpu, IntelRdt, Memory, Pids, Resources};

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, text};
use crate::out::Out;

/// Options of the flags' form; each excludes `--resources`, which runc lets win silently.
const FLAGS: [&str; 17] = [
    "blkio-weight",
    "cpu-burst",
    "cpu-idle",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "cpu-share",
    "cpuset-cpus",
    "cpuset-mems",
    "kernel-memory",
    "kernel-memory-tcp",
    "memory",
    "memory-reservation",
    "memory-swap",
    "pids-limit",
    "check-before-update",
];

/// The declaration.
pub const VERB: Verb = Verb {
    name: "update",
    about: "Change the limits of a container",
    usage: "[options] <container-id>",
    details: "Limits that are not named stay as they are. They come from flags, or from a JSON document in the form \
of config.json's linux.resources; both together are refused. Sizes are bytes, or numbers with k, m, g or t \
(powers of 1024); -1 is unlimited.",
    examples: &[
        ("Half a CPU and 256 MiB", "locule update --cpu-quota 50000 --cpu-period 100000 --memory 256m web1"),
        ("From a document", "echo '{\"pids\":{\"limit\":64}}' | locule update --resources - web1"),
    ],
    arguments: |command| {
        command
            .args([
                option(
                    "resources",
                    "FILE",
                    "Read the limits as JSON from FILE, or from standard input for -",
                )
                .short('r')
                .conflicts_with_all(FLAGS),
                option("blkio-weight", "WEIGHT", "Block I/O weight, 10 to 1000")
                    .value_parser(value_parser!(u16)),
                option("cpu-period", "USEC", "CPU period").value_parser(value_parser!(u64)),
                option("cpu-quota", "USEC", "CPU time a period; -1 is unlimited")
                    .value_parser(value_parser!(i64)),
                option("cpu-burst", "USEC", "Unused CPU time that may be spent later")
                    .value_parser(value_parser!(u64)),
                option("cpu-share", "SHARES", "CPU shares, 2 to 262144").value_parser(value_parser!(u64)),
                option("cpu-idle", "0|1", "1: only CPU time that nobody else wants")
                    .value_parser(value_parser!(i64)),
                option("cpu-rt-period", "USEC", "Real-time period (cgroup v1)")
                    .value_parser(value_parser!(u64)),
                option("cpu-rt-runtime", "USEC", "Real-time CPU time a period (cgroup v1)")
                    .value_parser(value_parser!(i64)),
                option("cpuset-cpus", "LIST", "CPUs to use, as 0-3,7"),
                option("cpuset-mems", "LIST", "Memory nodes to use"),
                option("memory", "SIZE", "Memory limit").value_parser(size),
                option("memory-reservation", "SIZE", "Memory that is reclaimed last").value_parser(size),
                option("memory-swap", "SIZE", "Memory and swap together").value_parser(size),
                crate::cli::switch("check-before-update", "Refuse a memory limit below what is in use"),
                option("kernel-memory", "SIZE", "Without effect").hide(true).value_parser(size),
                option("kernel-memory-tcp", "SIZE", "Without effect").hide(true).value_parser(size),
                option("pids-limit", "N", "Most tasks; -1 is unlimited").value_parser(value_parser!(i64)),
                option("l3-cache-schema", "SCHEMA", "Intel RDT schema of the L3 cache"),
                option("mem-bw-schema", "SCHEMA", "Intel RDT schema of memory bandwidth"),
            ])
            .arg(id())
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let resources = match text(matches, "resources") {
        Some(from) => document(from)?,
        None => flags(matches),
    };
    let rdt = IntelRdt {
        l3_cache_schema: text(matches, "l3-cache-schema").map(str::to_owned),
        mem_bw_schema: text(matches, "mem-bw-schema").map(str::to_owned),
        ..IntelRdt::default()
    };
    let container = globals.container(given_id(matches))?;
    if resources != Resources::default() {
        container.update(&resources)?;
    }
    if rdt != IntelRdt::default() {
        container.update_rdt(&rdt)?;
    }
    Ok(0)
}

fn document(from: &str) -> Result<Resources> {
    let (name, text) = if from == "-" {
        let mut text = Vec::new();
        ("standard input", std::io::stdin().lock().read_to_end(&mut text).map(|_| text))
    } else {
        (from, std::fs::read(from))
    };
    let act = || format!("reading resources from {name}");
    let resources = serde_json::from_slice(&text.doing(act)?).doing(act)?;
    Ok(unlimited_means_swap_too(resources))
}

fn flags(matches: &ArgMatches) -> Resources {
    fn given<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
        matches.get_one::<T>(name).cloned()
    }
    for name in ["kernel-memory", "kernel-memory-tcp"] {
        if matches.contains_id(name) {
            locule_runtime::warn::warn(format!(
                "--{name} has no effect: cgroup v2 counts kernel memory with the rest"
            ));
        }
    }
    let cpu = Cpu {
        shares: given(matches, "cpu-share"),
        quota: given(matches, "cpu-quota"),
        burst: given(matches, "cpu-burst"),
        period: given(matches, "cpu-period"),
        realtime_runtime: given(matches, "cpu-rt-runtime"),
        realtime_period: given(matches, "cpu-rt-period"),
        cpus: given(matches, "cpuset-cpus"),
        mems: given(matches, "cpuset-mems"),
        idle: given(matches, "cpu-idle"),
    };
    let memory = Memory {
        limit: given(matches, "memory"),
        reservation: given(matches, "memory-reservation"),
        swap: given(matches, "memory-swap"),
        check_before_update: matches.get_flag("check-before-update").then_some(true),
        ..Memory::default()
    };
    let block_io = BlockIo { weight: given(matches, "blkio-weight"), ..BlockIo::default() };
    let pids = Pids { limit: given(matches, "pids-limit") };
    unlimited_means_swap_too(Resources {
        cpu: named(cpu),
        memory: named(memory),
        block_io: named(block_io),
        pids: named(pids),
        ..Resources::default()
    })
}

/// Absent where nothing in it was named.
fn named<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// runc's rule for engines that know only one number: memory without a limit, and no word on
/// swap, is swap without a limit.
fn unlimited_means_swap_too(mut resources: Resources) -> Resources {
    if let Some(memory) = &mut resources.memory
        && memory.limit == Some(-1)
    {
        memory.swap = memory.swap.or(Some(-1));
    }
    resources
}

/// Bytes from a number with an optional unit, as Docker's `units.RAMInBytes` reads it: `64m`,
/// `1.5GiB`, `512 kB` are powers of 1024; `-1` is unlimited.
fn size(word: &str) -> std::result::Result<i64, String> {
    let refusal = || format!("{word:?} is no size: give bytes, or a number with k, m, g, t or p, or -1");
    if word == "-1" {
        return Ok(-1);
    }
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, unit) = word.split_at(end);
    let unit = match unit.strip_prefix(' ') {
        Some("") => return Err(refusal()),
        Some(unit) => unit,
        None => unit,
    }
    .to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        unit => {
            let (letter, rest) = unit.split_at_checked(1).ok_or_else(refusal)?;
            if !matches!(rest, "" | "b" | "ib" | "i") {
                return Err(refusal());
            }
            "kmgtp".find(letter).ok_or_else(refusal)? + 1
        }
    };
    let factor = 1024_i64.pow(u32::try_from(power).map_err(|_| refusal())?);
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor).ok_or_else(refusal);
    }
    let fraction: f64 = number.parse().map_err(|_| refusal())?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a fraction of a unit is no exact wish"
    )]
    let bytes = (fraction * factor as f64) as i64;
    if bytes < i64::MAX { Ok(bytes) } else { Err(refusal()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_flags(line: &[&str]) -> serde_json::Value {
        let words = ["update"].iter().chain(line).copied().chain(["--", "a"]);
        serde_json::to_value(flags(&VERB.command().try_get_matches_from(words).unwrap())).unwrap()
    }

    #[test]
    fn every_flag_has_its_field() {
        let table: [(&str, serde_json::Value); 15] = [
            ("--blkio-weight=500", serde_json::json!({"blockIO": {"weight": 500}})),
            ("--cpu-period=1000", serde_json::json!({"cpu": {"period": 1000}})),
            ("--cpu-quota=-1", serde_json::json!({"cpu": {"quota": -1}})),
            ("--cpu-burst=0", serde_json::json!({"cpu": {"burst": 0}})),
            ("--cpu-share=2", serde_json::json!({"cpu": {"shares": 2}})),
            ("--cpu-idle=1", serde_json::json!({"cpu": {"idle": 1}})),
            ("--cpu-rt-period=9", serde_json::json!({"cpu": {"realtimePeriod": 9}})),
            ("--cpu-rt-runtime=9", serde_json::json!({"cpu": {"realtimeRuntime": 9}})),
            ("--cpuset-cpus=0-1", serde_json::json!({"cpu": {"cpus": "0-1"}})),
            ("--cpuset-mems=0", serde_json::json!({"cpu": {"mems": "0"}})),
            ("--memory=64m", serde_json::json!({"memory": {"limit": 67_108_864}})),
            ("--memory-reservation=1k", serde_json::json!({"memory": {"reservation": 1024}})),
            ("--memory-swap=-1", serde_json::json!({"memory": {"swap": -1}})),
            ("--check-before-update", serde_json::json!({"memory": {"checkBeforeUpdate": true}})),
            ("--pids-limit=0", serde_json::json!({"pids": {"limit": 0}})),
        ];
        for (flag, expected) in table {
            assert_eq!(from_flags(&[flag]), expected, "{flag}");
        }
        assert_eq!(from_flags(&[]), serde_json::json!({}));
        assert_eq!(from_flags(&["--kernel-memory=1m", "--kernel-memory-tcp=1m"]), serde_json::json!({}));
        assert_eq!(from_flags(&["--memory=-1"]), serde_json::json!({"memory": {"limit": -1, "swap": -1}}));
        assert_eq!(
            from_flags(&["--memory=-1", "--memory-swap=5"]),
            serde_json::json!({"memory": {"limit": -1, "swap": 5}})
        );
    }

    #[test]
    fn every_flag_excludes_the_document() {
        for flag in FLAGS {
            let value = if flag == "check-before-update" { String::new() } else { "=1".into() };
            let line = ["update".into(), "--resources=-".into(), format!("--{flag}{value}"), "a".to_owned()];
            let err = VERB.command().try_get_matches_from(line).unwrap_err();
            assert_eq!(err.kind(), clap::error::ErrorKind::ArgumentConflict, "{flag}");
        }
    }

    #[test]
    fn sizes_are_dockers() {
        for (word, bytes) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32K", 32 << 10),
            ("32kb", 32 << 10),
            ("32 KiB", 32 << 10),
            ("1.5m", 3 << 19),
            ("2G", 2 << 30),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
            ("-1", -1),
        ] {
            assert_eq!(size(word), Ok(bytes), "{word}");
        }
        for word in
            ["", "k", "-2", "1x", "1kk", "1..5k", "9223372036854775807k", "1e3", " 1", "1 ", "0x10", "ü"]
        {
            assert!(size(word).is_err(), "{word}");
        }
    }
}
