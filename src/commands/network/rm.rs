//! `network rm`: networks that nobody uses, removed.
//!
//! Owns nothing.

use clap::{Arg, ArgAction, ArgMatches};
use locule_runtime::Result;

use super::{lift, open, places, texts};
use crate::args::Globals;
use crate::cli::Verb;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network rm",
    about: "Remove networks",
    usage: "<network>...",
    details: "Removes networks that no container is on: the definition, the bridge, and what it had in locule's tables.",
    examples: &[("Two at once", "locule network rm web office")],
    arguments: |command| {
        command.args(places()).arg(
            Arg::new("networks-to-remove")
                .value_name("network")
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .help("Names of networks"),
        )
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let networks = open(matches)?;
    for name in texts(matches, "networks-to-remove") {
        networks.remove(name).map_err(lift)?;
    }
    Ok(0)
}
