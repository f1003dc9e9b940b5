//! `network create`: a definition, written.
//!
//! Owns the options. Touches nothing of the kernel: the first container brings the network up.

use clap::ArgMatches;
use locule_netns::network::{RouteTo, Subnet};
use locule_netns::rate::Total;
use locule_netns::{Cidr, Kind, Network};
use locule_runtime::{Error, Result};

use super::{addresses, lift, open, places, read, read_all, texts};
use crate::args::Globals;
use crate::cli::{Verb, option, path, path_parser, several, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network create",
    about: "Define a network",
    usage: "[options] <network>",
    details: "Writes the definition of a network. Nothing of it exists in the kernel until the first container is \
connected.\n\nThe default kind is bridge: a bridge of the host, whose containers reach each other, the host and, under \
the host's address, everything outside; other networks do not reach them. Without --subnet a free one is chosen.\n\n\
Forwarding is switched on for the bridge and the interfaces of the host's default routes, or those given with \
--uplink, and nowhere else.",
    examples: &[
        ("A network with a free subnet, and IPv6", "locule network create --ipv6 web"),
        (
            "Addresses of one's own, some kept back",
            "locule network create --subnet 10.9.0.0/24 --range 10.9.0.100-10.9.0.200 office",
        ),
        (
            "Straight on the LAN",
            "locule network create --kind macvlan --parent eth0 --subnet 192.0.2.0/24 lan",
        ),
        ("What CNI plugins make", "locule network create --cni /etc/cni/net.d/10-mynet.conflist mynet"),
    ],
    arguments: |command| {
        let words: Vec<_> = Kind::WORDS.iter().map(|(word, _)| *word).collect();
        command.args(places()).args([
            super::network(),
            option("kind", "KIND", "How containers are wired").value_parser(words).default_value("bridge"),
            several("subnet", "SUBNET", "Subnet of the containers, as 10.9.0.0/24; one a family, or more"),
            several("gateway", "ADDRESS", "Router of a subnet; on a bridge its address, by default the first"),
            several("range", "FIRST-LAST", "Addresses of a subnet that are given out; by default all"),
            switch("ipv6", "Choose an IPv6 subnet as well (unique local addresses)"),
            option("bridge", "INTERFACE", "Name of the bridge's interface; by default lb-NETWORK"),
            option("parent", "INTERFACE", "The host's interface under macvlan, ipvlan and device; for routed the one that answers for the containers"),
            option("mode", "MODE", "Of macvlan: bridge, private or vepa; of ipvlan: l2, l3 or l3s"),
            option("mtu", "BYTES", "Largest packet"),
            switch("no-nat", "Keep the containers' addresses outside, and let the outside reach them"),
            switch("internal", "Let the containers reach each other and the host only"),
            switch("no-guard", "Let containers send under addresses that are not theirs"),
            option("down", "RATE", "What all containers together may receive, as 1gbit: guarantees are parts of it"),
            option("up", "RATE", "What all containers together may send"),
            several("route", "SUBNET[=ROUTER]", "A route of the containers beside the default one"),
            several("uplink", "INTERFACE", "Interface that leads outside; by default those of the default routes"),
            several("dns", "ADDRESS", "Name server of the containers; by default the host's"),
            several("search", "DOMAIN", "Search domain of the containers"),
            option("cni", "FILE", "The CNI configuration list; the kind is then cni").value_parser(path_parser()),
            several("label", "KEY=VALUE", "Something to remember with the network"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let kind = text(matches, "kind").unwrap_or_default();
    let mut kind = Kind::WORDS.iter().find(|(word, _)| *word == kind).map_or(Kind::Bridge, |(_, kind)| *kind);
    let conflist = path(matches, "cni")?;
    if conflist.is_some() {
        kind = Kind::Cni;
    }
    let mut network = Network::new(text(matches, "network").unwrap_or_default(), kind);
    network.conflist = conflist;
    network.subnets = read_all::<Cidr>(matches, "subnet")?
        .into_iter()
        .map(|subnet| Subnet { subnet, gateway: None, range: None })
        .collect();
    for gateway in addresses(matches, "gateway")? {
        of_subnet(&mut network, gateway)?.gateway = Some(gateway);
    }
    for range in texts(matches, "range") {
        let wrong =
            || Error::invalid(format!("--range: {range:?} is no range such as 10.9.0.100-10.9.0.200"));
        let (first, last) = range.split_once('-').ok_or_else(wrong)?;
        let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        of_subnet(&mut network, first)?.range = Some((first, last));
    }
    let own = |name| text(matches, name).map(str::to_owned);
    network.bridge = own("bridge");
    network.parent = own("parent");
    network.mode = own("mode");
    network.mtu = text(matches, "mtu")
        .map(|mtu| mtu.parse().map_err(|_| Error::invalid(format!("--mtu: {mtu:?} is no number"))))
        .transpose()?;
    network.nat = !matches.get_flag("no-nat");
    network.internal = matches.get_flag("internal");
    network.total = Total {
        down: read(matches, "down")?.unwrap_or_default(),
        up: read(matches, "up")?.unwrap_or_default(),
    };
    network.guard = !matches.get_flag("no-guard");
    for route in texts(matches, "route") {
        let (to, via) = match route.split_once('=') {
            Some((to, via)) => (to, Some(via)),
            None => (route, None),
        };
        let via = via
            .map(|via| via.parse().map_err(|_| Error::invalid(format!("--route: {via:?} is no address"))))
            .transpose()?;
        network.routes.push(RouteTo { to: to.parse().map_err(lift)?, via });
    }
    network.uplinks = texts(matches, "uplink").map(str::to_owned).collect();
    network.dns = addresses(matches, "dns")?;
    network.search = texts(matches, "search").map(str::to_owned).collect();
    for label in texts(matches, "label") {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        network.labels.insert(key.to_owned(), value.to_owned());
    }
    let network = open(matches)?.create(network, matches.get_flag("ipv6")).map_err(lift)?;
    out.write(&format!("{}\n", network.name))?;
    Ok(0)
}

fn of_subnet(network: &mut Network, address: std::net::IpAddr) -> Result<&mut Subnet> {
    network
        .subnets
        .iter_mut()
        .find(|subnet| subnet.subnet.contains(address))
        .ok_or_else(|| Error::invalid(format!("{address} is in no --subnet")))
}
