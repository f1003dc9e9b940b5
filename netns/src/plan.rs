//! What an attachment will be: names, addresses and ports chosen and claimed, before anything of the kernel is touched.
//!
//! Refuses all that can be refused. Claims are the only thing it leaves, and its caller releases them on failure.

use std::net::IpAddr;

use crate::address::{Cidr, Mac, digest};
use crate::claim::{Claimant, Claimed};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::link::Links;
use crate::network::{Kind, Network, Subnet, check_interface};
use crate::networks::{Attachment, Networks};
use crate::nft::schema;
use crate::rate::{Rate, Rates, Way};
use crate::record::{Record, Wired};
use crate::wire;

impl Networks {
    /// Decides everything about the wanted interfaces and claims what they need.
    pub(crate) fn plan(
        &self,
        record: &mut Record,
        wanted: &[Attachment],
        claimed: &mut Claimed,
    ) -> Result<Vec<Network>> {
        let classes = self.classes()?.count();
        let container = record.container.clone();
        let lives = |holder: &str| self.lives(holder);
        let own = record.interfaces.iter().flat_map(|wired| wired.claims.clone()).collect();
        let by = Claimant { container: &container, own: &own, lives: &lives };
        let mut networks = Vec::new();
        for attachment in wanted {
            let network = self.wanted(&attachment.network)?;
            if network.kind == Kind::Host {
                return Err(Error::invalid(
                    "the host's network is joined at creation, by a container without a network namespace",
                ));
            }
            if record.interfaces.iter().any(|wired| wired.network == network.name) {
                return Err(Error::taken(format!(
                    "container {container:?} is on network {} already",
                    network.name
                )));
            }
            let at = claimed.len();
            let mut wired = self.choose(&network, attachment, record, &by, claimed)?;
            wired.classes = classes;
            wired.claims = claimed[at..].to_vec();
            if network.kind != Kind::None {
                record.interfaces.push(wired);
                networks.push(network);
            }
        }
        Ok(networks)
    }

    fn choose(
        &self,
        network: &Network,
        wanted: &Attachment,
        record: &Record,
        by: &Claimant<'_>,
        claimed: &mut Claimed,
    ) -> Result<Wired> {
        let refuse = |what: &str| {
            Err(Error::invalid(format!(
                "{what} on network {}: a network of kind {} has none",
                network.name,
                network.kind.word()
            )))
        };
        let on_host = matches!(network.kind, Kind::Bridge | Kind::Routed);
        if !on_host && (wanted.firewall || network.kind != Kind::Cni && !wanted.rates.is_unlimited()) {
            return refuse("a firewall or a limit");
        }
        if !on_host && network.kind != Kind::Cni && !wanted.ports.is_empty() {
            return refuse("a published port");
        }
        if network.internal && !wanted.ports.is_empty() {
            return Err(Error::invalid(format!(
                "publishing ports of network {}: it is internal",
                network.name
            )));
        }
        let interface = match &wanted.interface {
            Some(name) => name.clone(),
            None => (0..)
                .map(|number| format!("eth{number}"))
                .find(|name| record.interfaces.iter().all(|wired| wired.interface != *name))
                .unwrap_or_default(),
        };
        check_interface(&interface)?;
        wanted.rates.check()?;
        self.check_guarantee(network, by.container, wanted.rates)?;
        if record.interfaces.iter().any(|wired| wired.interface == interface) {
            return Err(Error::taken(format!(
                "container {:?} has an interface {interface} already",
                by.container
            )));
        }
        let seed = digest(&[by.container, &network.name]);
        let host = match network.kind {
            Kind::Bridge | Kind::Routed => format!("{}{:011x}", schema::END, seed >> 20),
            Kind::Device => network.parent.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let mac = match (network.kind, wanted.mac) {
            (Kind::Device | Kind::Ipvlan | Kind::None, Some(_)) => {
                return refuse("a hardware address of its own");
            }
            (Kind::Bridge | Kind::Routed | Kind::Macvlan, None) => Some(Mac::from_seed(seed)),
            (_, given) => given,
        };
        if let (Kind::Bridge | Kind::Macvlan, Some(mac)) = (network.kind, mac) {
            self.claims.mac(&network.name, mac, by, claimed)?;
        }
        if network.kind == Kind::Device {
            self.claims.device(&host, by, claimed)?;
        }
        let slot = match network.total.is_none() {
            true => None,
            false => Some(self.claims.slot(&network.name, (seed >> 48) as u16, by, claimed)?),
        };
        let addresses = match network.kind {
            Kind::Cni => wanted.addresses.iter().copied().map(Cidr::host).collect(),
            _ => self.addresses(network, wanted, by, claimed)?,
        };
        let wired = Wired {
            network: network.name.clone(),
            kind: network.kind,
            bridge: (network.kind == Kind::Bridge).then(|| network.bridge_name()),
            host,
            interface,
            mac,
            addresses,
            guard: network.guard && network.kind == Kind::Bridge,
            firewall: wanted.firewall,
            classes: 0,
            ports: wanted.ports.clone(),
            names: wanted.names.clone(),
            rates: wanted.rates,
            slot,
            moved: match network.kind {
                Kind::Device => Links::own()?.find(&network.parent.clone().unwrap_or_default())?,
                _ => None,
            }
            .filter(|link| link.kind.is_empty())
            .and_then(|link| link.mac),
            parent: network.parent.clone(),
            cni: (network.kind == Kind::Cni).then(|| crate::cni::plan(network, wanted)).transpose()?,
            claims: Vec::new(),
        };
        if network.kind != Kind::Cni {
            wire::check_ports(&wired)?;
            for publish in &wired.ports {
                self.claims.port(publish, by, claimed)?;
            }
        }
        Ok(wired)
    }

    /// Refuses a guarantee that the network cannot keep: it has no rate, or has promised it to others.
    pub(crate) fn check_guarantee(&self, network: &Network, container: &str, rates: Rates) -> Result<()> {
        for way in Way::ALL {
            let (least, total) = (rates.least(way), network.total.of(way));
            if least.is_none() {
                continue;
            }
            let word = way.word();
            if total.is_none() {
                return Err(Error::invalid(format!(
                    "{word}: {least} cannot be guaranteed: a guarantee is a part of the network's rate, and {} has none",
                    network.name
                ))
                .hint(format!("`locule network set --{word} RATE {}` gives it one", network.name)));
            }
            let others: u64 = self.guaranteed(&network.name, Some(container), way)?;
            if least.0 + others > total.0 {
                return Err(Error::taken(format!(
                    "{word}: {least} of network {}'s {total} cannot be guaranteed: {} are promised to others",
                    network.name,
                    Rate(others)
                )));
            }
        }
        Ok(())
    }

    /// What living containers but one have been promised of a network's rate.
    pub(crate) fn guaranteed(&self, network: &str, but: Option<&str>, way: Way) -> Result<u64> {
        let mut sum = 0;
        for record in self.records.all()?.iter().filter(|record| Some(record.container.as_str()) != but) {
            let promised: u64 = record
                .interfaces
                .iter()
                .filter(|wired| wired.network == network)
                .map(|wired| wired.rates.least(way).0)
                .sum();
            if promised > 0 && record.owner.lives() {
                sum += promised;
            }
        }
        Ok(sum)
    }

    /// One address of each of the network's families, as asked for or the next free one.
    fn addresses(
        &self,
        network: &Network,
        wanted: &Attachment,
        by: &Claimant<'_>,
        claimed: &mut Claimed,
    ) -> Result<Vec<Cidr>> {
        let prefix = |subnet: &Subnet, address: IpAddr| match network.kind {
            Kind::Routed => Cidr::host(address),
            _ => Cidr { address, prefix: subnet.subnet.prefix },
        };
        let mut addresses = Vec::new();
        for address in &wanted.addresses {
            let subnet = network.check_address(*address)?;
            if let Some(holder) = network.reserved_for_another(*address, by.container) {
                return Err(Error::taken(format!(
                    "the address {address} of network {} is kept for container {holder:?}",
                    network.name
                )));
            }
            self.claims.address(&network.name, *address, by, claimed)?;
            addresses.push(prefix(subnet, *address));
        }
        for ipv4 in [true, false] {
            let mut subnets = network.subnets.iter().filter(|subnet| subnet.subnet.address.is_ipv4() == ipv4);
            if addresses.iter().any(|address| address.address.is_ipv4() == ipv4) {
                continue;
            }
            let Some(first) = subnets.next() else { continue };
            let mut found = self.claims.next_address(network, first, by, claimed);
            let mut from = first;
            for subnet in subnets {
                if found.as_ref().is_err_and(|err| err.kind() == ErrorKind::Taken) {
                    from = subnet;
                    found = self.claims.next_address(network, subnet, by, claimed);
                }
            }
            addresses.push(prefix(from, found?));
        }
        Ok(addresses)
    }
}
