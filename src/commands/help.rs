//! `help`: what `--help` prints, asked for by a verb.
//!
//! Owns nothing but the call.

use clap::{Arg, ArgMatches};
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{self, Verb};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "help",
    about: "Print help on locule or on one of its commands",
    usage: "[command...]",
    arguments: |command| command.arg(Arg::new("command").num_args(0..).help("The command")),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let words: Vec<_> =
        matches.get_many::<String>("command").into_iter().flatten().map(String::as_str).collect();
    out.write(&match words.as_slice() {
        [] => cli::help(),
        words if cli::NOUNS.iter().any(|(name, _)| *name == words.join(" ")) => {
            cli::noun_help(&words.join(" "))
        }
        words => cli::find(&words.join(" "))?.help(),
    })?;
    Ok(0)
}
