//! `snapshot rm`: snapshots that are not needed any more.

use clap::{ArgAction, ArgMatches};
use locule_machines::copies;
use locule_runtime::Result;

use super::snapshot;
use crate::args::Globals;
use crate::cli::Verb;
use crate::commands::machine;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "snapshot rm",
    about: "Remove snapshots of a machine",
    usage: "<machine> <snapshot>...",
    details: "The machine may run.",
    arguments: |command| {
        let several = snapshot().required(true).action(ArgAction::Append).num_args(1..);
        command.args([machine::machine(), several.help("Names of the snapshots")])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = machine::home(globals)?;
    for name in matches.get_many::<String>("snapshot").into_iter().flatten() {
        copies::remove_snapshot(&home, machine::given(matches), name)?;
    }
    Ok(0)
}
