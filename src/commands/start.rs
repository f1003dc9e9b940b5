//! `start`: lets a created container execute its program.
//!
//! Owns nothing but the call.

use clap::ArgMatches;
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, given_id, id};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "start",
    about: "Start a created container",
    usage: "<container-id>",
    details: "The container's first process executes the program of config.json. Fails if the container \
is not in the state created.",
    examples: &[("Start web1", "locule start web1")],
    arguments: |command| command.arg(id()),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    globals.container(given_id(matches))?.start()?;
    Ok(0)
}
