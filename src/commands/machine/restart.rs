//! `restart`: stop and start.
//!
//! Owns nothing but the two calls.

use clap::ArgMatches;
use locule_machines::life;
use locule_runtime::Result;

use super::{each, given_timeout, home, machines, timeout};
use crate::args::Globals;
use crate::cli::Verb;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "restart",
    about: "Stop machines and start them again",
    usage: "[options] <machine>...",
    details: "As locule stop, then locule start. A machine that does not run is started.",
    examples: &[("With what its definition says by now", "locule restart web1")],
    arguments: |command| command.args([timeout(), machines()]),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let timeout = given_timeout(matches)?;
    each(matches, |name| {
        let machine = home.find(name)?;
        // What could not start again is not stopped.
        machine.definition()?;
        life::stop(&home, &machine, timeout)?;
        life::start(&home, &machine).map(drop)
    })
}
