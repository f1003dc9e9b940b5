//! `snapshot restore`: the disk of a machine as it was.

use clap::ArgMatches;
use locule_machines::copies;
use locule_runtime::Result;

use super::{given, snapshot};
use crate::args::Globals;
use crate::cli::{Verb, switch};
use crate::commands::machine;
use crate::commands::machine::progress::Line;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "snapshot restore",
    about: "Put the disk of a machine back to a snapshot",
    usage: "[options] <machine> <snapshot>",
    details: "The machine must not run. What it has on its disk now is lost, unless a snapshot has it; it is removed \
only when the other is whole, so that an interrupted call changes nothing. The snapshot stays. The definition stays as \
it is now, unless --definition is given.",
    examples: &[(
        "After a failed upgrade",
        "locule stop web1\nlocule snapshot restore web1 before-upgrade\nlocule start web1",
    )],
    arguments: |command| {
        command.args([
            switch("definition", "Put machine.toml back as well"),
            machine::machine(),
            snapshot().required(true),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = machine::home(globals)?;
    let name = machine::given(matches);
    let mut line = Line::new(format!("restoring {name}"));
    copies::restore(&home, name, given(matches), matches.get_flag("definition"), &mut line)?;
    Ok(0)
}
