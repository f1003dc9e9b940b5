//! What is done with networks as such: defined, given a rate, removed; addresses kept for containers.
//!
//! Owns no files; each act holds the lock over all.

use std::net::IpAddr;

use crate::claim::{Claimant, Claimed};
use crate::error::{Error, Result};
use crate::fault;
use crate::host;
use crate::link::Links;
use crate::network::{Kind, Network, Subnet, free_subnet4, free_subnet6};
use crate::networks::Networks;
use crate::nft::Nft;
use crate::rate::{Rate, Total, Way};
use crate::shape;
use crate::sys::proc;

/// The name of the network that a container is on when nobody said which.
pub const DEFAULT: &str = "default";

impl Networks {
    /// The network called `default`, a bridge with a free subnet of each family that the host speaks; made by whoever asks first.
    pub fn ensure_default(&self) -> Result<Network> {
        let _lock = self.lock()?;
        self.wanted(DEFAULT)
    }

    /// The network of that name; the default one is made. The caller holds the lock.
    pub(crate) fn wanted(&self, name: &str) -> Result<Network> {
        if name == DEFAULT && !self.definitions.has(DEFAULT) {
            let ipv6 = proc::get("ipv6/conf/all/forwarding").is_some();
            return self.define(Network::new(DEFAULT, Kind::Bridge), ipv6);
        }
        self.definitions.load(name)
    }

    /// Writes the definition of a new network; what it leaves open is chosen.
    pub fn create(&self, network: Network, ipv6: bool) -> Result<Network> {
        let _lock = self.lock()?;
        self.define(network, ipv6)
    }

    fn define(&self, mut network: Network, ipv6: bool) -> Result<Network> {
        let pooled = matches!(network.kind, Kind::Bridge | Kind::Routed);
        if network.kind == Kind::Routed {
            network.nat = false;
        }
        if network.kind == Kind::Bridge && self.definitions.all()?.iter().all(|n| n.name != network.name) {
            host::remove_orphan(&mut Links::own()?, &network)?;
        }
        if pooled && network.subnets.is_empty() {
            let mut taken = host::known_subnets(&mut Links::own()?)?;
            taken.extend(self.definitions.all()?.iter().flat_map(|n| n.subnets.iter().map(|s| s.subnet)));
            network.subnets.push(Subnet { subnet: free_subnet4(&taken)?, gateway: None, range: None });
        }
        if pooled && ipv6 && !network.subnets.iter().any(|subnet| subnet.subnet.address.is_ipv6()) {
            network.subnets.push(Subnet { subnet: free_subnet6()?, gateway: None, range: None });
        }
        if network.kind == Kind::Bridge {
            for subnet in network.subnets.iter_mut().filter(|subnet| subnet.gateway.is_none()) {
                subnet.gateway = subnet.subnet.nth(subnet.subnet.usable().0);
            }
            network.bridge = Some(network.bridge_name());
        }
        self.definitions.create(&network)?;
        Ok(network)
    }

    /// Removes a network that no container is on, with its bridge.
    pub fn remove(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        let network = self.definitions.load(name)?;
        let users: Vec<_> = self
            .records
            .all()?
            .into_iter()
            .filter(|record| record.interfaces.iter().any(|wired| wired.network == name))
            .collect();
        if let Some(record) = users.iter().find(|record| record.owner.lives()) {
            return Err(Error::taken(format!(
                "network {name:?} is used by container {:?}",
                record.container
            ))
            .hint("disconnect it first"));
        }
        for record in users {
            self.forget(&record)?;
        }
        if network.kind == Kind::Bridge {
            let mut links = Links::own()?;
            if links.find(&network.bridge_name())?.is_some_and(|link| link.kind == "bridge") {
                links.remove(&network.bridge_name())?;
            }
            let mut nft = Nft::open()?;
            if nft.owner()?.is_some() {
                nft.remove(&host::elements(&network))?;
            }
        }
        if !network.total.is_none() {
            shape::remove_pools(&mut Links::own()?, name)?;
        }
        self.claims.forget(name)?;
        self.names.forget_network(name)?;
        self.definitions.remove(name)
    }

    /// Gives a network a rate that all its containers share, each at least its guarantee, or takes it away; live.
    pub fn limit(&self, name: &str, total: Total) -> Result<Network> {
        let _lock = self.lock()?;
        let mut network = self.definitions.load(name)?;
        for way in Way::ALL {
            let promised = Rate(self.guaranteed(name, None, way)?);
            if promised > total.of(way) {
                return Err(Error::taken(format!(
                    "{}: the containers of network {name} were promised {promised}: it cannot have {}",
                    way.word(),
                    total.of(way)
                )));
            }
        }
        network.total = total;
        // Classes first, then the definition: a killed call leaves a number that nobody uses.
        let lives = |holder: &str| self.lives(holder);
        let mut on = Vec::new();
        for mut record in self.records.all()?.into_iter().filter(|record| record.owner.lives()) {
            let container = record.container.clone();
            let own = record.interfaces.iter().flat_map(|wired| wired.claims.clone()).collect();
            let by = Claimant { container: &container, own: &own, lives: &lives };
            let Some(wired) = record.interfaces.iter_mut().find(|wired| wired.network == name) else {
                continue;
            };
            if wired.slot.is_none() {
                let mut claimed = Claimed::new();
                let seed = crate::address::digest(&[&container, name]);
                wired.slot = Some(self.claims.slot(name, (seed >> 48) as u16, &by, &mut claimed)?);
                wired.claims.extend(claimed);
                on.push(wired.clone());
                self.records.save(&record)?;
            } else {
                on.push(wired.clone());
            }
        }
        self.definitions.write(&network)?;
        fault::point("limited");
        let mut links = Links::own()?;
        for wired in &on {
            shape::apply(&mut links, wired, total)?;
        }
        for way in Way::ALL.into_iter().filter(|way| total.of(*way).is_none()) {
            links.remove(&shape::pool_name(name, way))?;
        }
        Ok(network)
    }

    /// Keeps addresses of a network for a container, whether it runs or not: nobody else gets them. Replaces what was
    /// kept for it there.
    pub fn reserve(&self, network: &str, container: &str, addresses: &[IpAddr]) -> Result<()> {
        crate::network::check_name(container)?;
        let _lock = self.lock()?;
        let mut definition = self.definitions.load(network)?;
        for address in addresses {
            definition.check_address(*address)?;
            if let Some(holder) = definition.reserved_for_another(*address, container) {
                return Err(Error::taken(format!(
                    "the address {address} of network {network} is kept for container {holder:?}"
                )));
            }
            if let Some(holder) = self.holder_of(network, *address)?.filter(|holder| holder != container) {
                return Err(Error::taken(format!(
                    "the address {address} of network {network} belongs to container {holder:?}"
                )));
            }
        }
        let before = definition.reserved.clone();
        definition.reserved.retain(|_, holder| holder != container);
        definition.reserved.extend(addresses.iter().map(|address| (*address, container.to_owned())));
        if definition.reserved != before {
            self.definitions.write(&definition)?;
        }
        Ok(())
    }

    /// Keeps nothing for a container any more.
    pub fn unreserve(&self, container: &str) -> Result<()> {
        let _lock = self.lock()?;
        for mut network in self.definitions.all()? {
            let count = network.reserved.len();
            network.reserved.retain(|_, holder| holder != container);
            if network.reserved.len() != count {
                self.definitions.write(&network)?;
            }
        }
        Ok(())
    }

    fn holder_of(&self, network: &str, address: IpAddr) -> Result<Option<String>> {
        Ok(self.claims.address_holder(network, address)?.filter(|holder| self.lives(holder)))
    }
}
