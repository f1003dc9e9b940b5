//! `kill`: a signal for a container.
//!
//! Owns the default signal. Never waits for the effect.

use clap::{Arg, ArgMatches};
use locule_runtime::{Result, signals};

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "kill",
    about: "Send a signal to a container",
    usage: "[options] <container-id> [signal]",
    details: "The signal is a number or a name, with or without SIG, SIGRTMIN+n included; the default is \
SIGTERM. It goes to the container's first process, with --all to every process of the container. \
Signalling a stopped container is an error, but for --all, which succeeds.",
    examples: &[
        ("Ask web1 to end", "locule kill web1"),
        ("Kill everything in it", "locule kill --all web1 KILL"),
    ],
    arguments: |command| {
        command
            .arg(switch("all", "Signal every process of the container").short('a'))
            .arg(id())
            .arg(Arg::new("signal").default_value("SIGTERM").help("Number or name of the signal"))
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let signal = signals::parse(text(matches, "signal").unwrap_or("SIGTERM"))?;
    globals.container(given_id(matches))?.kill(signal, matches.get_flag("all"))?;
    Ok(0)
}
