//! `network check`: whether a container has what it was given.
//!
//! Owns nothing.

use clap::ArgMatches;
use locule_runtime::Result;

use super::{lift, open, places};
use crate::args::Globals;
use crate::cli::{Verb, given_id, id};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network check",
    about: "Check the networks of a container",
    usage: "<container-id>",
    details: "Looks whether a container's interfaces, addresses and places in locule's tables are there, and runs CHECK of \
its CNI plugins. Succeeds silently, or tells the first thing that is missing and what to do.",
    examples: &[("In a script", "locule network check web1 || locule network gc")],
    arguments: |command| command.args(places()).arg(id()),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    open(matches)?.check(given_id(matches)).map_err(lift)?;
    Ok(0)
}
