//! Published ports: reading `[ADDRESS:]HOST[-HOST]:INNER[-INNER][/PROTOCOL]`, and who has a port already.
//!
//! Pure data, but for the look whether a process of the host listens on a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP.
    pub fn number(self) -> u8 {
        (match self {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
            Protocol::Sctp => libc::IPPROTO_SCTP,
        }) as u8
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Ports of the host that lead to ports of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The host's address; without it all of both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The first port of the host.
    pub host: u16,
    /// The first port of the container.
    pub inner: u16,
    /// How many.
    #[serde(default = "one")]
    pub count: u16,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

fn one() -> u16 {
    1
}

impl Publish {
    /// Pairs of the host's and the container's port.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, u16)> + use<> {
        let (host, inner) = (self.host, self.inner);
        (0..self.count).map(move |n| (host + n, inner + n))
    }

    /// Whether it reaches containers by addresses of this family.
    pub fn covers(&self, ipv4: bool) -> bool {
        self.address.is_none_or(|address| address.is_ipv4() == ipv4)
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        let span = |first: u16| match self.count {
            1 => first.to_string(),
            more => format!("{first}-{}", first + (more - 1)),
        };
        write!(f, "{}:{}/{}", span(self.host), span(self.inner), self.protocol.word())
    }
}

impl FromStr for Publish {
    type Err = Error;

    fn from_str(text: &str) -> Result<Publish> {
        let wrong = |why: &str| {
            Error::invalid(format!("the published port {text:?}: {why}"))
                .hint("[ADDRESS:]HOSTPORT:PORT[/PROTOCOL], as 8080:80/tcp, 127.0.0.1:53:53/udp, 9000-9009:9000-9009")
        };
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((ports, "sctp")) => (ports, Protocol::Sctp),
            Some(_) => return Err(wrong("the protocol is tcp, udp or sctp")),
        };
        let (front, inner) = ports.rsplit_once(':').ok_or_else(|| wrong("no colon"))?;
        let (address, host) = match front.rsplit_once(':') {
            None => (None, front),
            Some((address, host)) => (Some(address), host),
        };
        let address = match address {
            None | Some("") => None,
            Some(text) => {
                let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
                Some(bare.parse::<IpAddr>().map_err(|_| wrong("the address of the host is none"))?)
            }
        };
        if let Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) = address {
            return Err(wrong("the kernel does not translate ::1: publish on 127.0.0.1 or another address"));
        }
        let address = address.filter(|address| !address.is_unspecified() || address.is_ipv6());
        let address = match address {
            // 0.0.0.0 and [::] stand for all addresses of their family; the former is asked for far
            // more often, and both families are then meant by leaving the address out.
            Some(IpAddr::V6(any)) if any.is_unspecified() => Some(IpAddr::V6(any)),
            None if front.starts_with("0.0.0.0:") => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            other => other,
        };
        let span = |text: &str| -> Option<(u16, u16)> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (first > 0 && first <= last).then_some((first, last))
        };
        let (host_first, host_last) = span(host).ok_or_else(|| wrong("the port of the host is none"))?;
        let (first, last) = span(inner).ok_or_else(|| wrong("the port of the container is none"))?;
        if host_last - host_first != last - first {
            return Err(wrong("the two ranges differ in length"));
        }
        let count = (last - first).checked_add(1).ok_or_else(|| wrong("too many ports"))?;
        Ok(Publish { address, host: host_first, inner: first, count, protocol })
    }
}

/// The addresses that a port is claimed on: one, or all of each family.
pub fn claimed_addresses(publish: &Publish) -> Vec<IpAddr> {
    match publish.address {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// Whether a port cannot be had on both.
pub fn conflict(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

/// Whether a process of the host has the port: its packets would go to the container instead.
pub fn host_has(publish: &Publish, port: u16) -> bool {
    let addresses = match publish.address {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    };
    let in_use =
        |result: std::io::Result<()>| result.is_err_and(|err| err.raw_os_error() == Some(libc::EADDRINUSE));
    addresses.into_iter().any(|address| {
        let at = SocketAddr::new(address, port);
        match publish.protocol {
            Protocol::Tcp => in_use(TcpListener::bind(at).map(drop)),
            Protocol::Udp => in_use(UdpSocket::bind(at).map(drop)),
            Protocol::Sctp => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_and_printed() {
        for (text, printed) in [
            ("8080:80", "8080:80/tcp"),
            ("127.0.0.1:53:53/udp", "127.0.0.1:53:53/udp"),
            ("[fd00::1]:1:2/sctp", "[fd00::1]:1:2/sctp"),
            ("9000-9009:8000-8009", "9000-9009:8000-8009/tcp"),
            ("0.0.0.0:80:80", "0.0.0.0:80:80/tcp"),
            ("1-65535:1-65535", "1-65535:1-65535/tcp"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), printed);
        }
        for text in ["", "80", "0:80", "80:0", "8:9/x", "1-2:1-3", "2-1:2-1", "x:1:1", "70000:1", "[::1]:8:8"]
        {
            assert!(text.parse::<Publish>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_addresses_conflict_with_each_of_their_family() {
        let conflict = |one: &str, other: &str| conflict(one.parse().unwrap(), other.parse().unwrap());
        assert!(conflict("0.0.0.0", "10.0.0.1"));
        assert!(conflict("fd00::1", "::"));
        assert!(!conflict("0.0.0.0", "::"));
        assert!(!conflict("10.0.0.1", "10.0.0.2"));
    }
}
