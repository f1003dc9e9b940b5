//! `resume`: thaws a paused container.
//!
//! Owns nothing but the call.

use clap::ArgMatches;
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, given_id, id};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "resume",
    about: "Resume all processes of a paused container",
    usage: "<container-id>",
    details: "Thaws what locule pause froze.",
    examples: &[("Resume web1", "locule resume web1")],
    arguments: |command| command.arg(id()),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    globals.container(given_id(matches))?.resume()?;
    Ok(0)
}
