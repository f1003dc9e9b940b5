//! Links, addresses, routes and neighbours over rtnetlink: one method, one act.
//!
//! Owns the messages' layout. Holds no policy: callers say what shall be there.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use crate::address::{Cidr, Mac, octets};
use crate::error::{Error, Result};
use crate::sys::netlink::{Attrs, CREATE, Message, REPLACE, Request, Socket, text_of, u32_at, walk};

const ADDRESS: u16 = libc::IFLA_ADDRESS;
const IFNAME: u16 = libc::IFLA_IFNAME;
const MTU: u16 = libc::IFLA_MTU;
const LINK: u16 = libc::IFLA_LINK;
const MASTER: u16 = libc::IFLA_MASTER;
const LINKINFO: u16 = libc::IFLA_LINKINFO;
const STATS64: u16 = libc::IFLA_STATS64;
const NET_NS_FD: u16 = libc::IFLA_NET_NS_FD;
const INFO_KIND: u16 = libc::IFLA_INFO_KIND;
const INFO_DATA: u16 = libc::IFLA_INFO_DATA;
const VETH_PEER: u16 = 1;
const MACVLAN_MODE: u16 = 1;
const IPVLAN_MODE: u16 = 1;
const UP: u32 = libc::IFF_UP as u32;
const RTNH_F_ONLINK: u32 = 4;

/// A link as the kernel lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `bridge`, `veth`…; empty for hardware.
    pub kind: String,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Largest packet.
    pub mtu: u32,
    /// Number of the bridge it is a port of.
    pub master: u32,
    /// Whether it is up.
    pub up: bool,
    /// Bytes and packets received, then sent.
    pub traffic: [u64; 4],
}

/// What a new link shall be like.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// Its name.
    pub name: &'a str,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// Largest packet; `None` leaves the kernel's default.
    pub mtu: Option<u32>,
}

impl NewLink<'_> {
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().text(IFNAME, self.name);
        if let Some(mac) = self.mac {
            attrs = attrs.put(ADDRESS, &mac.0);
        }
        if let Some(mtu) = self.mtu {
            attrs = attrs.u32(MTU, mtu);
        }
        attrs
    }
}

/// A route to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: Cidr,
    /// By which router; `None` for what is reached directly.
    pub via: Option<IpAddr>,
    /// Whether the router is reached directly although no address says so.
    pub onlink: bool,
}

/// Links and their like in the network namespace of one socket.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn info(kind: &str, data: Option<Attrs>) -> Attrs {
    let attrs = Attrs::new().text(INFO_KIND, kind);
    match data {
        Some(data) => attrs.nest(INFO_DATA, data),
        None => attrs,
    }
}

impl Links {
    /// Of the caller's network namespace.
    pub fn own() -> Result<Links> {
        Ok(Links { socket: Socket::route().map_err(|errno| Error::sys(errno, "opening a netlink socket"))? })
    }

    /// Of the network namespace `ns`, which the calling thread enters and leaves again; if it cannot leave, it must end.
    pub fn within(ns: impl AsFd, home: &File) -> Result<Links> {
        let socket = Socket::route_in(ns, home)
            .map_err(|errno| Error::sys(errno, "entering the container's network namespace"))?;
        Ok(Links { socket })
    }

    /// The link called `name`.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        let request = Request::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0), Attrs::new().text(IFNAME, name));
        match self.socket.get(request) {
            Ok(message) => Ok(read_link(&message)),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::sys(errno, format!("looking for the interface {name}"))),
        }
    }

    /// The link called `name`, which must be there.
    pub fn need(&mut self, name: &str) -> Result<Link> {
        self.find(name)?.ok_or_else(|| Error::sys(Errno::ENODEV, format!("looking for the interface {name}")))
    }

    /// All links.
    pub fn all(&mut self) -> Result<Vec<Link>> {
        let request = Request::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0), Attrs::new());
        let messages =
            self.socket.dump(&request).map_err(|errno| Error::sys(errno, "listing the interfaces"))?;
        Ok(messages.iter().filter_map(read_link).collect())
    }

    /// Makes a bridge that is down and learns nothing from frames to itself as a bridge (01:80:c2:00:00:0x): these
    /// pass no rule before they are learned from.
    pub fn add_bridge(&mut self, link: NewLink<'_>) -> Result<()> {
        const BR_MULTI_BOOLOPT: u16 = 46;
        const NO_LL_LEARN: u32 = 1;
        let options = [NO_LL_LEARN.to_ne_bytes(), NO_LL_LEARN.to_ne_bytes()].concat();
        let data = Attrs::new().put(BR_MULTI_BOOLOPT, &options);
        let kind = "bridge";
        let attrs = link.attrs().nest(LINKINFO, info(kind, Some(data)));
        self.socket
            .call(Request::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, 0, 0), attrs))
            .map_err(|errno| Error::sys(errno, format!("making the {kind} {}", link.name)).needs_module(kind))
    }

    /// Makes a pair in one message: `host` here, up, a port of `master` if that is given, and `inner` in `ns`, down:
    /// the kernel refuses to set it up before its peer exists.
    pub fn add_veth(
        &mut self,
        host: NewLink<'_>,
        master: Option<u32>,
        inner: NewLink<'_>,
        ns: impl AsFd,
    ) -> Result<()> {
        let peer = inner.attrs().u32(NET_NS_FD, ns.as_fd().as_raw_fd() as u32);
        let data = Attrs::new().nest_behind(VETH_PEER, &ifinfo(0, 0, 0), peer);
        let mut attrs = host.attrs().nest(LINKINFO, info("veth", Some(data)));
        if let Some(master) = master {
            attrs = attrs.u32(MASTER, master);
        }
        let doing =
            || format!("making the interface {} of the container (host's end {})", inner.name, host.name);
        self.socket.call(Request::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, UP, UP), attrs)).map_err(
            |errno| match errno {
                Errno::EXFULL => Error::sys(errno, doing())
                    .hint("a bridge has at most 1023 ports: use another network, or one of kind routed"),
                _ => Error::sys(errno, doing()).needs_module("veth"),
            },
        )
    }

    /// Makes a macvlan or ipvlan (`kind`) in `ns`, down, on top of the link `parent`.
    pub fn add_upon(
        &mut self,
        link: NewLink<'_>,
        kind: &str,
        mode: u32,
        parent: u32,
        ns: impl AsFd,
    ) -> Result<()> {
        let data = match kind {
            "ipvlan" => Attrs::new().put(IPVLAN_MODE, &(mode as u16).to_ne_bytes()),
            _ => Attrs::new().u32(MACVLAN_MODE, mode),
        };
        let attrs = link
            .attrs()
            .u32(LINK, parent)
            .u32(NET_NS_FD, ns.as_fd().as_raw_fd() as u32)
            .nest(LINKINFO, info(kind, Some(data)));
        self.socket
            .call(Request::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, 0, 0), attrs))
            .map_err(|errno| Error::sys(errno, format!("making the {kind} {}", link.name)).needs_module(kind))
    }

    /// Makes an `ifb` that is up and lets `queue` packets wait.
    pub fn add_ifb(&mut self, link: NewLink<'_>, queue: u32) -> Result<()> {
        let attrs = link.attrs().u32(libc::IFLA_TXQLEN, queue).nest(LINKINFO, info("ifb", None));
        self.socket
            .call(Request::new(libc::RTM_NEWLINK, CREATE, &ifinfo(0, UP, UP), attrs))
            .map_err(|errno| Error::sys(errno, format!("making the ifb {}", link.name)).needs_module("ifb"))
    }

    /// Calls the link `index` `name`; it must be down.
    pub fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        let attrs = Attrs::new().text(IFNAME, name);
        self.socket
            .call(Request::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0), attrs))
            .map_err(|errno| Error::sys(errno, format!("renaming interface {index} to {name}")))
    }

    /// Moves a link into `ns` as `name`.
    pub fn send(&mut self, index: u32, name: &str, ns: impl AsFd) -> Result<()> {
        let attrs = Attrs::new().u32(NET_NS_FD, ns.as_fd().as_raw_fd() as u32).text(IFNAME, name);
        self.socket
            .call(Request::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0), attrs))
            .map_err(|errno| Error::sys(errno, format!("moving an interface as {name}")))
    }

    /// Sets a link up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<()> {
        let body = ifinfo(index, if up { UP } else { 0 }, UP);
        self.socket
            .call(Request::new(libc::RTM_NEWLINK, 0, &body, Attrs::new()))
            .map_err(|errno| Error::sys(errno, format!("setting interface {index} up or down")))
    }

    /// Sets a tap up that only carries another interface's frames: it has that one's `mtu` and no address.
    pub fn configure_tap(&mut self, index: u32, mtu: u32) -> Result<()> {
        self.no_link_local(index)?;
        self.socket
            .call(Request::new(libc::RTM_NEWLINK, 0, &ifinfo(index, UP, UP), Attrs::new().u32(MTU, mtu)))
            .map_err(|errno| Error::sys(errno, format!("setting interface {index} up")))
    }

    /// Makes the link `index` what a container's port of a bridge is.
    ///
    /// With `mac` nothing is learned from what it sends: that address, and no other, is reached by it. With `hairpin`
    /// it gets back what it sent. It has no address of its own.
    pub fn set_port(&mut self, index: u32, mac: Option<Mac>, hairpin: bool) -> Result<()> {
        const BRPORT_MODE: u16 = 4;
        const BRPORT_LEARNING: u16 = 8;
        const BRPORT_UNICAST_FLOOD: u16 = 9;
        let mut body = ifinfo(index, 0, 0);
        body[0] = libc::AF_BRIDGE as u8;
        let mut flags = Attrs::new().put(BRPORT_MODE, &[u8::from(hairpin)]);
        if mac.is_some() {
            flags = flags.put(BRPORT_LEARNING, &[0]).put(BRPORT_UNICAST_FLOOD, &[0]);
        }
        let port = Request::new(libc::RTM_SETLINK, 0, &body, Attrs::new().nest(libc::IFLA_PROTINFO, flags));
        let mut requests = vec![port];
        if let Some(mac) = mac {
            let mut body = [0u8; 12];
            body[0] = libc::AF_BRIDGE as u8;
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            // NUD_NOARP is what bridge(8) calls static: it does not age.
            body[8..10].copy_from_slice(&libc::NUD_NOARP.to_ne_bytes());
            body[10] = libc::NTF_MASTER;
            requests.push(Request::new(
                libc::RTM_NEWNEIGH,
                REPLACE,
                &body,
                Attrs::new().put(libc::NDA_LLADDR, &mac.0),
            ));
        }
        self.socket
            .call_all(requests)
            .map_err(|refusal| Error::sys(refusal.errno, format!("setting the bridge's port {index}")))?;
        self.no_link_local(index)
    }

    /// Keeps the kernel from giving a link-local address to a link; without IPv6 there is nothing to keep.
    fn no_link_local(&mut self, index: u32) -> Result<()> {
        const INET6_ADDR_GEN_MODE: u16 = 8;
        const NONE: u8 = 1;
        let mode = Attrs::new().nest(libc::AF_INET6 as u16, Attrs::new().put(INET6_ADDR_GEN_MODE, &[NONE]));
        let attrs = Attrs::new().nest(libc::IFLA_AF_SPEC, mode);
        match self.socket.call(Request::new(libc::RTM_NEWLINK, 0, &ifinfo(index, 0, 0), attrs)) {
            Ok(()) | Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(Error::sys(errno, format!("keeping interface {index} without an address"))),
        }
    }

    /// Removes the link called `name`; false if there is none.
    pub fn remove(&mut self, name: &str) -> Result<bool> {
        let attrs = Attrs::new().text(IFNAME, name);
        match self.socket.call(Request::new(libc::RTM_DELLINK, 0, &ifinfo(0, 0, 0), attrs)) {
            Ok(()) => Ok(true),
            Err(Errno::ENODEV) => Ok(false),
            Err(errno) => Err(Error::sys(errno, format!("removing the interface {name}"))),
        }
    }

    /// Gives addresses to a link and adds routes over it, all in one send; with `up` it is set up first.
    pub fn configure(&mut self, index: u32, up: bool, addresses: &[Cidr], routes: &[Route]) -> Result<()> {
        let mut requests = Vec::new();
        if up {
            requests.push(Request::new(libc::RTM_NEWLINK, 0, &ifinfo(index, UP, UP), Attrs::new()));
        }
        let skip = requests.len();
        requests.extend(addresses.iter().map(|address| address_request(index, address)));
        requests.extend(routes.iter().map(|route| route_request(index, route)));
        self.socket.call_all(requests).map_err(|refusal| {
            let Some(at) = refusal.at.and_then(|at| at.checked_sub(skip)) else {
                return Error::sys(refusal.errno, format!("setting interface {index} up"));
            };
            let doing = match (addresses.get(at), routes.get(at.wrapping_sub(addresses.len()))) {
                (Some(address), _) => format!("giving the address {address} to interface {index}"),
                (None, Some(Route { to, via: Some(via), .. })) => {
                    format!("adding the route to {to} by {via}")
                }
                (None, Some(Route { to, .. })) => format!("adding the route to {to}"),
                (None, None) => "adding addresses and routes".into(),
            };
            Error::sys(refusal.errno, doing)
        })
    }

    /// Takes an address away; one that is not there is fine.
    pub fn remove_route(&mut self, index: u32, to: Cidr) -> Result<()> {
        let route = Route { to, via: None, onlink: false };
        let (body, attrs) = route_parts(index, &route);
        match self.socket.call(Request::new(libc::RTM_DELROUTE, 0, &body, attrs)) {
            Ok(()) | Err(Errno::ESRCH | Errno::ENODEV) => Ok(()),
            Err(errno) => Err(Error::sys(errno, format!("removing the route to {to}"))),
        }
    }

    /// All addresses: the number of the interface and the address.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Cidr)>> {
        let request = Request::new(libc::RTM_GETADDR, 0, &[0; 8], Attrs::new());
        let messages = self.socket.dump(&request).map_err(|errno| Error::sys(errno, "listing addresses"))?;
        Ok(messages
            .iter()
            .filter_map(|message| {
                let prefix = *message.payload.get(1)?;
                let index = u32_at(&message.payload, 4)?;
                let value = |wanted| message.attrs(8).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
                let bytes = value(libc::IFA_LOCAL).or_else(|| value(libc::IFA_ADDRESS))?;
                Some((index, Cidr { address: read_address(bytes)?, prefix }))
            })
            .collect())
    }

    /// Routes of all tables but the local one: the number of the interface, the destination.
    pub fn routes(&mut self) -> Result<Vec<(u32, Option<Cidr>)>> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut body = [0u8; 12];
            body[0] = family as u8;
            let request = Request::new(libc::RTM_GETROUTE, 0, &body, Attrs::new());
            let messages = match self.socket.dump(&request) {
                Err(Errno::EOPNOTSUPP) => continue,
                other => other.map_err(|errno| Error::sys(errno, "listing routes"))?,
            };
            for message in messages {
                let (Some(length), Some(table)) = (message.payload.get(1), message.payload.get(4)) else {
                    continue;
                };
                if *table == libc::RT_TABLE_LOCAL {
                    continue;
                }
                let value = |wanted| message.attrs(12).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
                let Some(index) = value(libc::RTA_OIF).and_then(|bytes| u32_at(bytes, 0)) else { continue };
                let to = value(libc::RTA_DST)
                    .and_then(read_address)
                    .map(|address| Cidr { address, prefix: *length });
                found.push((index, to));
            }
        }
        Ok(found)
    }

    /// Answers for `address` on the link `index`, as proxy ARP and NDP do, or stops doing so.
    pub fn proxy(&mut self, index: u32, address: IpAddr, on: bool) -> Result<()> {
        let mut body = [0u8; 12];
        body[0] = family(address);
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        body[10] = libc::NTF_PROXY;
        let attrs = Attrs::new().put(libc::NDA_DST, &octets(address));
        let request = match on {
            true => Request::new(libc::RTM_NEWNEIGH, REPLACE, &body, attrs),
            false => Request::new(libc::RTM_DELNEIGH, 0, &body, attrs),
        };
        match self.socket.call(request) {
            Err(Errno::ENOENT | Errno::ENODEV) if !on => Ok(()),
            other => other.map_err(|errno| Error::sys(errno, format!("answering for {address}"))),
        }
    }

    /// Told of every change of a link in the caller's network namespace.
    pub fn watch() -> Result<Links> {
        Ok(Links {
            socket: Socket::links()
                .map_err(|errno| Error::sys(errno, "listening for changes of interfaces"))?,
        })
    }

    /// Waits for a change, or the end of `patience`; only of what `watch` made.
    pub fn wait(&mut self, patience: std::time::Duration) -> Result<()> {
        self.socket.wait(patience).map_err(|errno| Error::sys(errno, "waiting for a change of an interface"))
    }

    /// The socket, for what stands elsewhere (queueing disciplines).
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

fn address_request(index: u32, address: &Cidr) -> Request {
    let mut body = [family(address.address), address.prefix, 0, 0, 0, 0, 0, 0];
    // No probing for duplicates: addresses are claimed, and a container starts at once.
    body[2] = if address.address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(address.address);
    let mut attrs = Attrs::new().put(libc::IFA_LOCAL, &bytes).put(libc::IFA_ADDRESS, &bytes);
    if let (IpAddr::V4(_), true) = (address.address, address.prefix < 31) {
        attrs = attrs.put(libc::IFA_BROADCAST, &octets(address.last()));
    }
    Request::new(libc::RTM_NEWADDR, CREATE, &body, attrs)
}

fn route_parts(index: u32, route: &Route) -> ([u8; 12], Attrs) {
    let mut body = [0u8; 12];
    body[0] = family(route.to.address);
    body[1] = route.to.prefix;
    body[4] = libc::RT_TABLE_MAIN;
    body[5] = libc::RTPROT_STATIC;
    body[6] = if route.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    body[7] = libc::RTN_UNICAST;
    if route.onlink {
        body[8..12].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
    }
    let mut attrs = Attrs::new();
    if route.to.prefix > 0 {
        attrs = attrs.put(libc::RTA_DST, &octets(route.to.first()));
    }
    if let Some(via) = route.via {
        attrs = attrs.put(libc::RTA_GATEWAY, &octets(via));
    }
    (body, attrs.u32(libc::RTA_OIF, index))
}

fn route_request(index: u32, route: &Route) -> Request {
    let (body, attrs) = route_parts(index, route);
    Request::new(libc::RTM_NEWROUTE, CREATE, &body, attrs)
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn read_link(message: &Message) -> Option<Link> {
    let mut link = Link {
        index: u32_at(&message.payload, 4)?,
        up: u32_at(&message.payload, 8)? & UP != 0,
        ..Link::default()
    };
    for (kind, value) in message.attrs(16) {
        match kind {
            IFNAME => link.name = text_of(value),
            ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            MTU => link.mtu = u32_at(value, 0)?,
            MASTER => link.master = u32_at(value, 0)?,
            LINKINFO => {
                link.kind = walk(value)
                    .find(|(kind, _)| *kind == INFO_KIND)
                    .map(|(_, v)| text_of(v))
                    .unwrap_or_default();
            }
            STATS64 => {
                // rtnl_link_stats64: packets received and sent, bytes received and sent.
                let word = |at: usize| {
                    value
                        .get(at * 8..at * 8 + 8)
                        .and_then(|b| b.try_into().ok())
                        .map_or(0, u64::from_ne_bytes)
                };
                link.traffic = [word(2), word(0), word(3), word(1)];
            }
            _ => {}
        }
    }
    Some(link)
}
