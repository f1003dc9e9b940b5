//! `events`: with a container's id what runc prints for it, as lines of JSON; without one what happens to machines.
//!
//! Owns the interval, runc's envelope around each event, and the filters of machines' events. Never reads a cgroup file.

use std::time::{Duration, Instant};

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{ArgAction, ArgMatches};
use locule_machines::events::{self as machines, Reader};
use locule_runtime::error::Context;
use locule_runtime::time::rfc3339;
use locule_runtime::{Container, Error, Kind, Notice, Result, Status};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "events",
    about: "Print a container's statistics and out-of-memory events, or what happens to machines",
    usage: "[options] [<container-id>]",
    details: "With an id: prints one line of JSON with the container's statistics every interval, and one for each time \
the kernel killed a process for lack of memory, until the container ends. With --stats, the statistics once. Those \
of a virtual machine are what it costs the host; the member inside has what its own kernel counts, and what that kills is told \
as well.\n\n\
Without an id: prints what happens to machines (create, start, die, oom, restart, stop, set, rename, remove and so on), a \
line each, until interrupted. With --since also what happened before, as far as it is kept: the last 4 to 8 MiB since the \
host's boot.",
    examples: &[
        ("Memory in use", "locule events --stats web1 | jq .data.memory.usage.usage"),
        ("Twice a second", "locule events --interval 500ms web1"),
        ("Machines that ended in the last hour", "locule events --since 1h --no-stream --filter event=die"),
    ],
    arguments: |command| {
        command
            .args([
                option("interval", "DURATION", "Time between statistics, as 500ms, 5s or 1m30s")
                    .default_value("5s")
                    .value_parser(duration),
                switch("stats", "Print the statistics once"),
                option(
                    "since",
                    "TIME",
                    "Machines: begin there; a time (RFC 3339 or Unix) or how long ago (10m)",
                )
                .value_parser(since)
                .conflicts_with("id"),
                option(
                    "filter",
                    "KEY=VALUE",
                    "Machines: only those with machine=NAME or event=WORD; may be repeated",
                )
                .action(ArgAction::Append)
                .conflicts_with("id"),
                option("format", "FORMAT", "Machines: form of the lines")
                    .value_parser(["text", "json"])
                    .default_value("text"),
                switch("no-stream", "Machines: print what is kept and end").conflicts_with("id"),
            ])
            .arg(id().required(false))
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
    /// What a virtual machine's own kernel counts, beside what it costs the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    inside: Option<serde_json::Value>,
}

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    if text(matches, "id").is_none() {
        return of_machines(globals, matches, out);
    }
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
                out.json(&Event::<()> { kind: "oom", id: container.id(), data: None, inside: None })?;
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
    // A machine that is paused or about to end still costs what it costs.
    let inside = if container.is_vm() { container.inner_stats().ok() } else { None };
    out.json(&Event { kind: "stats", id: container.id(), data: Some(container.stats()?), inside })
}

fn of_machines(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    if matches.get_flag("stats") {
        return Err(Error::invalid("--stats needs a container's id: locule stats shows all that run"));
    }
    let since = matches.get_one::<String>("since");
    let once = matches.get_flag("no-stream");
    let json = text(matches, "format") == Some("json");
    let filter = Filter::read(matches.get_many::<String>("filter").into_iter().flatten())?;
    let mut reader = Reader::new(globals.home()?.run(), since.is_some() || once)?;
    loop {
        while let Some(event) = reader.next_event()? {
            let wanted =
                since.is_none_or(|since| event.time.as_str() >= since.as_str()) && filter.fits(&event);
            match (wanted, json) {
                (true, true) => out.json(&event)?,
                (true, false) => out.write(&line(&event))?,
                (false, _) => {}
            }
        }
        if once {
            return Ok(0);
        }
        match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => drop(other.doing(|| "waiting for events")?),
        }
    }
}

fn line(event: &machines::Event) -> String {
    let mut text = format!("{} {} {}", event.time, event.machine, event.event);
    for (key, value) in &event.attributes {
        // A value may hold anything; a line stays one.
        text.push_str(&format!(" {key}={}", value.escape_debug()));
    }
    text + "\n"
}

/// Which events are shown: one of the machines named, and one of the words.
#[derive(Debug, Default)]
struct Filter {
    machines: Vec<String>,
    events: Vec<String>,
}

impl Filter {
    fn read<'a>(words: impl Iterator<Item = &'a String>) -> Result<Filter> {
        let mut filter = Filter::default();
        for word in words {
            match word.split_once('=') {
                Some(("machine", name)) => filter.machines.push(name.to_owned()),
                Some(("event", name)) => filter.events.push(name.to_owned()),
                _ => {
                    return Err(Error::invalid(format!(
                        "--filter {word:?}: give machine=NAME or event=WORD"
                    )));
                }
            }
        }
        Ok(filter)
    }

    fn fits(&self, event: &machines::Event) -> bool {
        let among = |list: &[String], word: &String| list.is_empty() || list.contains(word);
        among(&self.machines, &event.machine) && among(&self.events, &event.event)
    }
}

/// A time to begin at, in the form of the events' own, of which it may be a beginning.
fn since(word: &str) -> std::result::Result<String, String> {
    if let Ok(ago) = duration(word) {
        return Ok(rfc3339(SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH)));
    }
    let unix = word.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if let Some(time) = unix.and_then(|since| UNIX_EPOCH.checked_add(since)) {
        return Ok(rfc3339(time));
    }
    let bare = word.strip_suffix('Z').unwrap_or(word);
    let shape = "dddd-dd-ddTdd:dd:dd.ddddddddd";
    let fits = bare.len() >= "dddd-dd-dd".len()
        && bare.len() <= shape.len()
        && bare
            .chars()
            .zip(shape.chars())
            .all(|(have, want)| if want == 'd' { have.is_ascii_digit() } else { have == want });
    match fits {
        true => Ok(bare.to_owned()),
        false => Err(format!(
            "{word:?} is no time: give one as 10m, 2026-01-31T12:00:00Z (in UTC) or Unix seconds"
        )),
    }
}

/// A duration as Go writes it: numbers with units, as `1h15m30.5s`; more than zero.
pub fn duration(word: &str) -> std::result::Result<Duration, String> {
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
    fn times_to_begin_at() {
        assert_eq!(since("2026-01-31T12:00:00Z"), Ok("2026-01-31T12:00:00".into()));
        assert_eq!(since("2026-01-31"), Ok("2026-01-31".into()));
        assert_eq!(since("0"), Ok("1970-01-01T00:00:00.000000000Z".into()));
        assert!(since("10m").unwrap() < rfc3339(SystemTime::now()));
        for word in ["", "yesterday", "2026", "2026-01", "2026-01-31T12:00:00+01:00", "-5"] {
            assert!(since(word).is_err() || word == "2026", "{word}");
        }
    }

    #[test]
    fn filters_of_one_kind_are_alternatives() {
        let words = ["machine=a", "machine=b", "event=die"].map(String::from);
        let filter = Filter::read(words.iter()).unwrap();
        let event = |machine: &str, event: &str| machines::Event {
            machine: machine.into(),
            event: event.into(),
            ..machines::Event::default()
        };
        assert!(filter.fits(&event("b", "die")));
        assert!(!filter.fits(&event("b", "start")) && !filter.fits(&event("c", "die")));
        assert!(Filter::read(["image=x".to_owned()].iter()).is_err());
        let mut told = event("a", "die");
        told.attributes.insert("exit".into(), "1\n2".into());
        assert_eq!(line(&told), " a die exit=1\\n2\n");
    }

    #[test]
    fn an_event_has_runcs_envelope() {
        let oom = Event::<()> { kind: "oom", id: "a", data: None, inside: None };
        assert_eq!(serde_json::to_string(&oom).unwrap(), r#"{"type":"oom","id":"a"}"#);
        let stats = Event {
            kind: "stats",
            id: "a",
            data: Some(serde_json::json!({"pids": {"current": 1}})),
            inside: None,
        };
        assert_eq!(
            serde_json::to_string(&stats).unwrap(),
            r#"{"type":"stats","id":"a","data":{"pids":{"current":1}}}"#
        );
    }
}
