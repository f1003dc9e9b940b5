//! The host's side of networks: bridges with their gateways, forwarding where it is needed, elements of a network.
//!
//! Owns bridges and the switches it sets on interfaces. Knows nothing of single containers.

use std::collections::BTreeSet;

use crate::address::{Cidr, Mac, digest};
use crate::error::{Error, Result};
use crate::link::{Links, NewLink};
use crate::network::{Kind, Network};
use crate::nft::Nft;
use crate::nft::element::{Element, Value};
use crate::nft::schema::{BRIDGES, CLOSED, INTERNAL, LOOPS, NAT};
use crate::sys::proc;

/// Makes the bridge of a network, with its elements, unless it is there; returns its number.
pub fn ensure_bridge(links: &mut Links, nft: &mut Nft, network: &Network) -> Result<u32> {
    let name = network.bridge_name();
    if let Some(link) = links.find(&name)? {
        if link.kind != "bridge" {
            return Err(Error::taken(format!(
                "the interface {name} of network {} exists and is no bridge",
                network.name
            ))
            .hint("create the network with another --bridge"));
        }
        if link.up {
            return Ok(link.index);
        }
        // Made by a call that was killed before it came further.
        links.remove(&name)?;
    }
    refuse_overlap(links, network)?;
    links.add_bridge(NewLink { name: &name, mac: Some(mac_of(network)), mtu: network.mtu })?;
    crate::fault::point("bridge");
    let made = dress_bridge(links, nft, network, &name);
    if made.is_err() {
        links.remove(&name)?;
    }
    made
}

/// The fixed hardware address of a network's bridge: else it would change with the ports.
fn mac_of(network: &Network) -> Mac {
    Mac::from_seed(digest(&["bridge", &network.name]))
}

/// Removes the bridge that an earlier network of this name left, whose definition somebody took away (with the whole
/// directory of data, say): it has the addresses of that one. One with ports, or that is not ours, stays.
pub fn remove_orphan(links: &mut Links, network: &Network) -> Result<()> {
    let name = network.bridge_name();
    let Some(link) = links.find(&name)? else { return Ok(()) };
    let ours = link.kind == "bridge" && link.mac == Some(mac_of(network));
    if ours && links.all()?.iter().all(|port| port.master != link.index) {
        links.remove(&name)?;
    }
    Ok(())
}

fn dress_bridge(links: &mut Links, nft: &mut Nft, network: &Network, name: &str) -> Result<u32> {
    let index = links.need(name)?.index;
    // No router advertisement of a container may reach the host.
    let _ = proc::set(&format!("ipv6/conf/{name}/accept_ra"), "0");
    let gateways: Vec<Cidr> = network
        .subnets
        .iter()
        .filter_map(|subnet| Some(Cidr { address: subnet.gateway?, prefix: subnet.subnet.prefix }))
        .collect();
    links.configure(index, false, &gateways, &[])?;
    if !network.internal {
        proc::set(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        forward(links, network, name)?;
    }
    nft.add(&elements(network))?;
    // Up last: that it is up says that all of it is there.
    links.set_up(index, true)?;
    Ok(index)
}

/// Refuses subnets that the host has addresses in, or routes to, elsewhere.
fn refuse_overlap(links: &mut Links, network: &Network) -> Result<()> {
    let all = links.all()?;
    let name = |index: u32| {
        all.iter().find(|link| link.index == index).map_or_else(|| "?".to_owned(), |link| link.name.clone())
    };
    let addresses = links.addresses()?.into_iter().map(|(index, address)| (index, Some(address)));
    for (index, other) in addresses.chain(links.routes()?) {
        // A default route overlaps everything, and so do link-local addresses of each other.
        let Some(other) = other.filter(|other| other.prefix > 0) else { continue };
        if let Some(ours) = network.subnets.iter().find(|ours| ours.subnet.overlaps(&other)) {
            return Err(Error::taken(format!(
                "the subnet {} of network {} overlaps {other} of the host's interface {}",
                ours.subnet,
                network.name,
                name(index)
            ))
            .hint("create the network with another --subnet"));
        }
    }
    Ok(())
}

/// What subnets the host knows already.
pub fn known_subnets(links: &mut Links) -> Result<Vec<Cidr>> {
    let addresses = links.addresses()?.into_iter().map(|(_, address)| Some(address));
    Ok(addresses.chain(links.routes()?.into_iter().map(|(_, to)| to)).flatten().collect())
}

/// Lets packets pass between the interface `name` and what leads outside: nothing more is switched on.
pub fn forward(links: &mut Links, network: &Network, name: &str) -> Result<()> {
    let mut uplinks: BTreeSet<String> = network.uplinks.iter().chain(&network.parent).cloned().collect();
    if network.uplinks.is_empty() {
        let all = links.all()?;
        for (index, to) in links.routes()? {
            if to.is_none_or(|to| to.prefix == 0) {
                uplinks.extend(all.iter().find(|link| link.index == index).map(|link| link.name.clone()));
            }
        }
    }
    let ipv6 = network.subnets.iter().any(|subnet| subnet.subnet.address.is_ipv6());
    for interface in uplinks.iter().map(String::as_str).chain([name]) {
        if network.subnets.iter().any(|subnet| subnet.subnet.address.is_ipv4()) {
            proc::set(&format!("ipv4/conf/{interface}/forwarding"), "1")?;
        }
        if ipv6 && proc::get("ipv6/conf/all/forwarding").is_some_and(|on| on == "0") {
            // Since 6.17 an interface alone can forward IPv6.
            let one = format!("ipv6/conf/{interface}/force_forwarding");
            if proc::get(&one).is_some() {
                proc::set(&one, "1")?;
            } else {
                keep_advertisements(links)?;
                proc::set("ipv6/conf/all/forwarding", "1")?;
            }
        }
    }
    Ok(())
}

/// Lets the interface answer neighbour solicitations for others: it does so only as a router, as `forwarding`
/// makes it one.
pub fn answer6(interface: &str) -> Result<()> {
    let own = |switch: &str| format!("ipv6/conf/{interface}/{switch}");
    if proc::get(&own("forwarding")).is_some_and(|on| on == "0") {
        // A router ignores the advertisements of others unless told so.
        if proc::get(&own("accept_ra")).is_some_and(|value| value == "1") {
            proc::set(&own("accept_ra"), "2")?;
        }
        proc::set(&own("forwarding"), "1")?;
    }
    proc::set(&own("proxy_ndp"), "1").map(drop)
}

/// A host that forwards IPv6 ignores router advertisements unless told so, and would lose its own default route.
fn keep_advertisements(links: &mut Links) -> Result<()> {
    for link in links.all()? {
        let name = format!("ipv6/conf/{}/accept_ra", link.name);
        if proc::get(&name).is_some_and(|value| value == "1") {
            proc::set(&name, "2")?;
        }
    }
    Ok(())
}

/// The elements of a network's bridge.
pub fn elements(network: &Network) -> Vec<Element> {
    if network.kind != Kind::Bridge {
        return Vec::new();
    }
    let name = network.bridge_name();
    let key = [Value::Ifname(&name)];
    let mut elements = vec![
        Element::new(&BRIDGES, &key),
        Element::new(&LOOPS, &[Value::Ifname(&name), Value::Ifname(&name)]),
    ];
    if network.nat && !network.internal {
        elements.push(Element::new(&NAT, &key));
    }
    if network.nat || network.internal {
        elements.push(Element::new(&CLOSED, &key));
    }
    if network.internal {
        elements.push(Element::new(&INTERNAL, &key));
    }
    elements
}
