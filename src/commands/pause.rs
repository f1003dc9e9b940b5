//! `pause`: suspends a container by freezing its cgroup.
//!
//! Owns nothing but the call.

use clap::ArgMatches;
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, given_id, id};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "pause",
    about: "Suspend all processes of a container",
    usage: "<container-id>",
    details: "The container's cgroup is frozen; the call returns when every process has stopped.",
    examples: &[("Pause web1", "locule pause web1")],
    arguments: |command| command.arg(id()),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    globals.container(given_id(matches))?.pause()?;
    Ok(0)
}
