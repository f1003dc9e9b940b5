//! `image prune`: what nothing uses goes.

use clap::ArgMatches;
use locule_runtime::Result;

use super::{files, format, images, size, told};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image prune",
    about: "Remove what no image and no mounted root file system needs",
    usage: "[options]",
    details: "Also removes downloads that were cut off and could be resumed, and what a crash left.",
    arguments: |command| command.args([images(), format().short('f')]),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let pruned = files(matches)?.prune(true).map_err(told)?;
    if text(matches, "format") == Some("json") {
        out.json(&pruned)?;
    } else {
        out.write(&format!(
            "removed {} blobs ({}), {} layers, {} rests\n",
            pruned.blobs,
            size(pruned.bytes),
            pruned.layers,
            pruned.rests
        ))?;
    }
    Ok(0)
}
