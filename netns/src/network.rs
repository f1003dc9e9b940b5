//! Networks as their owner defined them: one JSON file each in a directory of the host.
//!
//! Owns the files' form and what may stand in them. Knows nothing of containers or the kernel's state.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::{Cidr, digest};
use crate::error::{Context, Error, Kind as ErrorKind, Result};
use crate::rate::Total;
use crate::sys::file;

/// Version of the files' form.
pub const VERSION: u32 = 1;

/// How containers are wired to a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A bridge of the host, with NAT to the outside.
    #[default]
    Bridge,
    /// Routes of the host, without a common layer 2.
    Routed,
    /// Own hardware addresses on an interface of the host.
    Macvlan,
    /// Own addresses on an interface of the host, whose hardware address is shared.
    Ipvlan,
    /// An interface of the host, moved in and back.
    Device,
    /// What a CNI configuration list says.
    Cni,
    /// Loopback alone.
    None,
    /// The host's own.
    Host,
}

impl Kind {
    /// All kinds that a definition can have, with their words.
    pub const WORDS: &[(&str, Kind)] = &[
        ("bridge", Kind::Bridge),
        ("routed", Kind::Routed),
        ("macvlan", Kind::Macvlan),
        ("ipvlan", Kind::Ipvlan),
        ("device", Kind::Device),
        ("cni", Kind::Cni),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Host => "host",
            _ => Kind::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word),
        }
    }
}

/// A range of addresses of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// The subnet.
    pub subnet: Cidr,
    /// The router of containers: the host, but for macvlan and ipvlan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// First and last address that are given out; without it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(IpAddr, IpAddr)>,
}

impl Subnet {
    /// First and last offset that are given out.
    pub fn pool(&self) -> (u128, u128) {
        let (low, high) = self.subnet.usable();
        let offset = |address| self.subnet.offset(address);
        match self.range {
            Some((first, last)) => (
                offset(first).map_or(low, |first| first.max(low)),
                offset(last).map_or(high, |last| last.min(high)),
            ),
            None => (low, high),
        }
    }
}

/// A route of the containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTo {
    /// Where to.
    pub to: Cidr,
    /// By which router; without it the network's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Version of the form.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// How containers are wired.
    pub kind: Kind,
    /// The bridge's interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The host's interface under macvlan, ipvlan, device, and the one that `routed` answers on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The mode of macvlan or ipvlan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Its addresses.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Largest packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether packets leave under the host's address.
    #[serde(default = "yes")]
    pub nat: bool,
    /// Whether containers reach each other only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Whether senders' addresses are checked.
    #[serde(default = "yes")]
    pub guard: bool,
    /// What all its containers together receive and send at most.
    #[serde(default, skip_serializing_if = "Total::is_none")]
    pub total: Total,
    /// Routes beside the default one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteTo>,
    /// Interfaces that lead outside; without any, those of the host's default routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<String>,
    /// Name servers of containers; without any, the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Search domains of containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Addresses that are kept for a container, whether it runs or not.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<IpAddr, String>,
    /// The CNI configuration list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflist: Option<PathBuf>,
    /// Whatever the owner wants to remember.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// A network of `kind` with nothing decided.
    pub fn new(name: &str, kind: Kind) -> Network {
        Network {
            version: VERSION,
            name: name.to_owned(),
            kind,
            bridge: None,
            parent: None,
            mode: None,
            subnets: Vec::new(),
            mtu: None,
            nat: true,
            internal: false,
            guard: true,
            total: Total::default(),
            routes: Vec::new(),
            uplinks: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            reserved: BTreeMap::new(),
            conflist: None,
            labels: BTreeMap::new(),
        }
    }

    /// The bridge's name: what the definition says, else one made from the network's.
    pub fn bridge_name(&self) -> String {
        match &self.bridge {
            Some(name) => name.clone(),
            None if self.name.len() <= 12 => format!("lb-{}", self.name),
            None => format!("lb-{:012x}", digest(&[&self.name]) >> 16),
        }
    }

    /// Who an address is kept for, if it is somebody else than `container`.
    pub fn reserved_for_another(&self, address: IpAddr, container: &str) -> Option<&str> {
        self.reserved.get(&address).map(String::as_str).filter(|holder| *holder != container)
    }

    /// Refuses an address that no container of this network can have; returns its subnet.
    pub fn check_address(&self, address: IpAddr) -> Result<&Subnet> {
        let Some(subnet) = self.subnets.iter().find(|subnet| subnet.subnet.contains(address)) else {
            let all: Vec<_> = self.subnets.iter().map(|subnet| subnet.subnet.to_string()).collect();
            return Err(Error::invalid(format!(
                "the address {address} is not in network {}: it has {}",
                self.name,
                all.join(", ")
            )));
        };
        let (low, high) = subnet.subnet.usable();
        let usable = subnet.subnet.offset(address).is_some_and(|offset| (low..=high).contains(&offset));
        if subnet.gateway == Some(address) || !usable {
            return Err(Error::taken(format!(
                "the address {address} of network {} is its gateway, or the network's own",
                self.name
            )));
        }
        Ok(subnet)
    }

    /// Refuses what cannot work, naming field and value.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::invalid(format!("network {}: {text}", self.name)));
        check_name(&self.name)?;
        if self.version != VERSION {
            return wrong(format!("version {} is not known", self.version));
        }
        for name in self.bridge.iter().chain(&self.parent).chain(&self.uplinks) {
            check_interface(name)?;
        }
        let needs_parent = matches!(self.kind, Kind::Macvlan | Kind::Ipvlan | Kind::Device);
        if needs_parent && self.parent.is_none() {
            return wrong(format!("{} needs the host's interface: give --parent", self.kind.word()));
        }
        if (self.kind == Kind::Cni) != self.conflist.is_some() {
            return wrong("a CNI configuration list goes with the kind cni, and with no other".into());
        }
        if matches!(self.kind, Kind::Bridge | Kind::Routed) && self.subnets.is_empty() {
            return wrong("it has no subnet".into());
        }
        if self.kind == Kind::Cni && !self.subnets.is_empty() {
            return wrong("the addresses of a CNI network stand in its configuration list".into());
        }
        if self.mode.is_some() && self.mode_number().is_none() {
            return wrong(format!("mode {:?} is not known", self.mode.as_deref().unwrap_or_default()));
        }
        if self.mtu.is_some_and(|mtu| !(68..=65_535).contains(&mtu)) {
            return wrong("an MTU is between 68 and 65535".into());
        }
        if !self.total.is_none() && !matches!(self.kind, Kind::Bridge | Kind::Routed) {
            return wrong(format!("{} has no rate of its own", self.kind.word()));
        }
        for (number, subnet) in self.subnets.iter().enumerate() {
            let Subnet { subnet: net, gateway, range } = subnet;
            if !net.is_subnet() {
                let meant = Cidr { address: net.first(), prefix: net.prefix };
                return wrong(format!("{net} has bits behind its prefix: {meant} is meant?"));
            }
            if self.subnets[..number].iter().any(|other| other.subnet.overlaps(net)) {
                return wrong(format!("{net} is in another of its subnets"));
            }
            if let Some(gateway) = gateway.filter(|gateway| !net.contains(*gateway)) {
                return wrong(format!("the gateway {gateway} is not in {net}"));
            }
            if let Some((first, last)) = range
                && (!net.contains(*first) || !net.contains(*last) || first > last)
            {
                return wrong(format!("the range {first}-{last} is not in {net}"));
            }
        }
        for route in &self.routes {
            if !route.to.is_subnet() {
                return wrong(format!("the route to {} has bits behind its prefix", route.to));
            }
        }
        Ok(())
    }

    /// The kernel's number of the macvlan's or ipvlan's mode.
    pub fn mode_number(&self) -> Option<u32> {
        match (self.kind, self.mode.as_deref()) {
            (Kind::Macvlan, None | Some("bridge")) => Some(4),
            (Kind::Macvlan, Some("private")) => Some(1),
            (Kind::Macvlan, Some("vepa")) => Some(2),
            (Kind::Ipvlan, None | Some("l2")) => Some(0),
            (Kind::Ipvlan, Some("l3")) => Some(1),
            (Kind::Ipvlan, Some("l3s")) => Some(2),
            _ => None,
        }
    }
}

/// Refuses what is no name of a network or a container.
pub fn check_name(name: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+');
    if name.is_empty() || name.len() > 128 || !name.bytes().all(good) || name.starts_with(['.', '-']) {
        return Err(Error::invalid(format!("{name:?} is no name"))
            .hint("letters, digits, and - _ . + behind the first; at most 128"));
    }
    if matches!(name, "none" | "host") {
        return Err(Error::invalid(format!("{name:?} is the name of a kind")));
    }
    Ok(())
}

/// Refuses what is no name of an interface.
pub fn check_interface(name: &str) -> Result<()> {
    if name.is_empty()
        || name.len() > 15
        || name.starts_with('.')
        || !name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
    {
        return Err(Error::invalid(format!("{name:?} is no name of an interface: one to fifteen letters")));
    }
    Ok(())
}

/// The directory of definitions.
#[derive(Debug, Clone)]
pub struct Definitions {
    dir: PathBuf,
}

impl Definitions {
    /// The definitions in `dir`, which need not be there yet.
    pub fn new(dir: &Path) -> Definitions {
        Definitions { dir: dir.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Names of all networks.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(file::names(&self.dir)?
            .into_iter()
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .collect())
    }

    /// The network called `name`.
    pub fn load(&self, name: &str) -> Result<Network> {
        if let "none" | "host" = name {
            let kind = if name == "none" { Kind::None } else { Kind::Host };
            return Ok(Network::new(name, kind));
        }
        check_name(name)?;
        let path = self.path(name);
        let text = file::read(&path)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no network {name:?}"))
                .hint("`locule network ls` lists them, `locule network create` makes one")
        })?;
        let network: Network =
            serde_json::from_slice(&text).doing(|| format!("reading {}", path.display()))?;
        if network.name != name {
            return Err(Error::invalid(format!("{} defines network {:?}", path.display(), network.name)));
        }
        network.check()?;
        Ok(network)
    }

    /// All networks.
    pub fn all(&self) -> Result<Vec<Network>> {
        self.names()?.iter().map(|name| self.load(name)).collect()
    }

    /// Writes a new network, which must not overlap another's subnets; `lock` is held by the caller.
    pub fn create(&self, network: &Network) -> Result<()> {
        network.check()?;
        let path = self.path(&network.name);
        if path.exists() {
            return Err(Error::taken(format!("network {:?} exists", network.name)));
        }
        for other in self.all()? {
            if network.kind == Kind::Bridge
                && other.kind == Kind::Bridge
                && other.bridge_name() == network.bridge_name()
            {
                return Err(Error::taken(format!(
                    "the bridge {} belongs to network {:?}",
                    network.bridge_name(),
                    other.name
                )));
            }
            for subnet in &network.subnets {
                if let Some(theirs) =
                    other.subnets.iter().find(|theirs| theirs.subnet.overlaps(&subnet.subnet))
                {
                    return Err(Error::taken(format!(
                        "the subnet {} overlaps {} of network {:?}",
                        subnet.subnet, theirs.subnet, other.name
                    )));
                }
            }
        }
        self.write(network)
    }

    /// Writes a definition, in place of the one that is there.
    pub fn write(&self, network: &Network) -> Result<()> {
        network.check()?;
        file::make_dir(&self.dir)?;
        let text = serde_json::to_vec_pretty(network).doing(|| "encoding the network")?;
        file::replace_durably(&self.path(&network.name), &text)
    }

    /// Whether there is a network of that name.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Removes a definition.
    pub fn remove(&self, name: &str) -> Result<()> {
        file::remove(&self.path(name))
    }
}

/// A subnet of private IPv4 addresses that overlaps none of `taken`.
pub fn free_subnet4(taken: &[Cidr]) -> Result<Cidr> {
    for second in 130..=254u8 {
        for third in 0..=255u8 {
            let subnet = Cidr { address: IpAddr::from([10, second, third, 0]), prefix: 24 };
            if !taken.iter().any(|other| other.prefix > 0 && other.overlaps(&subnet)) {
                return Ok(subnet);
            }
        }
    }
    Err(Error::taken("every subnet from 10.130.0.0/24 to 10.254.255.0/24 is in use").hint("give --subnet"))
}

/// A random subnet of unique local IPv6 addresses (RFC 4193).
pub fn free_subnet6() -> Result<Cidr> {
    let mut octets = [0u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut octets[1..8]))
        .doing(|| "reading /dev/urandom")?;
    octets[0] = 0xfd;
    Ok(Cidr { address: Ipv6Addr::from(octets).into(), prefix: 64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(subnet: &str) -> Network {
        let subnet = Subnet { subnet: subnet.parse().unwrap(), gateway: None, range: None };
        Network { subnets: vec![subnet], ..Network::new("web", Kind::Bridge) }
    }

    #[test]
    fn definitions_are_checked() {
        bridge("10.1.2.0/24").check().unwrap();
        let told = |network: &Network| network.check().unwrap_err().to_string();
        assert!(told(&bridge("10.1.2.3/24")).contains("10.1.2.0/24 is meant"));
        let mut network = bridge("10.1.2.0/24");
        network.subnets[0].gateway = "10.1.3.1".parse().ok();
        assert!(told(&network).contains("10.1.3.1"));
        network = bridge("10.1.2.0/24");
        network.subnets.push(network.subnets[0].clone());
        assert!(told(&network).contains("another"));
        assert!(told(&Network::new("x", Kind::Macvlan)).contains("--parent"));
        assert!(Network::new("../x", Kind::None).check().is_err());
        assert!(Network::new("host", Kind::None).check().is_err());
    }

    #[test]
    fn names_of_bridges_fit() {
        assert_eq!(bridge("10.1.2.0/24").bridge_name(), "lb-web");
        let long = Network::new("a-rather-long-name", Kind::Bridge).bridge_name();
        assert_eq!(long.len(), 15);
        check_interface(&long).unwrap();
    }

    #[test]
    fn a_free_subnet_avoids_all_others() {
        let taken = ["10.130.0.0/16".parse().unwrap(), "0.0.0.0/0".parse().unwrap()];
        assert_eq!(free_subnet4(&taken).unwrap().to_string(), "10.131.0.0/24");
        assert!(free_subnet4(&["10.0.0.0/8".parse().unwrap()]).is_err());
        assert_ne!(free_subnet6().unwrap(), free_subnet6().unwrap());
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text = r#"{"version":1,"name":"x","kind":"bridge","subnet":[]}"#;
        assert!(serde_json::from_str::<Network>(text).is_err());
    }
}
