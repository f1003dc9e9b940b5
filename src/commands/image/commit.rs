//! `image commit`: what was changed in a mounted image, as an image.

use std::path::PathBuf;

use clap::{Arg, ArgMatches};
use locule_images::compress::Compression;
use locule_images::export::commit;
use locule_images::rootfs::Rootfs;
use locule_images::unpack::Options;
use locule_runtime::Result;

use super::mount::{directory, state, target};
use super::{files, images, told};
use crate::args::{Globals, absolute};
use crate::cli::{Verb, option, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image commit",
    about: "Make an image of what was changed in a mounted one",
    usage: "[options] <directory> <name>",
    details: "Takes what was written below a directory that image mount mounted as one more layer of its image. \
Stop what writes there first. Owners are those of the image, also where it was mounted with --map.",
    arguments: |command| {
        command.args([
            images(),
            state(),
            option("compression", "KIND", "How the layer is compressed")
                .value_parser(["gzip", "zstd", "none"])
                .default_value("gzip"),
            option("message", "TEXT", "A remark for the history").short('m'),
            directory(),
            Arg::new("name").value_name("name").required(true).help("Name that the image gets"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let store = files(matches)?;
    let state = match matches.get_one::<PathBuf>("state") {
        Some(state) => absolute(state)?,
        None => Rootfs::default_state(&store, &target(matches)?),
    };
    let name = text(matches, "name").unwrap_or_default().parse().map_err(told)?;
    let compression = Compression::parse(text(matches, "compression").unwrap_or("gzip")).map_err(told)?;
    let record = commit(&store, &state, &name, compression, text(matches, "message"), &Options::here())
        .map_err(told)?;
    out.write(&format!("{}\n", record.reference))?;
    Ok(0)
}
