//! `image history`: how an image came to be.

use clap::ArgMatches;
use locule_runtime::Result;
use serde_json::json;

use super::{format, image, images, size, store, table, told};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image history",
    about: "Print how an image's layers came to be, the topmost first",
    usage: "[options] <image>",
    arguments: |command| command.args([images(), format().short('f'), image()]),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let image = store(matches)?.find(text(matches, "image").unwrap_or_default()).map_err(told)?;
    let mut layers = image.manifest.layers.iter();
    let history = image.config.history.clone().unwrap_or_default();
    let mut steps: Vec<_> = history
        .into_iter()
        .map(|step| {
            let layer = if step.empty_layer { None } else { layers.next() };
            (step, layer)
        })
        .collect();
    steps.reverse();
    if text(matches, "format") == Some("json") {
        let all: Vec<_> = steps
            .iter()
            .map(|(step, layer)| json!({"step": step, "layer": layer.map(|layer| &layer.digest), "size": layer.map(|layer| layer.size)}))
            .collect();
        out.json(&all)?;
        return Ok(0);
    }
    let mut rows = vec![["LAYER", "SIZE", "CREATED", "BY"].map(String::from)];
    for (step, layer) in steps {
        // An image's own words may hold anything: nothing of them may reach a terminal as a command.
        let by: String = step
            .created_by
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(80)
            .collect();
        rows.push([
            layer.map_or("-".into(), |layer| layer.digest.short().to_owned()),
            layer.map_or("-".into(), |layer| size(layer.size)),
            step.created.unwrap_or_default().chars().filter(|c| !c.is_control()).take(30).collect(),
            by,
        ]);
    }
    out.write(&table(&rows))?;
    Ok(0)
}
