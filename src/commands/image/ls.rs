//! `image ls`: the images in the store, and the one that is built in.

use clap::ArgMatches;
use locule_runtime::Result;
use serde::Serialize;

use super::{format, images, size, store, table, told};
use crate::args::Globals;
use crate::cli::{Verb, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image ls",
    about: "List images",
    usage: "[options]",
    details: "Lists the images of the store. The image \"host\" is always there: it is this machine's own system, \
read-only, without its identity and secrets, and needs no download.",
    examples: &[("The names alone", "locule image ls --quiet")],
    arguments: |command| {
        command.args([images(), format().short('f'), switch("quiet", "Print names only").short('q')])
    },
    run,
    ..Verb::BASE
};

/// One image of the list.
#[derive(Debug, Serialize)]
struct Row {
    reference: String,
    id: String,
    digest: String,
    size: u64,
    layers: usize,
    platform: String,
    added: String,
}

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let store = store(matches)?;
    let platform = locule_images::manifest::Platform::here();
    let mut rows = vec![Row {
        reference: locule_images::host::NAME.into(),
        id: String::new(),
        digest: String::new(),
        size: 0,
        layers: 0,
        platform: format!("{}/{}", platform.os, platform.architecture),
        added: String::new(),
    }];
    for record in store.records().map_err(told)? {
        match store.read_image(&record) {
            Ok(image) => rows.push(Row {
                reference: record.reference.clone(),
                id: image.manifest.config.digest.to_string(),
                digest: record.manifest.digest.to_string(),
                size: image.manifest.layers.iter().map(|layer| layer.size).sum(),
                layers: image.manifest.layers.len(),
                platform: format!("{}/{}", image.config.platform.os, image.config.platform.architecture),
                added: record.added.clone(),
            }),
            Err(err) => locule_runtime::warn::warn(format!("listing {}: {err}", record.reference)),
        }
    }
    if matches.get_flag("quiet") {
        out.write(&rows.iter().map(|row| format!("{}\n", row.reference)).collect::<String>())?;
        return Ok(0);
    }
    if text(matches, "format") == Some("json") {
        out.json(&rows)?;
        return Ok(0);
    }
    let mut lines = vec![["REFERENCE", "ID", "SIZE", "LAYERS", "ADDED"].map(String::from)];
    for row in rows {
        let built_in = row.id.is_empty();
        let id = row.id.split(':').nth(1).and_then(|hex| hex.get(..12)).unwrap_or("built in").to_owned();
        let or_dash = |text: String| if built_in { "-".to_owned() } else { text };
        lines.push([
            row.reference,
            id,
            or_dash(size(row.size)),
            or_dash(row.layers.to_string()),
            or_dash(row.added),
        ]);
    }
    out.write(&table(&lines))?;
    Ok(0)
}
