//! `stats`: what running machines and containers use, once or again and again.
//!
//! Owns the forms of the output. Never reads a file of the kernel itself.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches};
use locule_machines::stats::Reading;
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::openmetrics;
use crate::out::Out;
use crate::table::table;
use crate::usage::{COLUMNS, Looker, Row};

/// Time between the two looks that a single table needs for its rates.
const GLANCE: Duration = Duration::from_millis(500);

/// The declaration.
pub const VERB: Verb = Verb {
    name: "stats",
    about: "Show what running machines and containers use",
    usage: "[options] [NAME...]",
    details: "Shows processor time, memory, block devices, network, tasks and the pressure on each of all that run, or \
of those named, every interval until interrupted; with --no-stream once. WAIT is the share of the last ten seconds in \
which some task waited for the resource. As JSON, a line with an array each time: counters since the start, bytes and \
microseconds, and no number where the kernel or the machine has none. As OpenMetrics, for a scraper, once.",
    examples: &[
        ("Once, for a program", "locule stats --no-stream --format json"),
        ("For the textfile collector of Prometheus", "locule stats --format openmetrics > locule.prom"),
    ],
    arguments: |command| {
        command
            .args([
                option("format", "FORMAT", "Form of the output")
                    .value_parser(["table", "json", "openmetrics"])
                    .default_value("table"),
                option("interval", "DURATION", "Time between two looks, as 500ms, 5s or 1m30s")
                    .default_value("1s")
                    .value_parser(super::events::duration),
                switch("no-stream", "Look once"),
            ])
            .arg(names())
    },
    run,
    ..Verb::BASE
};

/// The machines and containers meant.
pub fn names() -> Arg {
    Arg::new("names")
        .value_name("NAME")
        .action(ArgAction::Append)
        .num_args(0..)
        .help("All that run, without any")
}

/// The names given.
pub fn given(matches: &ArgMatches) -> Vec<String> {
    matches.get_many::<String>("names").into_iter().flatten().cloned().collect()
}

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let interval: Duration = matches.get_one("interval").copied().unwrap_or(Duration::from_secs(1));
    let once = matches.get_flag("no-stream");
    let mut looker = Looker::new(given(matches));
    let mut rows = looker.look(globals)?;
    match text(matches, "format") {
        Some("openmetrics") => {
            out.write(&openmetrics::text(&readings(rows)))?;
            return Ok(0);
        }
        Some("json") => loop {
            out.json(&readings(rows))?;
            if once {
                return Ok(0);
            }
            std::thread::sleep(interval);
            rows = looker.look(globals)?;
            if rows.is_empty() && looker.is_named() {
                return Ok(0);
            }
        },
        _ => {}
    }
    let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    loop {
        std::thread::sleep(if once { GLANCE } else { interval });
        rows = looker.look(globals)?;
        let cells: Vec<_> = rows.iter().map(Row::cells).collect();
        let shown = table(&COLUMNS, &cells);
        match once {
            true => {
                out.write(&shown)?;
                return Ok(0);
            }
            false => out.write(&format!("{clear}{shown}"))?,
        }
        if rows.is_empty() && looker.is_named() {
            return Ok(0);
        }
    }
}

fn readings(rows: Vec<Row>) -> Vec<Reading> {
    rows.into_iter().map(|row| row.reading).collect()
}
