//! `rm`: the end of a machine and of everything that it has.
//!
//! Owns nothing but the call.

use clap::ArgMatches;
use locule_machines::life;
use locule_runtime::Result;

use super::{each, home, machines};
use crate::args::Globals;
use crate::cli::{Verb, switch};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "rm",
    about: "Remove machines with their data",
    usage: "[options] <machine>...",
    details: "Removes the root file system, snapshots, logs and the definition of machines that do not run, and frees \
what they had: user ids, addresses, ports. There is no way back. A protected machine is not removed: \
locule set NAME protected=off. What an interrupted launch left is removed as well.",
    examples: &[("Though it runs", "locule rm --force web1")],
    arguments: |command| command.args([switch("force", "Kill it first if it runs").short('f'), machines()]),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let force = matches.get_flag("force");
    each(matches, |name| life::remove(&home, name, force))
}
