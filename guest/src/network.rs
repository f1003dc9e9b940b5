//! One interface of the guest: found by its hardware address, given name, size, addresses, routes, neighbours.
//!
//! Encodes rtnetlink(7) requests for the runtime's client. What is asked for is checked before the
//! interface is touched.

use std::net::IpAddr;

use locule_channel::document::{Interface, Route};
use locule_runtime::error::{Context, Error, Result};
use locule_runtime::sys::netlink::{Message, Request, Socket, u32_at};
use nix::errno::Errno;

const NEWLINK: u16 = libc::RTM_NEWLINK;
/// `struct ifinfomsg`, in bytes.
const LINK_BODY: usize = 16;
const ANEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
/// `RTNH_F_ONLINK` of linux/rtnetlink.h.
const ONLINK: u32 = 4;
/// Made by an administrator (`RTPROT_STATIC`).
const STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;
const MAIN_TABLE: u8 = 254;
/// `NUD_PERMANENT` of linux/neighbour.h.
const PERMANENT: u16 = 0x80;

/// An address or network and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prefix(IpAddr, u8);

/// Makes the interface what the host says.
pub fn apply(wanted: &Interface) -> Result<()> {
    let doing = || format!("setting up the network interface {}", wanted.name);
    let plan = Plan::new(wanted).map_err(|err| err.context(doing()))?;
    let mut socket = Socket::open().doing(doing)?;
    let index = find(&mut socket, plan.mac)?;
    // A name can be changed of one that is down alone.
    socket.call(Request::new(NEWLINK, 0, &link_body(index, false))).doing(doing)?;
    let mut link = Request::new(NEWLINK, 0, &link_body(index, true)).text(libc::IFLA_IFNAME, &wanted.name);
    if let Some(address) = plan.address {
        link = link.attr(libc::IFLA_ADDRESS, &address);
    }
    if let Some(mtu) = wanted.mtu {
        link = link.attr(libc::IFLA_MTU, &mtu.to_ne_bytes());
    }
    socket.call(link).doing(doing)?;
    for (prefix, text) in plan.addresses.iter().zip(&wanted.addresses) {
        socket.call(address(index, *prefix)).doing(|| format!("{}: adding the address {text}", doing()))?;
    }
    for (request, route) in plan.routes(index).into_iter().zip(&wanted.routes) {
        socket.call(request).doing(|| format!("{}: adding the route to {}", doing(), route.destination))?;
    }
    for ((at, mac), neighbour) in plan.neighbours.iter().zip(&wanted.neighbours) {
        socket
            .call(self::neighbour(index, *at, mac))
            .doing(|| format!("{}: adding the neighbour {}", doing(), neighbour.address))?;
    }
    Ok(())
}

/// Everything understood, nothing done.
struct Plan {
    mac: [u8; 6],
    address: Option<[u8; 6]>,
    addresses: Vec<Prefix>,
    routes: Vec<PlannedRoute>,
    neighbours: Vec<(IpAddr, [u8; 6])>,
}

struct PlannedRoute {
    destination: Prefix,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    metric: Option<u32>,
    onlink: bool,
}

impl Plan {
    fn new(wanted: &Interface) -> Result<Plan> {
        let plain = |c: u8| c.is_ascii_graphic() && c != b'/' && c != b':';
        if !(1..=15).contains(&wanted.name.len()) || !wanted.name.bytes().all(plain) {
            return Err(Error::invalid(format!("{:?} is not the name of an interface", wanted.name)));
        }
        Ok(Plan {
            mac: mac(&wanted.mac)?,
            address: wanted.address.as_deref().map(mac).transpose()?,
            addresses: wanted.addresses.iter().map(|text| prefix(text)).collect::<Result<_>>()?,
            routes: wanted.routes.iter().map(PlannedRoute::new).collect::<Result<_>>()?,
            neighbours: wanted
                .neighbours
                .iter()
                .map(|one| Ok((ip(&one.address)?, mac(&one.mac)?)))
                .collect::<Result<_>>()?,
        })
    }

    fn routes(&self, index: u32) -> Vec<Request> {
        self.routes.iter().map(|route| route.request(index)).collect()
    }
}

impl PlannedRoute {
    fn new(route: &Route) -> Result<PlannedRoute> {
        let destination = prefix(&route.destination)?;
        let gateway = route.gateway.as_deref().map(ip).transpose()?;
        let source = route.source.as_deref().map(ip).transpose()?;
        if [gateway, source].iter().flatten().any(|at| at.is_ipv4() != destination.0.is_ipv4()) {
            return Err(Error::invalid(format!("the route to {} mixes IPv4 and IPv6", route.destination)));
        }
        Ok(PlannedRoute {
            destination,
            gateway,
            source,
            metric: route.metric.filter(|metric| *metric != 0),
            onlink: route.onlink,
        })
    }

    fn request(&self, index: u32) -> Request {
        let scope = if self.gateway.is_none() && self.destination.0.is_ipv4() { SCOPE_LINK } else { 0 };
        let mut body = vec![
            family(self.destination.0),
            self.destination.1,
            0,
            0,
            MAIN_TABLE,
            STATIC,
            scope,
            libc::RTN_UNICAST,
        ];
        body.extend(if self.onlink { ONLINK } else { 0 }.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWROUTE, ANEW, &body)
            .attr(libc::RTA_DST, &bytes(self.destination.0))
            .attr(libc::RTA_OIF, &index.to_ne_bytes());
        if let Some(gateway) = self.gateway {
            request = request.attr(libc::RTA_GATEWAY, &bytes(gateway));
        }
        if let Some(source) = self.source {
            request = request.attr(libc::RTA_PREFSRC, &bytes(source));
        }
        if let Some(metric) = self.metric {
            request = request.attr(libc::RTA_PRIORITY, &metric.to_ne_bytes());
        }
        request
    }
}

/// The index of the interface with the hardware address `mac`.
fn find(socket: &mut Socket, mac: [u8; 6]) -> Result<u32> {
    let links = socket
        .dump(&Request::new(libc::RTM_GETLINK, 0, &link_body(0, false)))
        .doing(|| "listing the network interfaces")?;
    let found = links.iter().find_map(|link: &Message| {
        let own = link.attrs(LINK_BODY).any(|(kind, value)| kind == libc::IFLA_ADDRESS && value == mac);
        own.then(|| u32_at(&link.payload, 4)).flatten()
    });
    found.ok_or_else(|| {
        let text: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        Error::sys(
            Errno::ENODEV,
            format!("finding the network interface with the address {}", text.join(":")),
        )
        .hint("its driver is the module virtio_net")
    })
}

fn link_body(index: u32, up: bool) -> Vec<u8> {
    let mut body = vec![0u8; 4];
    let flag = libc::IFF_UP as u32;
    body.extend(index.to_ne_bytes());
    body.extend(if up { flag } else { 0 }.to_ne_bytes());
    body.extend(if index == 0 { 0 } else { flag }.to_ne_bytes());
    body
}

fn address(index: u32, Prefix(at, length): Prefix) -> Request {
    // The host's kernel has made sure already that nobody else has it.
    let flags = if at.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    let mut body = vec![family(at), length, flags, 0];
    body.extend(index.to_ne_bytes());
    let request = Request::new(libc::RTM_NEWADDR, ANEW, &body)
        .attr(libc::IFA_LOCAL, &bytes(at))
        .attr(libc::IFA_ADDRESS, &bytes(at));
    match at {
        IpAddr::V4(at) if length < 31 => {
            let broadcast = u32::from(at) | u32::MAX.checked_shr(length.into()).unwrap_or(0);
            request.attr(libc::IFA_BROADCAST, &broadcast.to_be_bytes())
        }
        _ => request,
    }
}

fn neighbour(index: u32, at: IpAddr, mac: &[u8; 6]) -> Request {
    const DESTINATION: u16 = 1;
    const HARDWARE: u16 = 2;
    let mut body = vec![family(at), 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(PERMANENT.to_ne_bytes());
    body.extend([0, 0]);
    Request::new(libc::RTM_NEWNEIGH, ANEW, &body).attr(DESTINATION, &bytes(at)).attr(HARDWARE, mac)
}

fn family(at: IpAddr) -> u8 {
    if at.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn bytes(at: IpAddr) -> Vec<u8> {
    match at {
        IpAddr::V4(at) => at.octets().to_vec(),
        IpAddr::V6(at) => at.octets().to_vec(),
    }
}

fn ip(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid(format!("{text:?} is not an address")))
}

fn prefix(text: &str) -> Result<Prefix> {
    let wrong = || Error::invalid(format!("{text:?} is not an address with the length of its prefix"));
    let (at, length) = text.split_once('/').ok_or_else(wrong)?;
    let (at, length) = (ip(at).map_err(|_| wrong())?, length.parse().map_err(|_| wrong())?);
    let most = if at.is_ipv4() { 32 } else { 128 };
    if length > most { Err(wrong()) } else { Ok(Prefix(at, length)) }
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let wrong = || Error::invalid(format!("{text:?} is not a hardware address"));
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| {
            // `from_str_radix` would take a sign as well.
            let digits = byte.len() == 2 && byte.bytes().all(|digit| digit.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(byte, 16).ok()).flatten()
        })
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    bytes.try_into().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_addresses_or_refused() {
        assert_eq!(mac("02:00:00:00:0a:FF").unwrap(), [2, 0, 0, 0, 10, 255]);
        assert_eq!(prefix("10.1.0.2/24").unwrap(), Prefix("10.1.0.2".parse().unwrap(), 24));
        for text in ["", "02:00:00:00:0a", "02:00:00:00:0a:+f", "02:00:00:00:0a:0ff", "02-00-00-00-0a-ff"] {
            assert!(mac(text).is_err(), "{text}");
        }
        for text in ["10.1.0.2", "10.1.0.2/33", "::1/129", "x/8", "10.1.0.2/-1", "/"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_the_kernel_would_refuse_is_refused_before() {
        let wanted = |name: &str| Interface {
            name: name.into(),
            mac: "02:00:00:00:00:01".into(),
            ..Interface::default()
        };
        assert!(Plan::new(&wanted("eth0")).is_ok());
        for name in ["", "a/b", "0123456789abcdef", "a b"] {
            assert!(Plan::new(&wanted(name)).is_err(), "{name}");
        }
    }
}
