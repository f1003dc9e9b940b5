//! `help`: what `--help` prints, asked for by a verb.
//!
//! Owns nothing but the call.

use clap::{Arg, ArgMatches};
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{self, Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "help",
    about: "Print help on locule or on one of its commands",
    usage: "[command]",
    arguments: |command| command.arg(Arg::new("command").help("The command")),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    out.write(&match text(matches, "command") {
        Some(name) => cli::find(name)?.help(),
        None => cli::help(),
    })?;
    Ok(0)
}
