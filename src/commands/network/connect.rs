//! `network connect`: a container that exists, put on a network.
//!
//! Owns the options and the answer. Finds the container's network namespace by its init.

use clap::ArgMatches;
use locule_netns::rate::Rates;
use locule_netns::{Attachment, Owner};
use locule_runtime::{Error, Kind, Result};
use serde_json::json;

use super::{addresses, format, lift, network, open, places, read, read_all, texts};
use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, path, path_parser, several, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network connect",
    about: "Put a container on a network",
    usage: "[options] <network> <container-id>",
    details: "Gives a created or running container an interface on a network, with an address, a route and its published \
ports. The container needs a network namespace of its own. The first network gives the default route.\n\nWhat it has \
got is printed; hosts and resolv are files that may be bound to /etc/hosts and /etc/resolv.conf of the container when it \
is created.\n\nThe connection ends with network disconnect. After the end of the container network gc takes its claims \
away, and so does whoever wants one of them.",
    examples: &[
        (
            "Before a container starts",
            "locule create --bundle /srv/web web1\nlocule network connect --publish 8080:80 web web1\nlocule start web1",
        ),
        (
            "With addresses of one's own",
            "locule network connect --ip 10.9.0.7 --mac 02:00:00:00:00:07 office web1",
        ),
        ("No faster than that", "locule network connect --down 100mbit --up 20mbit web web1"),
    ],
    arguments: |command| {
        command.args(places()).args([
            network(),
            id(),
            several(
                "ip",
                "ADDRESS",
                "Address of the container, of either family; by default the next free one",
            ),
            option("mac", "ADDRESS", "Hardware address of the container"),
            option("interface", "NAME", "Name of the interface in the container; by default the next ethN"),
            several(
                "publish",
                "[ADDRESS:]PORT:PORT[/PROTOCOL]",
                "Lead a port of the host, or a range, to the container",
            )
            .short('p'),
            several("alias", "NAME", "A name that neighbours know the container by, beside its own"),
            option("down", "RATE", "How fast it may receive, as 100mbit"),
            option("up", "RATE", "How fast it may send"),
            option("down-min", "RATE", "How fast it can receive in any case: a part of the network's rate"),
            option("up-min", "RATE", "How fast it can send in any case"),
            switch("firewall", "Let nobody but the host reach it, except through published ports"),
            option(
                "namespace",
                "FILE",
                "Network namespace, for what is no container of locule; container-id is then any name",
            )
            .value_parser(path_parser()),
            format(),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let networks = open(matches)?;
    let (owner, namespace) = match path(matches, "namespace")? {
        Some(path) => Owner::pinned(&path),
        None => Owner::process(globals.container(given_id(matches))?.init()?.0),
    }
    .map_err(lift)?;
    let rates = Rates {
        down: read(matches, "down")?.unwrap_or_default(),
        up: read(matches, "up")?.unwrap_or_default(),
        down_min: read(matches, "down-min")?.unwrap_or_default(),
        up_min: read(matches, "up-min")?.unwrap_or_default(),
    };
    let wanted = Attachment {
        network: text(matches, "network").unwrap_or_default().to_owned(),
        interface: text(matches, "interface").map(str::to_owned),
        addresses: addresses(matches, "ip")?,
        mac: read(matches, "mac")?,
        ports: read_all(matches, "publish")?,
        names: names(matches)?,
        rates,
        firewall: matches.get_flag("firewall"),
    };
    let attached = networks.attach(&namespace, owner, given_id(matches), &[wanted]).map_err(lift)?;
    if text(matches, "format") == Some("json") {
        out.json(&json!({
            "interfaces": attached.interfaces,
            "hosts": attached.hosts,
            "resolv": attached.resolv,
        }))?;
        return Ok(0);
    }
    for wired in &attached.interfaces {
        let addresses: Vec<_> = wired.addresses.iter().map(ToString::to_string).collect();
        out.write(&format!("{} {}\n", wired.interface, addresses.join(" ")))?;
    }
    Ok(0)
}

fn names(matches: &ArgMatches) -> Result<Vec<String>> {
    texts(matches, "alias")
        .map(|name| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if name.is_empty() || name.len() > 253 || !name.bytes().all(good) {
                return Err(Error::new(Kind::Invalid, format!("--alias: {name:?} is no host name")));
            }
            Ok(name.to_owned())
        })
        .collect()
}
