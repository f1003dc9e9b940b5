//! Network devices: host interfaces moved into the container (`linux.netDevices`, runtime-spec 1.3), `lo`.
//!
//! Owns the move with rename, the addresses that go along, and the way back when a later step fails.
//! Makes no interfaces and no routes; that is the engine's or `locule-netns`' part.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::procfs::Proc;
use crate::spec;
use crate::sys::netlink::{self, Message, Request, Socket, u32_at};

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const FLAG_UP: u32 = libc::IFF_UP as u32;

/// An interface to move: name on the host, name inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    host: String,
    inside: String,
}

/// Checks `linux.netDevices`; `own_namespace` says that the container's network is not the runtime's.
pub fn plan(spec: &BTreeMap<String, spec::NetDevice>, own_namespace: bool) -> Result<Vec<Device>> {
    if !spec.is_empty() && !own_namespace {
        return Err(Error::invalid("linux.netDevices: the container has no network namespace of its own"));
    }
    let mut devices: Vec<Device> = Vec::with_capacity(spec.len());
    for (host, device) in spec {
        let inside = device.name.as_ref().filter(|name| !name.is_empty()).unwrap_or(host);
        for name in [host, inside] {
            if !valid_name(name) {
                return Err(Error::invalid(format!(
                    "linux.netDevices: {name:?} is not the name of an interface"
                ))
                .hint("1 to 15 bytes without `/`, `:` and blanks, not `.` or `..`"));
            }
        }
        if devices.iter().any(|other| other.inside == *inside) {
            return Err(Error::invalid(format!(
                "linux.netDevices: two interfaces would be named {inside:?}"
            )));
        }
        devices.push(Device { host: host.clone(), inside: inside.clone() });
    }
    Ok(devices)
}

/// As `dev_valid_name` of the kernel, and no `%`, which asks the kernel to choose a number.
fn valid_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name
            .contains(|c: char| matches!(c, '/' | ':' | '%' | '\0') || c.is_ascii_whitespace() || c == '\x0b')
}

/// Moves the devices from the caller's network namespace into `ns`, renamed, with their permanent
/// addresses of global scope, and sets them up.
///
/// Name and namespace change in one request, so that the host's name may be taken inside. If one
/// device fails, it and those before it are put back as they were. `proc_root` is a procfs handle of
/// the host; needs CAP_NET_ADMIN and CAP_SYS_ADMIN over both namespaces.
pub fn attach(devices: &[Device], ns: impl AsFd, proc: &Proc) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let home = netlink::own_namespace(proc.root().doing(|| "opening procfs")?)
        .doing(|| "opening the runtime's network namespace")?;
    let mut outer = Socket::open().doing(|| "opening a netlink socket")?;
    let mut inner = Socket::open_in(&ns, &home)
        .doing(|| "opening a netlink socket in the container's network namespace")?;
    for (index, device) in devices.iter().enumerate() {
        let Err((step, errno)) = move_in(&mut outer, &mut inner, &ns, &home, device) else { continue };
        for done in devices[..index].iter().rev() {
            let _ = Link::find(&mut inner, &done.inside)
                .map(|link| transfer(&mut inner, &mut outer, &home, &link, &done.host, true));
        }
        let text = format!("linux.netDevices: moving {} in as {}: {step}", device.host, device.inside);
        let error = Error::sys(errno, text);
        return Err(match errno {
            Errno::ENODEV if step == FINDING => error.hint("no such interface on the host"),
            Errno::EEXIST if step == MOVING => {
                error.hint("the container has an interface of that name already")
            }
            Errno::EINVAL if step == MOVING => {
                error.hint("this kind of interface cannot leave its network namespace")
            }
            _ => error,
        });
    }
    Ok(())
}

const FINDING: &str = "finding it";
const MOVING: &str = "changing its namespace";

/// Moves one device, and back again with what it had when a step after the move fails.
fn move_in(
    outer: &mut Socket,
    inner: &mut Socket,
    ns: impl AsFd,
    home: impl AsFd,
    device: &Device,
) -> std::result::Result<(), Failure> {
    let link = Link::find(outer, &device.host).map_err(|errno| (FINDING, errno))?;
    // The kernel moves first and renames then, so that a taken name would leave the device over
    // there under its old one (seen on 6.18).
    match Link::index(inner, &device.inside) {
        Err(Errno::ENODEV) => {}
        Ok(_) => return Err((MOVING, Errno::EEXIST)),
        Err(errno) => return Err((MOVING, errno)),
    }
    let result = transfer(outer, inner, ns, &link, &device.inside, true);
    if result.is_err() && Link::index(outer, &device.host) == Err(Errno::ENODEV) {
        for name in [&device.inside, &device.host] {
            if let Ok(index) = Link::index(inner, name) {
                let stray = Link { index, up: false, addresses: link.addresses };
                let _ = transfer(inner, outer, home, &stray, &device.host, link.up);
                break;
            }
        }
    }
    result
}

/// The step that failed, and how.
type Failure = (&'static str, Errno);

/// An interface as found in one namespace.
#[derive(Debug, Clone)]
struct Link {
    index: u32,
    up: bool,
    addresses: Vec<Address>,
}

impl Link {
    /// The index of the interface `name`; `ENODEV` when there is none.
    fn index(socket: &mut Socket, name: &str) -> nix::Result<u32> {
        u32_at(&Link::get(socket, name)?.payload, 4).ok_or(Errno::EBADMSG)
    }

    fn get(socket: &mut Socket, name: &str) -> nix::Result<Message> {
        socket.get(Request::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0, 0)).text(IFLA_IFNAME, name))
    }

    fn find(socket: &mut Socket, name: &str) -> nix::Result<Link> {
        let message = Link::get(socket, name)?;
        let index = u32_at(&message.payload, 4).ok_or(Errno::EBADMSG)?;
        let flags = u32_at(&message.payload, 8).ok_or(Errno::EBADMSG)?;
        // Before the interface is taken down, which alone removes IPv6 addresses.
        let list = socket.dump(&Request::new(libc::RTM_GETADDR, 0, &[0; IFADDR]))?;
        let addresses = list.iter().filter_map(|message| Address::parse(message, index)).collect();
        Ok(Link { index, up: flags & FLAG_UP != 0, addresses })
    }
}

/// A permanent address of global scope.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    address: Vec<u8>,
    local: Option<Vec<u8>>,
    broadcast: Option<Vec<u8>>,
}

impl Address {
    /// Dynamic addresses and those of a narrower scope stay behind: they belong to the host's network.
    fn parse(message: &Message, index: u32) -> Option<Address> {
        let body = &message.payload;
        let [family, prefix, flags, scope] = *body.first_chunk::<4>()?;
        if message.kind != libc::RTM_NEWADDR || u32_at(body, 4)? != index || scope != libc::RT_SCOPE_UNIVERSE
        {
            return None;
        }
        let find =
            |kind: u16| message.attrs(IFADDR).find(|(found, _)| *found == kind).map(|(_, value)| value);
        let flags = find(IFA_FLAGS).and_then(|value| u32_at(value, 0)).unwrap_or(u32::from(flags));
        if flags & IFA_F_PERMANENT == 0 {
            return None;
        }
        Some(Address {
            family,
            prefix,
            flags: flags & (IFA_F_NODAD | IFA_F_NOPREFIXROUTE),
            address: find(IFA_ADDRESS)?.to_vec(),
            local: find(IFA_LOCAL).map(<[u8]>::to_vec),
            broadcast: find(IFA_BROADCAST).map(<[u8]>::to_vec),
        })
    }

    fn request(&self, index: u32) -> Request {
        let mut body = [self.family, self.prefix, 0, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
        body[4..].copy_from_slice(&index.to_ne_bytes());
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let mut request = Request::new(libc::RTM_NEWADDR, flags, &body)
            .attr(IFA_ADDRESS, &self.address)
            .attr(IFA_FLAGS, &self.flags.to_ne_bytes());
        for (kind, value) in [(IFA_LOCAL, &self.local), (IFA_BROADCAST, &self.broadcast)] {
            if let Some(value) = value {
                request = request.attr(kind, value);
            }
        }
        request
    }
}

/// Down, over with the new name, addresses again, up; a failure says at which step.
fn transfer(
    from: &mut Socket,
    to: &mut Socket,
    ns: impl AsFd,
    link: &Link,
    name: &str,
    up: bool,
) -> std::result::Result<(), Failure> {
    let down = Request::new(libc::RTM_NEWLINK, 0, &ifinfo(link.index, 0, FLAG_UP));
    from.call(down).map_err(|errno| (MOVING, errno))?;
    let over = Request::new(libc::RTM_NEWLINK, 0, &ifinfo(link.index, 0, 0))
        .text(IFLA_IFNAME, name)
        .attr(IFLA_NET_NS_FD, &ns.as_fd().as_raw_fd().to_ne_bytes());
    if let Err(errno) = from.call(over) {
        if link.up {
            let _ = from.call(Request::new(libc::RTM_NEWLINK, 0, &ifinfo(link.index, FLAG_UP, FLAG_UP)));
        }
        return Err((MOVING, errno));
    }
    // The index may be another one over there.
    let index = Link::index(to, name).map_err(|errno| ("finding it inside", errno))?;
    for address in &link.addresses {
        to.call(address.request(index)).map_err(|errno| ("adding its addresses", errno))?;
    }
    if up {
        let up = Request::new(libc::RTM_NEWLINK, 0, &ifinfo(index, FLAG_UP, FLAG_UP));
        to.call(up).map_err(|errno| ("setting it up", errno))?;
    }
    Ok(())
}

/// `struct ifinfomsg`.
fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut body = [0; IFINFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// Sets `lo` of the caller's network namespace up.
pub fn loopback_up() -> Result<()> {
    netlink::set_up("lo").doing(|| "setting the interface lo up")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(host: &str, inside: Option<&str>) -> Result<Vec<Device>> {
        let device = spec::NetDevice { name: inside.map(String::from) };
        plan(&BTreeMap::from([(host.to_owned(), device)]), true)
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(one("eth0", None).unwrap()[0].inside, "eth0");
        assert_eq!(one("eth0", Some("")).unwrap()[0].inside, "eth0");
        assert_eq!(one("eth0.100", Some("lan-0123456789a")).unwrap()[0].inside, "lan-0123456789a");
        for name in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\0b", "a%d", "0123456789abcdef"] {
            assert!(one(name, Some("ok")).is_err(), "{name:?}");
            assert!(name.is_empty() || one("ok", Some(name)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_namespace_and_different_names_are_needed() {
        let device = |name: &str| spec::NetDevice { name: Some(name.into()) };
        let two = BTreeMap::from([("a".to_owned(), device("x")), ("b".to_owned(), device("x"))]);
        assert!(plan(&two, true).unwrap_err().to_string().contains("would be named \"x\""));
        assert!(plan(&two, false).unwrap_err().to_string().contains("no network namespace"));
        assert!(plan(&BTreeMap::new(), false).unwrap().is_empty());
    }

    #[test]
    fn only_permanent_global_addresses_go_along() {
        let message = |flags: u8, scope: u8, index: u32| {
            let mut payload = vec![2, 24, flags, scope];
            payload.extend_from_slice(&index.to_ne_bytes());
            payload.extend_from_slice(&[8, 0, 1, 0, 10, 0, 0, 1]);
            Message { kind: libc::RTM_NEWADDR, payload }
        };
        assert!(Address::parse(&message(0x80, 0, 5), 5).is_some());
        assert!(Address::parse(&message(0x80, 0, 6), 5).is_none(), "another interface");
        assert!(Address::parse(&message(0, 0, 5), 5).is_none(), "dynamic");
        assert!(Address::parse(&message(0x80, 253, 5), 5).is_none(), "link scope");
        let cut = Message { kind: libc::RTM_NEWADDR, payload: vec![2, 24] };
        assert!(Address::parse(&cut, 5).is_none());
    }
}
