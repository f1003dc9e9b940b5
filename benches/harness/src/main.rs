//! For: comparing OCI runtimes verb by verb in one run, interleaved, against the kernel's own cost.
//! Owns: the work directory, the cgroup `/locule-bench`, the containers that it makes.
//! Never: times anything itself; `timer` does, so that this process's size and scheduling do not count.

mod bundle;
mod cycle;
mod probe;
mod report;
mod stats;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cycle::{Runtime, Verb};
use report::Report;

const USAGE: &str =
    "usage: harness [--rounds N] [--output FILE] [--syscalls] --tools DIR --work DIR NAME=PATH...";

/// What the command line asked for.
struct Request {
    rounds: usize,
    output: Option<PathBuf>,
    syscalls: bool,
    tools: PathBuf,
    work: PathBuf,
    runtimes: Vec<(String, PathBuf)>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|request| run(&request)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("benches: {message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut request = Request {
        rounds: 30,
        output: None,
        syscalls: false,
        tools: PathBuf::new(),
        work: PathBuf::new(),
        runtimes: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value; {USAGE}"));
        match arg.as_str() {
            "--rounds" => {
                request.rounds = value()?.parse().map_err(|e| format!("reading --rounds: {e}"))?;
            }
            "--output" => request.output = Some(value()?.into()),
            "--tools" => request.tools = value()?.into(),
            "--work" => request.work = value()?.into(),
            "--syscalls" => request.syscalls = true,
            _ => {
                let (name, path) = arg.split_once('=').ok_or_else(|| format!("what is '{arg}'? {USAGE}"))?;
                request.runtimes.push((name.into(), path.into()));
            }
        }
    }
    if request.rounds == 0 || request.tools.as_os_str().is_empty() || request.work.as_os_str().is_empty() {
        return Err(USAGE.into());
    }
    Ok(request)
}

fn run(request: &Request) -> Result<(), String> {
    bundle::make_rootfs(&request.work)?;
    let floor = cycle::Floor::new(&request.tools, &request.work)?;
    let runtimes = request
        .runtimes
        .iter()
        .map(|(name, path)| Runtime::new(name, path, &request.work))
        .collect::<Result<Vec<_>, _>>()?;
    let report = if request.syscalls {
        count(&floor, &runtimes, &request.work)
    } else {
        measure(&floor, &runtimes, request)
    };
    bundle::remove_cgroups();
    let text = report?;
    print!("{text}");
    match &request.output {
        Some(path) => std::fs::write(path, text).map_err(|e| format!("writing {}: {e}", path.display())),
        None => Ok(()),
    }
}

/// Rounds in turn: every round runs each verb of each runtime once, and a different runtime goes first each time.
fn measure(floor: &cycle::Floor, runtimes: &[Runtime], request: &Request) -> Result<String, String> {
    const WARM_UP: usize = 2;
    let probe = probe::Timer::new(&request.tools, &request.work);
    let mut report = Report::new(runtimes);
    for round in 0..request.rounds + WARM_UP {
        let keep = round >= WARM_UP;
        let mut record = |name: &str, verb: Verb, result: Result<probe::Sample, String>| {
            if keep {
                report.record(name, verb, result);
            }
        };
        floor.round(&probe, &mut record);
        for turn in 0..runtimes.len() {
            runtimes[(turn + round) % runtimes.len()].round(&probe, &mut record);
        }
    }
    Ok(report.timings(request.rounds))
}

fn count(floor: &cycle::Floor, runtimes: &[Runtime], work: &Path) -> Result<String, String> {
    let probe = probe::Strace::new(work);
    let mut report = Report::new(runtimes);
    floor.round(&probe, &mut |name, verb, result| report.record(name, verb, result));
    for runtime in runtimes {
        runtime.round(&probe, &mut |name, verb, result| report.record(name, verb, result));
    }
    Ok(report.syscalls())
}
