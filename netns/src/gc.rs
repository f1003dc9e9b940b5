//! What no living container owns is removed: records, claims, interfaces, elements.
//!
//! Looks at the kernel and at files alone. Removes only what bears locule's names.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::link::Links;
use crate::network::{Kind, Network};
use crate::networks::Networks;
use crate::nft::Nft;
use crate::nft::element::Element;
use crate::nft::schema;
use crate::shape::{self, IFB, POOLS, ifb_name, pool_name};

/// What was removed, and made anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Containers that are gone.
    pub containers: Vec<String>,
    /// Interfaces of nobody.
    pub interfaces: Vec<String>,
    /// Claims of nobody.
    pub claims: Vec<String>,
    /// How many elements of nobody were in locule's tables, and classes of limits.
    pub elements: usize,
    /// How many elements were missing there.
    pub restored: usize,
    /// What could not be cleaned up, and why.
    pub failed: Vec<String>,
}

impl Networks {
    /// Removes what no living container owns, and makes again what is missing of locule's tables.
    pub fn gc(&self) -> Result<Collected> {
        let _lock = self.lock()?;
        let mut done = Collected::default();
        let mut owners = BTreeSet::new();
        let mut ends = BTreeSet::new();
        let mut claims = BTreeSet::new();
        let mut unreadable = BTreeSet::new();
        for name in self.records.names()? {
            // A record that cannot be read or cleaned up must not keep the others.
            let outcome = self.records.load(&name).and_then(|record| match record {
                Some(record) if record.owner.lives() && record.is_prepared() => Ok(Some(record)),
                Some(record) if record.owner.lives() => self.settled(record).map(Some),
                Some(record) => {
                    self.forget(&record)?;
                    done.containers.push(name.clone());
                    Ok(None)
                }
                None => Ok(None),
            });
            match outcome {
                Ok(Some(record)) => {
                    ends.extend(record.interfaces.iter().map(|wired| wired.host.clone()));
                    claims.extend(record.interfaces.iter().flat_map(|wired| wired.claims.clone()));
                    owners.insert(record.container);
                }
                Ok(None) => {}
                Err(err) => {
                    owners.insert(name.clone());
                    unreadable.insert(name.clone());
                    done.failed.push(format!("{name}: {err}"));
                }
            }
        }
        for (path, holder) in self.claims.all()? {
            if !claims.contains(&path) && !unreadable.contains(&holder) {
                self.claims.release(std::slice::from_ref(&path))?;
                let name = path.strip_prefix(&self.run).unwrap_or(&path);
                done.claims.push(name.display().to_string());
            }
        }
        self.names.sweep(&owners)?;
        let mut links = Links::own()?;
        let networks = self.definitions.all()?;
        let pools: BTreeSet<_> = networks
            .iter()
            .flat_map(|network| POOLS.map(|(_, way)| (network, way)))
            .filter(|(network, way)| !network.total.of(*way).is_none())
            .map(|(network, way)| pool_name(&network.name, way))
            .collect();
        let bridges: BTreeSet<_> = networks
            .iter()
            .filter(|network| network.kind == Kind::Bridge)
            .map(crate::network::Network::bridge_name)
            .collect();
        let mut used = false;
        for link in links.all()? {
            let ours = match link.kind.as_str() {
                "veth" => is_end(&link.name, schema::END) && !ends.contains(&link.name),
                "ifb" => {
                    let ours =
                        is_end(&link.name, IFB) || POOLS.iter().any(|(prefix, _)| is_end(&link.name, prefix));
                    ours && !pools.contains(&link.name) && !ends.iter().any(|end| ifb_name(end) == link.name)
                }
                // A call that was killed while making a bridge leaves it down.
                "bridge" => bridges.contains(&link.name) && !link.up,
                _ => false,
            };
            used |= bridges.contains(&link.name) || ends.contains(&link.name);
            if ours && links.remove(&link.name)? {
                done.interfaces.push(link.name);
            }
        }
        self.collect_limits(&mut done, &mut links, &networks)?;
        self.collect_elements(&mut done, used)?;
        self.collect_cni(&mut done)?;
        Ok(done)
    }

    /// Removes classes of nobody, and makes every limit again: whether one is there whole cannot be seen cheaper.
    fn collect_limits(&self, done: &mut Collected, links: &mut Links, networks: &[Network]) -> Result<()> {
        let records = self.records.all()?;
        for network in networks.iter().filter(|network| matches!(network.kind, Kind::Bridge | Kind::Routed)) {
            let on =
                || records.iter().flat_map(|record| &record.interfaces).filter(|w| w.network == network.name);
            if !network.total.is_none() {
                let slots: Vec<u16> = on().filter_map(|wired| wired.slot).collect();
                done.elements += shape::sweep(links, &network.name, &slots)?;
            }
            for wired in on().filter(|wired| wired.is_shaped()) {
                if let Err(err) = shape::apply(links, wired, network.total) {
                    done.failed.push(format!("{}: {err}", wired.host));
                }
            }
        }
        Ok(())
    }

    /// Lets plugins of CNI 1.1 look for what nobody owns.
    fn collect_cni(&self, done: &mut Collected) -> Result<()> {
        for network in self.definitions.all()?.iter().filter(|network| network.kind == Kind::Cni) {
            let mut living = Vec::new();
            for record in self.records.all()? {
                let on = record.interfaces.iter().filter(|wired| wired.network == network.name);
                living.extend(on.map(|wired| (record.container.clone(), wired.interface.clone())));
            }
            if let Err(err) = crate::cni::collect(network, &living) {
                done.failed.push(format!("network {}: {err}", network.name));
            }
        }
        Ok(())
    }

    fn collect_elements(&self, done: &mut Collected, used: bool) -> Result<()> {
        let mut nft = match Nft::open() {
            Ok(nft) => nft,
            Err(_) if !used => return Ok(()),
            Err(err) => return Err(err),
        };
        let expected = self.expected()?;
        match nft.owner()? {
            Some(comment) if comment == self.comment() => {}
            None if !used => return Ok(()),
            None => {
                done.restored += expected.len();
                return nft.build(&self.comment(), &expected);
            }
            // Somebody else's, or of another version with nothing to put in.
            Some(_) if !used => return Ok(()),
            Some(_) => return self.ensure_tables(&mut nft),
        }
        let mut extra = Vec::new();
        let mut missing: Vec<Element> = Vec::new();
        for set in schema::sets() {
            let held: Vec<Element> = nft.list(set)?.into_iter().map(|held| held.element).collect();
            let wanted: Vec<&Element> =
                expected.iter().filter(|element| std::ptr::eq(element.set, set)).collect();
            let key = |element: &Element| (element.key.clone(), element.data.clone(), element.end);
            let held_keys: BTreeSet<_> = held.iter().map(key).collect();
            let wanted_keys: BTreeSet<_> = wanted.iter().map(|element| key(element)).collect();
            let same = |one: &BTreeSet<_>, element: &Element| one.contains(&key(element));
            extra.extend(held.into_iter().filter(|element| !same(&wanted_keys, element)));
            missing.extend(wanted.into_iter().filter(|element| !same(&held_keys, element)).cloned());
        }
        done.elements += extra.len();
        done.restored += missing.len();
        if !extra.is_empty() {
            nft.remove(&extra)?;
        }
        if !missing.is_empty() {
            nft.add(&missing)?;
        }
        Ok(())
    }
}

/// Whether the name is one that locule gives: the prefix and eleven hexadecimal digits.
fn is_end(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 11 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
