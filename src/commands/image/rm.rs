//! `image rm`: names taken away, and with the last one what only they needed.

use clap::{Arg, ArgAction, ArgMatches};
use locule_runtime::{Error, Result};

use super::{files, images, told};
use crate::args::Globals;
use crate::cli::Verb;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image rm",
    about: "Remove images",
    usage: "[options] <image>...",
    details: "Takes the names away and removes what no other image and no mounted root file system needs. \
While something is being added to the store, the removal is left to the next image prune.",
    arguments: |command| {
        command.args([
            images(),
            Arg::new("image")
                .value_name("image")
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .help("Images to remove"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let store = files(matches)?;
    for name in matches.get_many::<String>("image").unwrap_or_default() {
        if name == locule_images::host::NAME {
            return Err(Error::invalid("host is built in and cannot be removed"));
        }
        let record = store.find_record(name).map_err(told)?;
        store.untag(&record).map_err(told)?;
    }
    match store.prune(false) {
        Err(err) if err.kind() == locule_images::Kind::Busy => {}
        other => drop(other.map_err(told)?),
    }
    Ok(0)
}
