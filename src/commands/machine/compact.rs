//! `compact`: disks give back what they do not use.

use clap::ArgMatches;
use locule_machines::copies;
use locule_runtime::Result;

use super::{each, home, machines};
use crate::args::Globals;
use crate::cli::Verb;
use crate::commands::image::size;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "compact",
    about: "Give room that machines do not use back to the host",
    usage: "<machine>...",
    details: "The disk of a machine of the storage kind disk is a file that takes room as it is written. What is \
removed inside stays in it until this is called, while the machine runs or not; a weekly timer is a good caller. With \
the kind overlay there is nothing to do. Prints for each machine how much came back.",
    arguments: |command| command.args([machines()]),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    each(matches, |name| {
        let bytes = copies::compact(&home, name)?;
        out.write(&format!("{name}: {}\n", size(bytes)))
    })
}
