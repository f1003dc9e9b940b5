//! `repair`: what a crash left of machines, put right.
//!
//! Owns how it is told.

use clap::ArgMatches;
use locule_machines::repair;
use locule_runtime::Result;

use super::home;
use crate::args::Globals;
use crate::cli::Verb;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "repair",
    about: "Put right what a crash left of machines",
    usage: "",
    details: "Looks at every machine and everything that machines claim. Removes what an interrupted launch or rm left, \
frees user ids, addresses and ports that nobody has, takes away the mounts of machines that do not run, and gives a \
keeper to a machine that runs without one. Does nothing to what is in order, and can be run at any time. Prints a line \
for each thing that it did.",
    examples: &[("After a crash", "locule repair")],
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, _matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let done = repair::all(&home)?;
    for line in &done.lines {
        out.write(&format!("{line}\n"))?;
    }
    done.failure.map_or(Ok(0), Err)
}
