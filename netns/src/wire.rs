//! One interface of one container: made, given addresses and rules, and taken away again.
//!
//! Everything is decided before (`Wired`); this only acts. Taking away tolerates what is not there, so that it
//! finishes what a killed call began.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::address::{Cidr, digest};
use crate::error::{Error, Result};
use crate::fault;
use crate::host;
use crate::link::{Link, Links, NewLink, Route};
use crate::network::{Kind, Network};
use crate::nft::Nft;
use crate::nft::element::{Element, Value};
use crate::nft::schema::{
    LOOPS, PUBLISHED4, PUBLISHED4_ANY, PUBLISHED6, PUBLISHED6_ANY, RECEIVED, ROUTED, SELVES4, SELVES6,
    SENDERS4, SENDERS6, SENT, Set, UNGUARDED, WALLED, WALLED_PORTS, of_pair,
};
use crate::record::{Record, Wired};
use crate::shape;
use crate::sys::proc;

/// The router that a routed container sees: an address that means nothing beyond the link (RFC 3927).
const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const ROUTER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// How long an interface of the host may take to come back from a namespace that ended.
const RETURN: Duration = Duration::from_secs(10);
/// The loopback interface is the first one of every namespace.
const LOOPBACK: u32 = 1;

/// Sets the loopback interface of a namespace up.
pub fn loopback(namespace: &File, home: &File) -> Result<()> {
    Links::within(namespace, home)?.set_up(LOOPBACK, true)
}

/// What wiring works on.
#[derive(Debug)]
pub struct Wiring<'a> {
    /// The caller's network namespace.
    pub home: &'a File,
    /// Links of the host.
    pub links: Links,
    /// locule's tables, where they were needed so far.
    nft: Option<Nft>,
}

impl Wiring<'_> {
    /// Nothing wired yet.
    pub fn new(home: &File) -> Result<Wiring<'_>> {
        Ok(Wiring { home, links: Links::own()?, nft: None })
    }

    /// locule's tables.
    pub fn nft(&mut self) -> Result<&mut Nft> {
        // Opened when needed: a kernel without nf_tables still has macvlan.
        let nft = match self.nft.take() {
            Some(nft) => nft,
            None => Nft::open()?,
        };
        Ok(self.nft.insert(nft))
    }

    /// Makes the interface of a container in `namespace`; `default` says whether it leads to everywhere.
    pub fn up(&mut self, network: &Network, wired: &Wired, namespace: &File, default: bool) -> Result<()> {
        let inner = NewLink { name: &wired.interface, mac: wired.mac, mtu: network.mtu };
        let outer = NewLink { name: &wired.host, mac: None, mtu: network.mtu };
        match network.kind {
            Kind::Bridge => {
                let mut nft = self.nft.take().map_or_else(Nft::open, Ok)?;
                let bridge = host::ensure_bridge(&mut self.links, &mut nft, network)?;
                self.nft = Some(nft);
                self.links.add_veth(outer, Some(bridge), inner, namespace)?;
                let port = self.links.need(&wired.host)?;
                let hairpin = !wired.ports.is_empty() && frames_are_filtered();
                self.links.set_port(port.index, wired.mac.filter(|_| wired.guard), hairpin)?;
            }
            Kind::Routed => {
                self.links.add_veth(outer, None, inner, namespace)?;
                self.route(network, wired)?;
            }
            Kind::Macvlan | Kind::Ipvlan => {
                let parent = self.links.need(wired.parent.as_deref().unwrap_or_default())?;
                // An ipvlan has its parent's hardware address.
                let mac = wired.mac.filter(|_| network.kind == Kind::Macvlan);
                let mode = network.mode_number().unwrap_or_default();
                // Under a name that the host has not: the kernel looks for the given one on this side, too.
                let name = temporary(wired);
                let inner = NewLink { mac, name: &name, ..inner };
                self.links.add_upon(inner, network.kind.word(), mode, parent.index, namespace)?;
                let mut inside = Links::within(namespace, self.home)?;
                let index = inside.need(&name)?.index;
                inside.rename(index, &wired.interface)?;
            }
            Kind::Device => {
                let link = self.links.need(&wired.host)?;
                self.links.send(link.index, &wired.interface, namespace)?;
            }
            Kind::Cni | Kind::None | Kind::Host => return Ok(()),
        }
        fault::point("pair");
        self.configure(network, wired, namespace, default)?;
        fault::point("configured");
        let elements = elements(wired);
        if !elements.is_empty() {
            self.nft()?.add(&elements)?;
        }
        fault::point("rules");
        if wired.is_shaped() {
            shape::apply(&mut self.links, wired, network.total)?;
        }
        fault::point("rates");
        Ok(())
    }

    /// Inside: loopback, addresses, routes.
    fn configure(&self, network: &Network, wired: &Wired, namespace: &File, default: bool) -> Result<()> {
        let mut links = Links::within(namespace, self.home)?;
        let index = links.need(&wired.interface)?.index;
        let mut routes = Vec::new();
        let any = |ipv4: bool| match ipv4 {
            true => Cidr { address: Ipv4Addr::UNSPECIFIED.into(), prefix: 0 },
            false => Cidr { address: Ipv6Addr::UNSPECIFIED.into(), prefix: 0 },
        };
        for address in &wired.addresses {
            let ipv4 = address.address.is_ipv4();
            let gateway = match network.kind {
                Kind::Routed if ipv4 => Some(ROUTER4),
                Kind::Routed => Some(ROUTER6),
                _ => network
                    .subnets
                    .iter()
                    .find(|subnet| subnet.subnet.contains(address.address))
                    .and_then(|subnet| subnet.gateway),
            };
            let onlink = network.kind == Kind::Routed;
            let mut add = |to, via| {
                let route = Route { to, via: Some(via), onlink };
                if !routes.contains(&route) {
                    routes.push(route);
                }
            };
            if let (true, false, Some(gateway)) = (default, network.internal, gateway) {
                add(any(ipv4), gateway);
            }
            for route in network.routes.iter().filter(|route| route.to.address.is_ipv4() == ipv4) {
                if let Some(via) = route.via.or(gateway) {
                    add(route.to, via);
                }
            }
        }
        links.configure(index, true, &wired.addresses, &routes)
    }

    /// The host's end of a routed container.
    fn route(&mut self, network: &Network, wired: &Wired) -> Result<()> {
        let name = &wired.host;
        let index = self.links.need(name)?.index;
        let _ = proc::set(&format!("ipv6/conf/{name}/accept_ra"), "0");
        proc::set(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
        proc::set(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
        let has = |ipv4: bool| wired.addresses.iter().any(|address| address.address.is_ipv4() == ipv4);
        let mut own = Vec::new();
        if has(true) {
            own.push(Cidr { address: ROUTER4, prefix: 32 });
        }
        if has(false) {
            own.push(Cidr { address: ROUTER6, prefix: 64 });
        }
        let routes: Vec<Route> =
            wired.addresses.iter().map(|to| Route { to: *to, via: None, onlink: false }).collect();
        self.links.configure(index, false, &own, &routes)?;
        host::forward(&mut self.links, network, name)?;
        if let Some(parent) = &wired.parent {
            let index = self.links.need(parent)?.index;
            for address in &wired.addresses {
                if address.address.is_ipv6() {
                    host::answer6(parent)?;
                }
                self.links.proxy(index, address.address, true)?;
            }
        }
        Ok(())
    }

    /// Takes the interface away. `record` tells where it is.
    pub fn down(&mut self, record: &Record, wired: &Wired) -> Result<()> {
        if wired.kind == Kind::Cni {
            return match &wired.cni {
                Some(cached) => cached.delete(record, wired),
                None => Ok(()),
            };
        }
        if wired.kind == Kind::Routed
            && let Some(parent) = &wired.parent
            && let Some(link) = self.links.find(parent)?
        {
            for address in &wired.addresses {
                self.links.proxy(link.index, address.address, false)?;
            }
        }
        // Rules before the link: from here on nobody hears it. And the kernel frees elements after a while, for which
        // closing the socket waits, but not the removal of the link.
        let elements = elements(wired);
        if !elements.is_empty() {
            self.nft()?.remove(&elements)?;
        }
        fault::point("removed-rules");
        match wired.kind {
            Kind::Bridge | Kind::Routed => {
                self.links.remove(&wired.host)?;
                shape::remove(&mut self.links, wired)?;
            }
            Kind::Macvlan | Kind::Ipvlan | Kind::Device if record.owner.lives() => {
                let path = record.owner.path().unwrap_or_default();
                if let Ok(namespace) = File::open(&path) {
                    self.take_out(wired, &namespace)?;
                }
            }
            Kind::Device => self.bring_home(wired)?,
            _ => {}
        }
        fault::point("removed-link");
        Ok(())
    }

    /// A device of hardware comes back to the host when its namespace ends, but under the name that it had inside, or a
    /// new one where that was taken. A virtual one has ended with the namespace.
    fn bring_home(&mut self, wired: &Wired) -> Result<()> {
        use crate::error::Kind;
        let Some(mac) = wired.moved else { return Ok(()) };
        let back = |link: &Link| {
            let named =
                link.name == wired.host || link.name == wired.interface || link.name.starts_with("dev");
            named && link.kind.is_empty() && link.mac == Some(mac)
        };
        // The kernel ends a namespace some time after its last process.
        let mut news = Links::watch()?;
        let until = Instant::now() + RETURN;
        let link = loop {
            if let Some(link) = self.links.all()?.into_iter().find(back) {
                break link;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(
                    Kind::NotFound,
                    format!(
                        "waiting for {} to come back from a container that is gone: it did not",
                        wired.host
                    ),
                )
                .hint("a process that is still in its network namespace keeps it"));
            }
            news.wait(left)?;
        };
        if link.name == wired.host {
            return Ok(());
        }
        self.links.set_up(link.index, false)?;
        self.links.rename(link.index, &wired.host)
    }

    fn take_out(&self, wired: &Wired, namespace: &File) -> Result<()> {
        let mut links = Links::within(namespace, self.home)?;
        if wired.kind != Kind::Device {
            links.remove(&temporary(wired))?;
        }
        let Some(link) = links.find(&wired.interface)? else { return Ok(()) };
        if wired.kind != Kind::Device {
            return links.remove(&wired.interface).map(drop);
        }
        links.set_up(link.index, false)?;
        links.send(link.index, &wired.host, self.home).map_err(|err| {
            err.context(format!("giving {} back to the host as {}", wired.interface, wired.host))
        })
    }
}

/// What a macvlan or ipvlan is called until it has the name that it shall have in the container.
fn temporary(wired: &Wired) -> String {
    format!("lct-{:011x}", digest(&[&wired.network, &wired.interface]) >> 20)
}

/// Whether br_netfilter is at work, as Docker and Kubernetes have it: a frame whose destination NAT changed then
/// stays on the bridge, and must be let out of the port it came in by.
fn frames_are_filtered() -> bool {
    ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"]
        .iter()
        .any(|name| proc::get(name).is_some_and(|value| value == "1"))
}

/// The elements of one interface.
pub fn elements(wired: &Wired) -> Vec<Element> {
    let mut elements = Vec::new();
    let name = Value::Ifname(&wired.host);
    let (bridged, routed) = (wired.kind == Kind::Bridge, wired.kind == Kind::Routed);
    if !bridged && !routed {
        // Published ports of a CNI network are its plugins' affair.
        return elements;
    }
    if routed {
        elements.push(Element::new(&ROUTED, std::slice::from_ref(&name)));
        elements.push(Element::new(&LOOPS, &[name.clone(), name.clone()]));
        if wired.firewall {
            elements.push(Element::new(&WALLED, std::slice::from_ref(&name)));
        }
    }
    if bridged && wired.firewall {
        elements.push(Element::new(&WALLED_PORTS, std::slice::from_ref(&name)));
    }
    if let (true, true, Some(mac)) = (bridged, wired.guard, wired.mac) {
        for address in &wired.addresses {
            let set = if address.address.is_ipv4() { &SENDERS4 } else { &SENDERS6 };
            let key = [name.clone(), Value::Ether(mac), Value::Ip(address.address)];
            elements.push(Element::new(set, &key));
        }
        let link_local = IpAddr::from(mac.link_local());
        elements.push(Element::new(&SENDERS6, &[name.clone(), Value::Ether(mac), Value::Ip(link_local)]));
    }
    if bridged && !wired.guard {
        elements.push(Element::new(&UNGUARDED, std::slice::from_ref(&name)));
    }
    // `classes` is at most as many as there are sets.
    let sets = SENT.iter().chain(&RECEIVED).map(|pair| of_pair(pair, routed));
    for set in sets.filter(|set| class_of(set) < wired.classes) {
        elements.push(Element::new(set, std::slice::from_ref(&name)));
    }
    if !wired.ports.is_empty() {
        for address in &wired.addresses {
            let set = if address.address.is_ipv4() { &SELVES4 } else { &SELVES6 };
            elements.push(Element::new(set, &[Value::Ip(address.address), Value::Ip(address.address)]));
        }
    }
    elements.extend(published(wired));
    elements
}

/// The number of the class that a counting set is for: the digit that its name ends with.
pub fn class_of(set: &Set) -> u32 {
    set.name.bytes().last().map_or(0, |digit| u32::from(digit.saturating_sub(b'0')))
}

/// The elements of its published ports, sorted by set so that they make few messages.
fn published(wired: &Wired) -> Vec<Element> {
    let mut elements = Vec::new();
    for ipv4 in [true, false] {
        let to = wired.addresses.iter().map(|address| address.address).find(|to| to.is_ipv4() == ipv4);
        let Some(to) = to else { continue };
        let (one, any) = if ipv4 { (&PUBLISHED4, &PUBLISHED4_ANY) } else { (&PUBLISHED6, &PUBLISHED6_ANY) };
        let mut on_any = Vec::new();
        for publish in wired.ports.iter().filter(|publish| publish.covers(ipv4)) {
            let protocol = Value::Protocol(publish.protocol.number());
            for (host, inner) in publish.pairs() {
                let data = [Value::Ip(to), Value::Port(inner)];
                match publish.address.filter(|address| !address.is_unspecified()) {
                    Some(address) => {
                        let key = [protocol.clone(), Value::Ip(address), Value::Port(host)];
                        elements.push(Element::mapped(one, &key, &data));
                    }
                    None => on_any.push(Element::mapped(any, &[protocol.clone(), Value::Port(host)], &data)),
                }
            }
        }
        elements.extend(on_any);
    }
    elements
}

/// Refuses ports that could lead nowhere.
pub fn check_ports(wired: &Wired) -> Result<()> {
    for publish in &wired.ports {
        let reached = wired.addresses.iter().any(|address| publish.covers(address.address.is_ipv4()));
        if !reached {
            return Err(Error::invalid(format!(
                "publishing {publish}: the container has no address of that family on network {}",
                wired.network
            )));
        }
    }
    Ok(())
}
