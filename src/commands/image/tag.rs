//! `image tag`: another name for an image.

use clap::{Arg, ArgMatches};
use locule_runtime::{Error, Result};

use super::{image, images, store, told};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image tag",
    about: "Give an image another name",
    usage: "[options] <image> <name>",
    examples: &[("Before a push", "locule image tag debian:13 registry.example/base:13")],
    arguments: |command| {
        command.args([
            images(),
            image(),
            Arg::new("name").value_name("name").required(true).help("The new name"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let store = store(matches)?;
    let name = text(matches, "name").unwrap_or_default();
    if name == locule_images::host::NAME {
        return Err(Error::invalid("host is the name of the built-in image: choose another"));
    }
    let name = name.parse().map_err(told)?;
    let share = store.share().map_err(told)?;
    let record = store.find_record(text(matches, "image").unwrap_or_default()).map_err(told)?;
    store.tag(&name, &record.manifest, record.index.as_ref()).map_err(told)?;
    drop(share);
    Ok(0)
}
