//! `network show`: one network, who is on it, and what went through.
//!
//! Owns the form of the answer.

use clap::ArgMatches;
use locule_netns::rate::Rate;
use locule_runtime::Result;
use serde_json::json;

use super::{format, lift, open, places, table};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network show",
    about: "Show a network and its containers",
    usage: "[options] <network>",
    details: "Shows a network's definition, the containers on it with addresses, published ports and limits, and how \
many bytes each received and sent, by class. The file hosts is the one to bind to /etc/hosts of containers that look \
each other up by name.\n\nClasses tell traffic apart by the other side's address. They are defined by .classes.json in \
the directory of definitions, a JSON object of subnets and numbers from 0 to 7; whatever is in no subnet is of class 0. \
`locule network gc` puts a changed file into force.",
    examples: &[("Who has which address", "locule network show web")],
    arguments: |command| command.args(places()).args([super::network(), format()]),
    run,
    ..Verb::BASE
};

/// A guarantee and a ceiling.
fn span(least: Rate, most: Rate) -> String {
    if least.is_none() { most.to_string() } else { format!("{least}-{most}") }
}

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let networks = open(matches)?;
    let name = text(matches, "network").unwrap_or_default();
    let network = networks.definitions().load(name).map_err(lift)?;
    let hosts = networks.names().prepare(name).map_err(lift)?;
    let traffic = networks.traffic().map_err(lift)?;
    let mut rows = Vec::new();
    let mut list = Vec::new();
    for record in networks.records().all().map_err(lift)? {
        for wired in record.interfaces.iter().filter(|wired| wired.network == name) {
            let addresses: Vec<_> =
                wired.addresses.iter().map(|address| address.address.to_string()).collect();
            let ports: Vec<_> = wired.ports.iter().map(ToString::to_string).collect();
            let counted: Vec<_> = traffic.iter().filter(|traffic| traffic.host == wired.host).collect();
            let sum =
                |of: fn(&locule_netns::networks::Traffic) -> u64| counted.iter().map(|t| of(t)).sum::<u64>();
            let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            rows.push([
                record.container.clone(),
                wired.interface.clone(),
                dash(addresses.join(",")),
                dash(ports.join(",")),
                format!(
                    "{}/{}",
                    span(wired.rates.down_min, wired.rates.down),
                    span(wired.rates.up_min, wired.rates.up)
                ),
                sum(|traffic| traffic.received).to_string(),
                sum(|traffic| traffic.sent).to_string(),
            ]);
            list.push(json!({
                "container": record.container,
                "alive": record.owner.lives(),
                "interface": wired,
                "traffic": counted.iter().map(|t| json!({
                    "class": t.class, "received": t.received, "sent": t.sent,
                })).collect::<Vec<_>>(),
            }));
        }
    }
    if text(matches, "format") == Some("json") {
        let containers = list;
        out.json(&json!({"network": network, "hosts": hosts, "containers": containers}))?;
        return Ok(0);
    }
    let mut head = format!("{name}: {}", network.kind.word());
    for subnet in &network.subnets {
        head.push_str(&format!(", {}", subnet.subnet));
        head.push_str(&subnet.gateway.map(|gateway| format!(" by {gateway}")).unwrap_or_default());
    }
    if !network.total.is_none() {
        head.push_str(&format!(", {}/{} for all", network.total.down, network.total.up));
    }
    head.push_str(&format!("\nhosts: {}\n", hosts.display()));
    let columns = ["CONTAINER", "INTERFACE", "ADDRESSES", "PORTS", "DOWN/UP", "RECEIVED", "SENT"];
    out.write(&(head + &table(columns, &rows)))?;
    Ok(0)
}
