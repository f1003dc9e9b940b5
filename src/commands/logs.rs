//! `logs`: what a machine wrote.
//!
//! Owns the reading of times and the form of what is shown. Never reads a log itself.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgMatches, value_parser};
use locule_machines::Machine;
use locule_machines::definition::{LogDriver, Span};
use locule_machines::keeper::log::Stream;
use locule_machines::keeper::log::read::{Record, Wanted, read};
use locule_runtime::error::Context;
use locule_runtime::{Error, Result, time};

use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "logs",
    about: "Show what a machine wrote",
    usage: "[options] <machine>",
    details: "What the machine's first process wrote to its console or to standard output and error; the latter goes \
to standard error here, too. With --follow it lasts until the machine has ended.

The files are output.log and older ones (output.log.1) in the directory log of the machine; each line begins with its \
time, its stream and F, or P where the line goes on in the next record (the form of the Container Runtime Interface). \
With log.driver = \"journald\" the lines are in the journal, with CONTAINER_NAME and CONTAINER_ID, and this runs \
journalctl.",
    examples: &[
        ("The last hundred lines of web1, and what comes", "locule logs --follow --tail 100 web1"),
        ("The last ten minutes, with times", "locule logs --timestamps --since 10m web1"),
    ],
    arguments: |command| {
        command.args([
            switch("follow", "Go on with what comes").short('f'),
            option("tail", "N", "The last N lines; all for every one").short('n'),
            option("since", "TIME", "From TIME on: a time as in the log, or how long ago (10m, 2h)"),
            option("until", "TIME", "Before TIME, in the same forms"),
            switch("timestamps", "Begin each line with its time").short('t'),
            Arg::new("machine")
                .value_name("machine")
                .required(true)
                .value_parser(value_parser!(String))
                .help("Name of the machine"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let machine = globals.home()?.find(text(matches, "machine").unwrap_or_default())?;
    match machine.definition()?.log.driver {
        LogDriver::File => {}
        LogDriver::Journald => return Err(journalctl(&machine, matches)),
        LogDriver::None => {
            return Err(Error::invalid(format!("{} keeps no log: log.driver is \"none\"", machine.name()))
                .hint("locule console shows its last output"));
        }
    }
    let wanted =
        Wanted {
            tail: match text(matches, "tail") {
                None | Some("all") => None,
                Some(word) => Some(word.parse().map_err(|_| {
                    Error::invalid(format!("--tail {word:?} is neither a number nor \"all\""))
                })?),
            },
            since: moment(matches, "since")?,
            until: moment(matches, "until")?,
            follow: matches.get_flag("follow"),
        };
    let times = matches.get_flag("timestamps");
    let (mut stdout, mut stderr) = (std::io::stdout().lock(), std::io::stderr().lock());
    let mut begun = [false; 2];
    let shown = read(&machine, &wanted, &mut |record| {
        let to_err = record.stream == Stream::Stderr;
        let line = line(record, times && !begun[usize::from(to_err)]);
        begun[usize::from(to_err)] = !record.whole;
        match to_err {
            true => stderr.write_all(&line),
            false => stdout.write_all(&line).and_then(|()| stdout.flush()),
        }
        .doing(|| "showing the log")
    });
    match shown {
        // As with any reader that has seen enough.
        Err(err) if err.errno() == Some(nix::errno::Errno::EPIPE) => Ok(0),
        other => other.map(|()| 0),
    }
}

fn line(record: &Record<'_>, time: bool) -> Vec<u8> {
    let mut line = Vec::new();
    if time {
        line.extend_from_slice(record.time.as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(record.text);
    if record.whole {
        line.push(b'\n');
    }
    line
}

/// A time as in the log, or how long ago it was.
fn moment(matches: &ArgMatches, name: &str) -> Result<Option<String>> {
    let Some(word) = text(matches, name) else { return Ok(None) };
    if let Ok(Span(ago)) = word.parse() {
        let then = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH + Duration::ZERO);
        return Ok(Some(time::rfc3339(then)));
    }
    // Times of the log compare as text, so a part of one (`2026-11-26`) is a time as well.
    let form = b"dddd-dd-ddTdd:dd:dd.ddddddddd";
    let known = word.len() >= 10
        && word.trim_end_matches('Z').bytes().enumerate().all(|(at, byte)| match form.get(at) {
            Some(b'd') => byte.is_ascii_digit(),
            Some(other) => byte == *other,
            None => false,
        });
    match known {
        true => Ok(Some(word.trim_end_matches('Z').to_owned())),
        false => Err(Error::invalid(format!("--{name} {word:?} is no time"))
            .hint("write 2026-01-31T10:00:00Z (in UTC), or how long ago: 10m, 2h")),
    }
}

/// Becomes journalctl; returns only on failure.
fn journalctl(machine: &Machine, matches: &ArgMatches) -> Error {
    let mut command = Command::new("journalctl");
    let form = if matches.get_flag("timestamps") { "short-iso-precise" } else { "cat" };
    command.arg(format!("CONTAINER_NAME={}", machine.name())).args(["--no-pager", "--output", form]);
    if matches.get_flag("follow") {
        command.arg("--follow");
    }
    for (name, to) in [("tail", "--lines"), ("since", "--since"), ("until", "--until")] {
        if let Some(word) = text(matches, name) {
            // How long ago is a minus for journalctl.
            let ago = word.parse::<Span>().is_ok() && name != "tail";
            command.arg(format!("{to}={}{word}", if ago { "-" } else { "" }));
        }
    }
    let err = command.exec();
    Error::new(locule_runtime::Kind::System, format!("running journalctl: {err}"))
        .hint("log.driver is \"journald\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Option<String>> {
        let words = ["logs"].iter().chain(words).chain(&["m"]).copied();
        moment(&VERB.command().try_get_matches_from(words).unwrap(), "since")
    }

    #[test]
    fn times_are_those_of_the_log_or_spans() {
        assert_eq!(asked(&[]).unwrap(), None);
        for time in ["2026-01-31", "2026-01-31T10:00", "2026-01-31T10:00:00", "2026-01-31T10:00:00.5"] {
            assert_eq!(asked(&[&format!("--since={time}")]).unwrap().as_deref(), Some(time));
        }
        assert_eq!(asked(&["--since=2026-01-31T10:00:00Z"]).unwrap().unwrap(), "2026-01-31T10:00:00");
        assert!(asked(&["--since=10m"]).unwrap().unwrap() < time::rfc3339(SystemTime::now()));
        for word in
            ["yesterday", "2026-01", "31.1.2026", "2026-01-31 10:00", "2026-01-31T10:00:00.1234567890"]
        {
            assert!(asked(&[&format!("--since={word}")]).unwrap_err().to_string().contains(word), "{word}");
        }
    }
}
