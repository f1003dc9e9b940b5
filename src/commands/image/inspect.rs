//! `image inspect`: all that is known of an image.

use clap::ArgMatches;
use locule_images::manifest::Platform;
use locule_runtime::Result;
use serde_json::json;

use super::{image, images, store, told};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image inspect",
    about: "Print what is known of an image, as JSON",
    usage: "[options] <image>",
    arguments: |command| command.args([images(), image()]),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let name = text(matches, "image").unwrap_or_default();
    if name == locule_images::host::NAME {
        let system = locule_images::host::System::of(std::path::Path::new("/"));
        out.json_pretty(&json!({
            "reference": name,
            "builtIn": true,
            "platform": Platform::here(),
            "shared": system.trees,
        }))?;
        return Ok(0);
    }
    let image = store(matches)?.find(name).map_err(told)?;
    out.json_pretty(&json!({
        "reference": image.record.reference,
        "id": image.manifest.config.digest,
        "digest": image.record.manifest.digest,
        "index": image.record.index,
        "added": image.record.added,
        "size": image.manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "manifest": image.manifest,
        "config": image.config,
    }))?;
    Ok(0)
}
