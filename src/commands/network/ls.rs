//! `network ls`: all networks of the host.
//!
//! Owns the table.

use clap::ArgMatches;
use locule_runtime::Result;
use serde_json::json;

use super::{format, lift, open, places, table};
use crate::args::Globals;
use crate::cli::{Verb, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network ls",
    about: "List networks",
    usage: "[options]",
    details: "Lists the networks of the host with how many containers are on each.",
    examples: &[("For a program", "locule network ls --format json")],
    arguments: |command| {
        command.args(places()).args([format(), switch("quiet", "Print names only").short('q')])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let networks = open(matches)?;
    let names = networks.definitions().names().map_err(lift)?;
    if matches.get_flag("quiet") {
        out.write(&names.iter().flat_map(|name| [name, "\n"]).collect::<String>())?;
        return Ok(0);
    }
    let records = networks.records().all().map_err(lift)?;
    let mut rows = Vec::new();
    let mut list = Vec::new();
    for name in names {
        let network = match networks.definitions().load(&name) {
            Ok(network) => network,
            Err(err) => {
                locule_runtime::warn::warn(format!("listing {name}: {err}"));
                continue;
            }
        };
        let containers: Vec<_> = records
            .iter()
            .filter(|record| record.interfaces.iter().any(|wired| wired.network == name))
            .map(|record| record.container.as_str())
            .collect();
        let subnets: Vec<_> = network.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
        rows.push([
            name.clone(),
            network.kind.word().to_owned(),
            network.bridge.clone().or(network.parent.clone()).unwrap_or_else(|| "-".into()),
            subnets.join(","),
            containers.len().to_string(),
        ]);
        list.push(json!({
            "name": name,
            "kind": network.kind,
            "interface": network.bridge.as_ref().or(network.parent.as_ref()),
            "subnets": subnets,
            "containers": containers,
        }));
    }
    match text(matches, "format") {
        Some("json") => out.json(&list)?,
        _ => out.write(&table(["NAME", "KIND", "INTERFACE", "SUBNETS", "CONTAINERS"], &rows))?,
    }
    Ok(0)
}
