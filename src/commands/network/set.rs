//! `network set`: limits and the firewall of a connected container, changed while it runs.
//!
//! Owns the options.

use clap::ArgMatches;
use locule_netns::rate::Rates;
use locule_runtime::{Error, Result};

use super::{lift, network, open, places, read};
use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network set",
    about: "Change limits and firewall of a connected container",
    usage: "[options] <network> <container-id>",
    details: "Changes how fast a container may receive and send on a network, and whether its neighbours reach it, while \
it runs. What is not given stays.",
    examples: &[
        ("Slower, now", "locule network set --up 5mbit web web1"),
        ("No limit any more", "locule network set --up none --down none web web1"),
    ],
    arguments: |command| {
        command.args(places()).args([
            network(),
            id(),
            option("down", "RATE", "How fast it may receive, as 100mbit, or none"),
            option("up", "RATE", "How fast it may send, or none"),
            option(
                "firewall",
                "SWITCH",
                "Whether nobody but the host reaches it, except through published ports",
            )
            .value_parser(["on", "off"]),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let networks = open(matches)?;
    let (network, container) = (text(matches, "network").unwrap_or_default(), given_id(matches));
    let (down, up) = (read(matches, "down")?, read(matches, "up")?);
    let firewall = text(matches, "firewall").map(|word| word == "on");
    if down.is_none() && up.is_none() && firewall.is_none() {
        return Err(Error::invalid("network set: nothing to change was given"));
    }
    let now = networks
        .records()
        .load(container)
        .map_err(lift)?
        .and_then(|record| record.interfaces.into_iter().find(|wired| wired.network == network))
        .map_or_else(Rates::default, |wired| wired.rates);
    let rates = Rates { down: down.unwrap_or(now.down), up: up.unwrap_or(now.up) };
    networks.change(container, network, Some(rates), firewall).map_err(lift)?;
    Ok(0)
}
