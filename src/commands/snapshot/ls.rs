//! `snapshot ls`: the snapshots of a machine.

use clap::ArgMatches;
use locule_machines::copies;
use locule_machines::definition::DiskKind;
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::commands::image::{format, size, table};
use crate::commands::machine;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "snapshot ls",
    about: "List the snapshots of a machine",
    usage: "[options] <machine>",
    details: "The oldest first. DATA is what is in a snapshot; where it is shared, that takes room of its own only as \
the machine changes.",
    arguments: |command| command.args([format().short('f'), machine::machine()]),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let found = copies::snapshots(&machine::home(globals)?, machine::given(matches))?;
    if text(matches, "format") == Some("json") {
        out.json(&found)?;
        return Ok(0);
    }
    let mut rows =
        vec![["NAME", "CREATED", "KIND", "DATA", "SHARED", "RUNNING", "DESCRIPTION"].map(str::to_owned)];
    let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    rows.extend(found.into_iter().map(|saved| {
        let kind = match saved.kind {
            DiskKind::Overlay => "overlay",
            DiskKind::Disk => "disk",
        };
        [
            saved.name,
            saved.created,
            kind.into(),
            size(saved.bytes),
            word(saved.shared),
            word(saved.running),
            saved.description,
        ]
    }));
    out.write(&table(&rows))?;
    Ok(0)
}
