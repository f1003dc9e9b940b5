//! `network set`: limits of a network or of a container on it, and its firewall, changed while they run.
//!
//! Owns the options.

use clap::{Arg, ArgMatches};
use locule_netns::rate::{Rates, Total};
use locule_runtime::{Error, Result};

use super::{lift, network, open, places, read};
use crate::args::Globals;
use crate::cli::{Verb, option, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network set",
    about: "Change limits and firewall while containers run",
    usage: "[options] <network> [<container-id>]",
    details: "Changes how fast a container may receive and send on a network, what of the network's rate it gets in any \
case, and whether its neighbours reach it. Without a container, --down and --up change what all containers of the network \
together may receive and send. What is not given stays.",
    examples: &[
        ("Slower, now", "locule network set --up 5mbit web web1"),
        ("No limit any more", "locule network set --up none --down none web web1"),
        (
            "Share 100mbit, of which one container always gets 20",
            "locule network set --up 100mbit web\nlocule network set --up-min 20mbit web web1",
        ),
    ],
    arguments: |command| {
        command.args(places()).args([
            network(),
            Arg::new("container-id")
                .value_name("container-id")
                .help("Id of the container; without it the network is meant"),
            option("down", "RATE", "How fast it may receive, as 100mbit, or none"),
            option("up", "RATE", "How fast it may send, or none"),
            option("down-min", "RATE", "How fast it can receive in any case, or none"),
            option("up-min", "RATE", "How fast it can send in any case, or none"),
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
    let network = text(matches, "network").unwrap_or_default();
    let (down, up) = (read(matches, "down")?, read(matches, "up")?);
    let (down_min, up_min) = (read(matches, "down-min")?, read(matches, "up-min")?);
    let firewall = text(matches, "firewall").map(|word| word == "on");
    if [down, up, down_min, up_min].iter().all(Option::is_none) && firewall.is_none() {
        return Err(Error::invalid("network set: nothing to change was given"));
    }
    let Some(container) = text(matches, "container-id") else {
        if down_min.is_some() || up_min.is_some() || firewall.is_some() {
            return Err(Error::invalid(
                "network set: --down-min, --up-min and --firewall are of a container, and none was named",
            ));
        }
        let now = networks.definitions().load(network).map_err(lift)?.total;
        let total = Total { down: down.unwrap_or(now.down), up: up.unwrap_or(now.up) };
        networks.limit(network, total).map_err(lift)?;
        return Ok(0);
    };
    let now = networks
        .records()
        .load(container)
        .map_err(lift)?
        .and_then(|record| record.interfaces.into_iter().find(|wired| wired.network == network))
        .map_or_else(Rates::default, |wired| wired.rates);
    let rates = Rates {
        down: down.unwrap_or(now.down),
        up: up.unwrap_or(now.up),
        down_min: down_min.unwrap_or(now.down_min),
        up_min: up_min.unwrap_or(now.up_min),
    };
    networks.change(container, network, Some(rates), firewall).map_err(lift)?;
    Ok(0)
}
