//! The interfaces of a network namespace, handed to a virtual machine.
//!
//! Beside each interface comes a tap, and two rules lead every frame that arrives at one out of the other. The interface
//! keeps its addresses and routes, for whoever made it to check and remove; but nothing reaches the host's own stack
//! by it any more. The machine's interface gets the same hardware address, MTU, addresses, routes and neighbours.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::address::{Cidr, Mac};
use crate::error::{Error, Kind, Result};
use crate::link::{Link, Links};
use crate::sys::netlink::{Attrs, CREATE, REPLACE, Request, u32_at};
use crate::sys::tun;

/// What names of the taps begin with.
const TAP: &str = "lcvm";
const CLSACT: u32 = 0xffff_fff1;
const ARRIVING: u32 = 0xffff_fff2;

/// An interface that was taken over.
#[derive(Debug)]
pub struct Taken {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its largest packet.
    pub mtu: u32,
    /// Its addresses, but for those that each kernel gives by itself.
    pub addresses: Vec<Cidr>,
    /// Its routes, in the order in which they can be made.
    pub routes: Vec<Way>,
    /// Neighbours that nobody answers for.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// Where its frames come out and go in.
    pub tap: OwnedFd,
}

/// A route of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where to.
    pub to: Cidr,
    /// By which router.
    pub via: Option<IpAddr>,
    /// Address to prefer as the source.
    pub source: Option<IpAddr>,
    /// The lower one wins.
    pub metric: Option<u32>,
    /// Whether the router is reached directly although no address says so.
    pub onlink: bool,
}

/// Takes over all interfaces of the caller's network namespace.
pub fn take_over() -> Result<Vec<Taken>> {
    let mut links = Links::own()?;
    let all = links.all()?;
    if let Some(tap) = all.iter().find(|link| link.name.starts_with(TAP)) {
        return Err(Error::new(
            Kind::Taken,
            format!("the network namespace has {}: another virtual machine has its interfaces", tap.name),
        )
        .hint("give each machine a network namespace of its own"));
    }
    let wanted: Vec<&Link> =
        all.iter().filter(|link| link.up && link.mac.is_some_and(|mac| mac.0 != [0; 6])).collect();
    let addresses = links.addresses()?;
    let ways = ways(&mut links)?;
    let neighbours = neighbours(&mut links)?;
    let mut taken = Vec::new();
    for (at, link) in wanted.into_iter().enumerate() {
        let Some(mac) = link.mac else { continue };
        let tap = lead(&mut links, link, &format!("{TAP}{at}"))
            .map_err(|err| err.context(format_args!("taking over the interface {}", link.name)))?;
        let of_link =
            |(index, cidr): &(u32, Cidr)| (*index == link.index && !by_itself(cidr)).then_some(*cidr);
        taken.push(Taken {
            name: link.name.clone(),
            mac,
            mtu: link.mtu,
            addresses: addresses.iter().filter_map(of_link).collect(),
            routes: ways
                .iter()
                .filter(|(index, _)| *index == link.index)
                .map(|(_, way)| way.clone())
                .collect(),
            neighbours: neighbours
                .iter()
                .filter(|(index, ..)| *index == link.index)
                .map(|(_, address, mac)| (*address, *mac))
                .collect(),
            tap,
        });
    }
    Ok(taken)
}

/// A link-local address is made of the hardware address, inside as well.
fn by_itself(cidr: &Cidr) -> bool {
    matches!(cidr.address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// A tap beside `link`, and each led into the other.
fn lead(links: &mut Links, link: &Link, name: &str) -> Result<OwnedFd> {
    let tap = tun::tap(name)
        .map_err(|errno| Error::sys(errno, format!("making the tap {name}")).needs_module("tun"))?;
    let made = links.need(name)?;
    links.configure_tap(made.index, link.mtu)?;
    for (from, to) in [(link.index, made.index), (made.index, link.index)] {
        let discipline = Request::new(
            libc::RTM_NEWQDISC,
            CREATE,
            &tcmsg(from, CLSACT & 0xffff_0000, CLSACT, 0),
            Attrs::new().text(libc::TCA_KIND, "clsact"),
        );
        let doing = || format!("leading what arrives at {} to its tap", link.name);
        match links.socket().call(discipline) {
            // The owner of the interface has filters of its own there: ours comes before them.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(Error::sys(errno, doing()).needs_module("sch_ingress")),
        }
        links
            .socket()
            .call(redirect(from, to))
            .map_err(|errno| Error::sys(errno, doing()).needs_module("cls_matchall and act_mirred"))?;
    }
    Ok(tap)
}

/// Leads all that arrives at `from` out of `to`.
fn redirect(from: u32, to: u32) -> Request {
    const MATCHALL_ACT: u16 = 2;
    // struct tc_mirred: index, capab, action TC_ACT_STOLEN, refcnt, bindcnt, egress redirect, interface.
    let words: [u32; 7] = [0, 0, 4, 0, 0, 1, to];
    let mirred: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let action = Attrs::new().text(1, "mirred").nest(2, Attrs::new().put(2, &mirred));
    let options = Attrs::new().nest(MATCHALL_ACT, Attrs::new().nest(1, action));
    let attrs = Attrs::new().text(libc::TCA_KIND, "matchall").nest(libc::TCA_OPTIONS, options);
    // Priority 1, every protocol (ETH_P_ALL in network order).
    let info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    Request::new(libc::RTM_NEWTFILTER, REPLACE, &tcmsg(from, 1, ARRIVING, info), attrs)
}

fn tcmsg(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut body = [0; 20];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&handle.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    body[16..20].copy_from_slice(&info.to_ne_bytes());
    body
}

/// Routes that somebody made, by interface: those that reach routers before those that use them.
fn ways(links: &mut Links) -> Result<Vec<(u32, Way)>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut body = [0u8; 12];
        body[0] = family as u8;
        let messages = match links.socket().dump(&Request::new(libc::RTM_GETROUTE, 0, &body, Attrs::new())) {
            Err(Errno::EOPNOTSUPP) => continue,
            other => other.map_err(|errno| Error::sys(errno, "listing routes"))?,
        };
        for message in messages {
            let Some([_, prefix, _, _, table, protocol, _, kind]) = message.payload.get(..8) else {
                continue;
            };
            let flags = u32_at(&message.payload, 8).unwrap_or(0);
            // The kernel makes its own inside, too.
            if *table != libc::RT_TABLE_MAIN || *protocol == libc::RTPROT_KERNEL || *kind != libc::RTN_UNICAST
            {
                continue;
            }
            let value = |wanted| message.attrs(12).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
            let Some(index) = value(libc::RTA_OIF).and_then(|bytes| u32_at(bytes, 0)) else { continue };
            let any = match family {
                libc::AF_INET => IpAddr::from([0u8; 4]),
                _ => IpAddr::from([0u8; 16]),
            };
            let to = Cidr { address: value(libc::RTA_DST).and_then(address).unwrap_or(any), prefix: *prefix };
            let way = Way {
                to,
                via: value(libc::RTA_GATEWAY).and_then(address),
                source: value(libc::RTA_PREFSRC).and_then(address),
                metric: value(libc::RTA_PRIORITY)
                    .and_then(|bytes| u32_at(bytes, 0))
                    .filter(|metric| *metric != 0),
                onlink: flags & 4 != 0,
            };
            found.push((index, way));
        }
    }
    found.sort_by_key(|(_, way)| (way.via.is_some(), std::cmp::Reverse(way.to.prefix)));
    Ok(found)
}

/// Neighbours that were written down, by interface.
fn neighbours(links: &mut Links) -> Result<Vec<(u32, IpAddr, Mac)>> {
    let messages = links
        .socket()
        .dump(&Request::new(libc::RTM_GETNEIGH, 0, &[0; 12], Attrs::new()))
        .map_err(|errno| Error::sys(errno, "listing neighbours"))?;
    Ok(messages
        .iter()
        .filter_map(|message| {
            let index = u32_at(&message.payload, 4)?;
            let state = u16::from_ne_bytes([*message.payload.get(8)?, *message.payload.get(9)?]);
            let value = |wanted| message.attrs(12).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
            let address = value(libc::NDA_DST).and_then(address)?;
            let mac = Mac(value(libc::NDA_LLADDR)?.try_into().ok()?);
            (state & libc::NUD_PERMANENT != 0).then_some((index, address, mac))
        })
        .collect())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
