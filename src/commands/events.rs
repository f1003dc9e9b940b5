//! `events`: statistics and out-of-memory events of a container, as lines of JSON.
//!
//! Owns the interval and runc's envelope around each event. Never reads a cgroup file.

use std::time::{Duration, Instant};

use clap::ArgMatches;
use locule_runtime::{Container, Error, Kind, Notice, Result, Status};
use serde::Serialize;

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, switch};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "events",
    about: "Print a container's statistics and out-of-memory events",
    usage: "[options] <container-id>",
    details: "Prints one line of JSON with the container's statistics every interval, and one for each time the \
kernel killed a process for lack of memory, until the container ends. With --stats, the statistics once.",
    examples: &[
        ("Memory in use", "locule events --stats web1 | jq .data.memory.usage.usage"),
        ("Twice a second", "locule events --interval 500ms web1"),
    ],
    arguments: |command| {
        command
            .args([
                option("interval", "DURATION", "Time between statistics, as 500ms, 5s or 1m30s")
                    .default_value("5s")
                    .value_parser(duration),
                switch("stats", "Print the statistics once"),
            ])
            .arg(id())
    },
    run,
    ..Verb::BASE
};

#[derive(Serialize)]
struct Event<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let interval: Duration = matches.get_one("interval").copied().unwrap_or(Duration::from_secs(5));
    let container = globals.container(given_id(matches))?;
    if container.status()? == Status::Stopped {
        return Err(Error::new(
            Kind::NotRunning,
            format!("watching {}: container not running", container.id()),
        ));
    }
    if matches.get_flag("stats") {
        statistics(&container, out)?;
        return Ok(0);
    }
    let mut watch = container.watch()?;
    let mut due = Instant::now() + interval;
    loop {
        match watch.next(due.saturating_duration_since(Instant::now()))? {
            Notice::Oom => {
                out.json(&Event::<()> { kind: "oom", id: container.id(), data: None })?;
            }
            Notice::Timeout => {
                statistics(&container, out)?;
                due += interval;
            }
            Notice::Stopped => return Ok(0),
        }
    }
}

fn statistics(container: &Container, out: &mut Out) -> Result<()> {
    out.json(&Event { kind: "stats", id: container.id(), data: Some(container.stats()?) })
}

/// A duration as Go writes it: numbers with units, as `1h15m30.5s`; more than zero.
fn duration(word: &str) -> std::result::Result<Duration, String> {
    let refusal = || format!("{word:?} is no duration above zero: give one as 500ms, 5s or 1m30s");
    let mut rest = word;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refusal)?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refusal()),
        };
        let number: f64 = number.parse().map_err(|_| refusal())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| refusal())?;
        sum = sum.checked_add(part).ok_or_else(refusal)?;
        rest = tail;
    }
    if sum.is_zero() { Err(refusal()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250µs"), Ok(Duration::from_micros(250)));
        for word in ["", "5", "s", "5x", "0s", "-1s", "1s2", "1..2s", "1e99h"] {
            assert!(duration(word).is_err(), "{word}");
        }
    }

    #[test]
    fn an_event_has_runcs_envelope() {
        let oom = Event::<()> { kind: "oom", id: "a", data: None };
        assert_eq!(serde_json::to_string(&oom).unwrap(), r#"{"type":"oom","id":"a"}"#);
        let stats = Event { kind: "stats", id: "a", data: Some(serde_json::json!({"pids": {"current": 1}})) };
        assert_eq!(
            serde_json::to_string(&stats).unwrap(),
            r#"{"type":"stats","id":"a","data":{"pids":{"current":1}}}"#
        );
    }
}
