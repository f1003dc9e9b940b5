//! `clone`: a machine like another.

use clap::{Arg, ArgMatches};
use locule_machines::copies;
use locule_runtime::Result;

use super::progress::Line;
use super::{given, home, machine};
use crate::args::Globals;
use crate::cli::{Verb, option, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "clone",
    about: "Make a machine as a copy of another",
    usage: "[options] <machine> <name>",
    details: "Image layers are shared, the machine's own data is shared where the file system can (XFS, btrfs, \
bcachefs) and copied elsewhere. A machine that runs stands still meanwhile. The copy has user ids, a machine id \
(machine-id(5)) and addresses of its own; it is not given hostname, addresses, hardware addresses and published ports \
of the original, and what was left out is told. Keys that programs made inside, such as those of an ssh server, are \
copied: make them anew where that matters.",
    examples: &[
        ("A second one", "locule clone web1 web2 && locule start web2"),
        ("As it was", "locule clone --snapshot before-upgrade web1 web1-old"),
    ],
    arguments: |command| {
        command.args([
            option("snapshot", "NAME", "Copy this snapshot of it"),
            machine(),
            Arg::new("name").value_name("name").required(true).help("Name of the new machine"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let (name, new) = (given(matches), text(matches, "name").unwrap_or_default());
    let mut line = Line::new(format!("cloning {name}"));
    let left_out = copies::clone(&home, name, text(matches, "snapshot"), new, &mut line)?;
    drop(line);
    if !left_out.is_empty() {
        locule_runtime::warn::warn(format!("{new} was not given {}", left_out.join(", ")));
    }
    Ok(0)
}
