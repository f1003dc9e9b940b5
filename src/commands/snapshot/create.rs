//! `snapshot create`: the disk of a machine as it is now.

use clap::ArgMatches;
use locule_machines::copies;
use locule_runtime::Result;

use super::snapshot;
use crate::args::Globals;
use crate::cli::{Verb, option, text};
use crate::commands::machine;
use crate::commands::machine::progress::Line;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "snapshot create",
    about: "Save the disk and the definition of a machine",
    usage: "[options] <machine> [snapshot]",
    details: "A machine that runs stands still meanwhile: its processes are frozen, and with the storage kind disk its \
file system, too. On a file system that can share data between files (XFS, btrfs, bcachefs) this takes a moment and no \
room; elsewhere all data is copied, and a machine with much of it stands still for long: stop it, or choose a time.\n\n\
Memory is not saved: a machine that is put back starts as after a loss of power. Snapshots count neither against the \
machine's disk.size nor are they in its archive.\n\nPrints the snapshot's name.",
    examples: &[("Before an upgrade", "locule snapshot create web1 before-upgrade")],
    arguments: |command| {
        command.args([
            option("description", "TEXT", "What it is for"),
            machine::machine(),
            snapshot().help("Name of the snapshot (default: date and time)"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let home = machine::home(globals)?;
    let name = match text(matches, "snapshot") {
        Some(name) => name.to_owned(),
        None => locule_images::time::now(),
    };
    let description = text(matches, "description").unwrap_or_default();
    let mut line = Line::new(format!("saving {}", machine::given(matches)));
    let made = copies::snapshot(&home, machine::given(matches), &name, description, &mut line)?;
    drop(line);
    out.write(&format!("{}\n", made.name))?;
    Ok(0)
}
