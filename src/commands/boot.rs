//! `boot` and `shutdown`: the machines of a host, started and stopped with it.
//!
//! Owns the words; the order is the library's.

use clap::{ArgMatches, Command};
use locule_machines::boot::{self, Choices, Outcome};
use locule_machines::definition::Span;
use locule_runtime::{Error, Kind, Result};

use crate::cli::{Verb, option, text};
use crate::commands::machine::home;
use crate::out::Out;

/// The declaration of `boot`.
pub const BOOT: Verb = Verb {
    name: "boot",
    about: "Start the machines that start with the host",
    usage: "[options]",
    details: "Starts every machine with boot.start = \"on\", and those with \"last\" that ran when the host went down. \
Machines that others come after (boot.after, boot.requires) are started first and waited for until they are ready, as \
boot.ready says; of the others those with a higher boot.order come first. What requires a machine that failed is not \
started.\n\nUnder systemd the units do this at boot; call it from the boot scripts of other systems. It may be called \
again: machines that run are left alone.",
    examples: &[("Four at once, two minutes each", "locule boot --parallel 4 --timeout 2m")],
    arguments,
    run: |globals, matches, out| {
        let home = home(globals)?;
        let outcome = boot::boot(&home, choices(matches)?, &|name, result| tell(name, "ready", result))?;
        end(outcome, out)
    },
    ..Verb::BASE
};

/// The declaration of `shutdown`.
pub const SHUTDOWN: Verb = Verb {
    name: "shutdown",
    about: "Stop all machines, as the host goes down",
    usage: "[options]",
    details: "Stops every machine that runs: those that come after others first, several at once. A machine with \
boot.start = \"last\" is started again by the next locule boot.\n\nUnder systemd the units do this; call it from the \
scripts of other systems.",
    examples: &[("Thirty seconds each, then kill", "locule shutdown --timeout 30s")],
    arguments,
    run: |globals, matches, out| {
        let home = home(globals)?;
        let outcome =
            boot::shutdown(&home, choices(matches)?, &|name, result| tell(name, "stopped", result))?;
        end(outcome, out)
    },
    ..Verb::BASE
};

fn arguments(command: Command) -> Command {
    command.args([
        option("parallel", "N", "Most machines at once (default: 4)").short('j'),
        option("timeout", "TIME", "How long one may take (30s, 2m)").short('t'),
    ])
}

fn choices(matches: &ArgMatches) -> Result<Choices> {
    let parallel = match text(matches, "parallel") {
        None => 4,
        Some(word) => word
            .parse()
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| Error::invalid(format!("--parallel {word:?} is not a number above 0")))?,
    };
    let limit = text(matches, "timeout")
        .map(|word| word.parse::<Span>().map_err(|err| Error::invalid(format!("--timeout: {err}"))))
        .transpose()?;
    Ok(Choices { parallel, limit: limit.map(|span| span.0) })
}

/// Tells of one while others still wait; failures are told at the end.
fn tell(name: &str, word: &str, result: &Result<()>) {
    use std::io::Write;
    if result.is_ok() {
        let _ = writeln!(std::io::stdout(), "{name} {word}");
    }
}

fn end(outcome: Outcome, _out: &mut Out) -> Result<i32> {
    let mut failures = outcome.into_iter().filter_map(|(_, result)| result.err());
    let Some(first) = failures.next() else { return Ok(0) };
    let rest: Vec<Error> = failures.collect();
    for err in &rest {
        locule_runtime::warn::warn(err.to_string());
    }
    match rest.len() {
        0 => Err(first),
        more => Err(Error::new(Kind::State, format!("{first} (and {more} more, named before)"))),
    }
}
