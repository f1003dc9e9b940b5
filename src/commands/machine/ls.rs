//! `ls`: the machines of this host.
//!
//! Owns the table.

use clap::ArgMatches;
use locule_machines::life;
use locule_runtime::Result;
use serde_json::json;

use super::home;
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::commands::image::{format, table};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "ls",
    about: "List machines",
    usage: "[options]",
    details: "Lists all machines, running or not.",
    examples: &[("For programs", "locule ls --format json")],
    arguments: |command| command.arg(format()),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let mut rows = vec![["NAME", "STATUS", "IMAGE"].map(String::from)];
    let mut values = Vec::new();
    for name in home.list()? {
        let machine = home.machine(&name)?;
        let image = match machine.definition() {
            Ok(definition) => definition.image,
            Err(err) => {
                locule_runtime::warn::warn(err.to_string());
                String::new()
            }
        };
        let status = life::status(&home, &machine)?.word().to_owned();
        values.push(json!({ "name": name, "status": status, "image": image }));
        rows.push([name, status, image]);
    }
    match text(matches, "format") {
        Some("json") => out.json(&values)?,
        _ => out.write(&table(&rows))?,
    }
    Ok(0)
}
