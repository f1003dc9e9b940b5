//! For: the Markdown that goes to docs/performance.md: facts on the machine, times, ratios, memory, failures.
//! Owns: all samples of a run.
//! Never: hides a failed or hung execution; it is left out of the numbers and named below them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::cycle::{FLOOR, Runtime, Verb};
use crate::probe::Sample;
use crate::stats::Summary;

/// Samples by runtime and verb, and what failed.
pub struct Report {
    facts: String,
    names: Vec<String>,
    samples: BTreeMap<(String, Verb), Vec<Sample>>,
    failures: BTreeMap<(String, Verb), (usize, String)>,
}

impl Report {
    /// Columns are the floor and the runtimes in the order given.
    pub fn new(runtimes: &[Runtime]) -> Self {
        let mut names = vec![FLOOR.to_owned()];
        names.extend(runtimes.iter().map(|r| r.name.clone()));
        Self { facts: facts(runtimes), names, samples: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// Takes the result of one execution.
    pub fn record(&mut self, name: &str, verb: Verb, result: Result<Sample, String>) {
        let key = (name.to_owned(), verb);
        match result {
            Ok(sample) => self.samples.entry(key).or_default().push(sample),
            Err(message) => self.failures.entry(key).or_insert((0, message)).0 += 1,
        }
    }

    fn summary(&self, name: &str, verb: Verb, field: fn(&Sample) -> u64) -> Option<Summary> {
        // All verbs but `run` have the empty program as their floor.
        let verb = if name == FLOOR && verb != Verb::Run { Verb::State } else { verb };
        let samples: Vec<u64> = self.samples.get(&(name.to_owned(), verb))?.iter().map(field).collect();
        Summary::of(&samples)
    }

    fn table(
        &self,
        head: &str,
        names: &[&str],
        verbs: &[Verb],
        cell: impl Fn(&str, Verb) -> Option<String>,
    ) -> String {
        let mut text = format!("| {head} |");
        names.iter().for_each(|n| _ = write!(text, " {n} |"));
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(names.len()));
        for &verb in verbs {
            let _ = write!(text, "| {} |", verb.label());
            names.iter().for_each(|n| _ = write!(text, " {} |", cell(n, verb).unwrap_or_default()));
            text.push('\n');
        }
        text
    }

    fn ratios(&self, base: &str) -> String {
        let names: Vec<&str> =
            self.names.iter().map(String::as_str).filter(|n| *n != base && *n != FLOOR).collect();
        let verbs: &[Verb] = if base == FLOOR { &[Verb::Run] } else { &Verb::ALL };
        self.table(&format!("times {base} (best / median)"), &names, verbs, |name, verb| {
            let (own, base) =
                (self.summary(name, verb, |s| s.value)?, self.summary(base, verb, |s| s.value)?);
            Some(format!("{:.2} / {:.2}", own.best / base.best, own.median / base.median))
        })
    }

    /// What a cheap verb costs beyond an empty static program, in ms.
    fn above_empty(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).filter(|n| *n != FLOOR).collect();
        let verbs = [Verb::State, Verb::Start, Verb::Kill, Verb::Delete, Verb::Features];
        self.table("ms above an empty program (best / median)", &names, &verbs, |name, verb| {
            let (own, base) =
                (self.summary(name, verb, |s| s.value)?, self.summary(FLOOR, verb, |s| s.value)?);
            Some(format!("{:.2} / {:.2}", (own.best - base.best) / 1e6, (own.median - base.median) / 1e6))
        })
    }

    /// The report of a run with `timer`.
    pub fn timings(&self, rounds: usize) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut text =
            format!("{}- {rounds} interleaved rounds; load after the run {}\n\n", self.facts, load());
        text += &self.table("ms (best / median)", &names, &Verb::ALL, |name, verb| {
            let summary = self.summary(name, verb, |s| s.value)?;
            Some(format!("{:.2} / {:.2}", summary.best / 1e6, summary.median / 1e6))
        });
        text.push('\n');
        text += &self.table(
            "peak memory, KiB (best / median)",
            &names,
            &[Verb::Run, Verb::Create, Verb::Exec, Verb::State],
            |name, verb| {
                let summary = self.summary(name, verb, |s| s.peak_kib)?;
                Some(format!("{:.0} / {:.0}", summary.best, summary.median))
            },
        );
        for base in ["crun", FLOOR] {
            if self.names.iter().any(|n| n == base) {
                text.push('\n');
                text += &self.ratios(base);
            }
        }
        text.push('\n');
        text += &self.above_empty();
        text + &self.failed()
    }

    /// The report of a run with `strace`.
    pub fn syscalls(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut text = format!("{}\n", self.facts);
        text += &self.table("system calls, with children", &names, &Verb::ALL, |name, verb| {
            self.summary(name, verb, |s| s.value).map(|s| format!("{:.0}", s.best))
        });
        text + &self.failed()
    }

    fn failed(&self) -> String {
        let mut text = String::new();
        for ((name, verb), (times, message)) in &self.failures {
            let _ = writeln!(text, "\n{name}, {}: failed {times} times, first: {message}", verb.label());
        }
        text
    }
}

fn facts(runtimes: &[Runtime]) -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |m| m.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "- {}; {model}, {cores} cores; Linux {}; load before the run {}\n",
        first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        kernel.trim(),
        load(),
    );
    for runtime in runtimes {
        let path = runtime.path.to_string_lossy();
        let size = std::fs::metadata(Path::new(&*path)).map_or(0, |m| m.len());
        let _ = writeln!(
            text,
            "- {}: {}, {:.1} MiB",
            runtime.name,
            first_line(&path, &["--version"]),
            size as f64 / 1048576.0
        );
    }
    text
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

fn first_line(program: &str, args: &[&str]) -> String {
    Command::new(program)
        .args(args)
        .output()
        .ok()
        .and_then(|o| String::from_utf8_lossy(&o.stdout).lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".into())
}
