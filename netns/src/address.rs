//! Addresses, subnets and hardware addresses: reading, printing, arithmetic.
//!
//! Pure data; touches nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address; of a subnet, its first.
    pub address: IpAddr,
    /// Length of the prefix.
    pub prefix: u8,
}

/// An address as a number of its family's width.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The address with that number, in the family of `like`.
fn address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// Bytes of an address in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl Cidr {
    /// The address alone: /32 or /128.
    pub fn host(address: IpAddr) -> Cidr {
        Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    fn width(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn hosts_mask(&self) -> u128 {
        match self.width() - self.prefix {
            0 => 0,
            bits => u128::MAX >> (128 - u32::from(bits)),
        }
    }

    /// The first address of the subnet.
    pub fn first(&self) -> IpAddr {
        address(self.address, number(self.address) & !self.hosts_mask())
    }

    /// The last address of the subnet.
    pub fn last(&self) -> IpAddr {
        address(self.address, number(self.address) | self.hosts_mask())
    }

    /// Whether it is written as a subnet: no bits behind the prefix.
    pub fn is_subnet(&self) -> bool {
        self.first() == self.address
    }

    /// Whether the address lies in the subnet.
    pub fn contains(&self, other: IpAddr) -> bool {
        other.is_ipv4() == self.address.is_ipv4() && self.first() <= other && other <= self.last()
    }

    /// Whether two subnets share an address.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }

    /// The address `offset` after the first, if it is in the subnet.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        let number = number(self.first()).checked_add(offset)?;
        (number <= self::number(self.last())).then(|| address(self.address, number))
    }

    /// Where in the subnet an address stands.
    pub fn offset(&self, of: IpAddr) -> Option<u128> {
        self.contains(of).then(|| number(of) - number(self.first()))
    }

    /// First and last offset that can be given to an interface: neither the network's nor, in
    /// IPv4, the broadcast's, unless the subnet is too small to have any.
    pub fn usable(&self) -> (u128, u128) {
        let size = number(self.last()) - number(self.first());
        match (self.address, size) {
            (_, 0 | 1) => (0, size),
            (IpAddr::V4(_), _) => (1, size - 1),
            (IpAddr::V6(_), _) => (1, size),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Cidr> {
        let wrong = || Error::invalid(format!("{text:?} is no address with a prefix such as 10.1.2.0/24"));
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        if prefix > Cidr::host(address).prefix {
            return Err(wrong());
        }
        Ok(Cidr { address, prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;

    fn try_from(text: String) -> Result<Cidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

/// The hardware address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A locally administered unicast address that `seed` decides.
    pub fn from_seed(seed: u64) -> Mac {
        let bytes = seed.to_be_bytes();
        Mac([(bytes[0] & 0xfc) | 0x02, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]])
    }

    /// The link-local address that an interface with this address gives itself (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfe, 0x80]);
        octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        octets.into()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Mac> {
        let wrong = || Error::invalid(format!("{text:?} is no hardware address such as 02:00:00:00:00:01"));
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() || bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(wrong().hint("it must be a unicast address"));
        }
        Ok(Mac(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Mac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

/// A stable 64-bit digest of texts (FNV-1a, finished as splitmix64 does); for names, not for secrets.
pub fn digest(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_count_and_overlap() {
        let net: Cidr = "10.1.2.0/24".parse().unwrap();
        assert_eq!(net.last().to_string(), "10.1.2.255");
        assert_eq!(net.usable(), (1, 254));
        assert_eq!(net.nth(254).map(|a| a.to_string()).as_deref(), Some("10.1.2.254"));
        assert_eq!(net.nth(256), None);
        assert_eq!(net.offset("10.1.2.7".parse().unwrap()), Some(7));
        assert!(net.overlaps(&"10.1.0.0/16".parse().unwrap()));
        assert!(!net.overlaps(&"10.1.3.0/24".parse().unwrap()));
        assert!(!net.overlaps(&"fd00::/64".parse().unwrap()));
        let all: Cidr = "::/0".parse().unwrap();
        assert!(all.contains("fe80::1".parse().unwrap()) && all.is_subnet());
        assert!(!"10.1.2.3/24".parse::<Cidr>().unwrap().is_subnet());
        assert_eq!("10.0.0.4/31".parse::<Cidr>().unwrap().usable(), (0, 1));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/-1", "x/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        for text in ["", "02:00:00:00:00", "01:00:00:00:00:00", "00:00:00:00:00:00", "2:0:0:0:0:1"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn link_local_follows_the_hardware_address() {
        let mac: Mac = "02:11:22:33:44:55".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::11:22ff:fe33:4455");
        assert_eq!(Mac::from_seed(u64::MAX).0[0] & 3, 2);
    }
}
