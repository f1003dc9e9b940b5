//! `rename`: another name for a machine.
//!
//! Owns nothing but the call.

use clap::{Arg, ArgMatches};
use locule_machines::life;
use locule_runtime::Result;

use super::{given, home, machine};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "rename",
    about: "Give a machine another name",
    usage: "<machine> <name>",
    details: "The machine must not run. Its data, ids and addresses stay; its host name follows unless the definition \
names one.",
    examples: &[("Call web1 www", "locule rename web1 www")],
    arguments: |command| {
        command.args([machine(), Arg::new("name").value_name("name").required(true).help("The new name")])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    life::rename(&home(globals)?, given(matches), text(matches, "name").unwrap_or_default())?;
    Ok(0)
}
