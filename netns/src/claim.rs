//! Claims: addresses and ports that a container has, one file each, whose content is its name.
//!
//! Owns the files below one directory. Taking one is exclusive without a lock; choosing the next
//! free address starts behind the last one given, so that it takes as long with a thousand
//! containers as with one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::address::Mac;
use crate::error::{Error, Result};
use crate::network::{Network, Subnet};
use crate::port::{self, Publish};
use crate::sys::file;

/// All claims of a host.
#[derive(Debug, Clone)]
pub struct Claims {
    dir: PathBuf,
}

/// Numbers of classes that containers have.
const SLOTS: std::ops::RangeInclusive<u16> = 0x10..=0xfff0;

/// What one container claimed: paths of files.
pub type Claimed = Vec<PathBuf>;

/// Who a claim is for, and whether the holder of another one still lives.
pub struct Claimant<'a> {
    /// The container.
    pub container: &'a str,
    /// What it has claimed before.
    pub own: &'a BTreeSet<PathBuf>,
    /// Whether the container that has a claim exists.
    pub lives: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for Claimant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claimant").field("container", &self.container).finish_non_exhaustive()
    }
}

impl Claims {
    /// The claims below `dir`.
    pub fn new(dir: &Path) -> Claims {
        Claims { dir: dir.to_owned() }
    }

    fn addresses(&self, network: &str) -> PathBuf {
        self.dir.join("addresses").join(network)
    }

    fn ports(&self) -> PathBuf {
        self.dir.join("ports")
    }

    fn holder(path: &Path) -> Result<Option<String>> {
        Ok(file::read(path)?.map(|text| String::from_utf8_lossy(&text).trim_end().to_owned()))
    }

    /// Takes the file, also from a container that is gone; tells who has it otherwise.
    fn take(path: &Path, by: &Claimant<'_>) -> Result<Result<(), String>> {
        for _ in 0..16 {
            if file::claim(path, by.container.as_bytes())? {
                return Ok(Ok(()));
            }
            match Self::holder(path)? {
                Some(holder) if holder != by.container && (by.lives)(&holder) => return Ok(Err(holder)),
                Some(holder) if holder == by.container => {
                    // Its own already, or left by a call for it that was killed before it was recorded.
                    return Ok(if by.own.contains(path) { Err(holder) } else { Ok(()) });
                }
                _ => file::remove(path)?,
            }
        }
        Ok(Err("others".into()))
    }

    /// Claims an address that was asked for.
    pub fn address(
        &self,
        network: &str,
        address: IpAddr,
        by: &Claimant<'_>,
        claimed: &mut Claimed,
    ) -> Result<()> {
        let path = self.addresses(network).join(address.to_string());
        file::make_dir(&self.addresses(network))?;
        match Self::take(&path, by)? {
            Ok(()) => claimed.push(path),
            Err(holder) => {
                return Err(Error::taken(format!(
                    "the address {address} of network {network} belongs to container {holder:?}"
                )));
            }
        }
        Ok(())
    }

    /// Who has an address.
    pub fn address_holder(&self, network: &str, address: IpAddr) -> Result<Option<String>> {
        Self::holder(&self.addresses(network).join(address.to_string()))
    }

    /// Claims the hardware address on a network.
    pub fn mac(&self, network: &str, mac: Mac, by: &Claimant<'_>, claimed: &mut Claimed) -> Result<()> {
        let path = self.addresses(network).join(mac.to_string());
        file::make_dir(&self.addresses(network))?;
        match Self::take(&path, by)? {
            Ok(()) => claimed.push(path),
            Err(holder) => {
                return Err(Error::taken(format!(
                    "the hardware address {mac} on network {network} belongs to container {holder:?}"
                )));
            }
        }
        Ok(())
    }

    /// Claims a number of a network's classes: `wanted`, or the next free one behind it.
    pub fn slot(&self, network: &str, wanted: u16, by: &Claimant<'_>, claimed: &mut Claimed) -> Result<u16> {
        let dir = self.addresses(network);
        file::make_dir(&dir)?;
        // 1 is the class of all, and numbers end below 0xffff.
        let slots = u32::from(*SLOTS.end() - SLOTS.start()) + 1;
        for step in 0..slots {
            let slot = *SLOTS.start() + ((u32::from(wanted) + step) % slots) as u16;
            let path = dir.join(format!("class-{slot}"));
            if Self::take(&path, by)?.is_ok() {
                claimed.push(path);
                return Ok(slot);
            }
        }
        Err(Error::taken(format!("every class of network {network} is taken")))
    }

    /// Claims an interface of the host.
    pub fn device(&self, name: &str, by: &Claimant<'_>, claimed: &mut Claimed) -> Result<()> {
        let dir = self.dir.join("devices");
        file::make_dir(&dir)?;
        match Self::take(&dir.join(name), by)? {
            Ok(()) => claimed.push(dir.join(name)),
            Err(holder) => {
                return Err(Error::taken(format!("the interface {name} belongs to container {holder:?}")));
            }
        }
        Ok(())
    }

    /// Claims the next free address of a subnet.
    pub fn next_address(
        &self,
        network: &Network,
        subnet: &Subnet,
        by: &Claimant<'_>,
        claimed: &mut Claimed,
    ) -> Result<IpAddr> {
        let dir = self.addresses(&network.name);
        file::make_dir(&dir)?;
        let (low, high) = subnet.pool();
        let cursor = dir.join(format!(".last-{}", subnet.subnet.to_string().replace('/', "_")));
        let last = Self::holder(&cursor)?
            .and_then(|text| text.parse().ok())
            .and_then(|address| subnet.subnet.offset(address))
            .filter(|offset| (low..high).contains(offset));
        let start = last.map_or(low, |last| last + 1);
        // The second round takes what containers left that are gone.
        for reclaim in [false, true] {
            // No pool of IPv6 is ever walked to its end.
            let candidates = (start..=high).chain(low..start).take(1 << 20);
            for offset in candidates {
                let Some(address) = subnet.subnet.nth(offset) else { continue };
                let reserved = network.reserved_for_another(address, by.container).is_some();
                if subnet.gateway == Some(address) || reserved {
                    continue;
                }
                let path = dir.join(address.to_string());
                let taken = match reclaim {
                    false => file::claim(&path, by.container.as_bytes())?,
                    true => Self::take(&path, by)?.is_ok(),
                };
                if taken {
                    claimed.push(path);
                    file::replace(&cursor, address.to_string().as_bytes())?;
                    return Ok(address);
                }
            }
        }
        Err(Error::taken(format!(
            "every address of {} in network {} is taken: it has {}",
            subnet.subnet,
            network.name,
            (high - low + 1) - u128::from(subnet.gateway.is_some())
        ))
        .hint("`locule network show` tells by whom; give the network a larger subnet"))
    }

    /// Claims all ports of `publish`.
    pub fn port(&self, publish: &Publish, by: &Claimant<'_>, claimed: &mut Claimed) -> Result<()> {
        let taken = |port: u16, holder: &str| {
            Error::taken(format!(
                "the port {port}/{} of the host belongs to container {holder:?}",
                publish.protocol.word()
            ))
        };
        for (port, _) in publish.pairs() {
            // A directory a port, so that no more is looked at than who else has this one.
            let dir = self.ports().join(format!("{}.{port}", publish.protocol.word()));
            file::make_dir(&dir)?;
            for address in port::claimed_addresses(publish) {
                let path = dir.join(address.to_string());
                for other in file::names(&dir)? {
                    let theirs = dir.join(&other);
                    let conflict = other.parse().is_ok_and(|other| port::conflict(address, other));
                    if !conflict || theirs == path || claimed.contains(&theirs) {
                        continue;
                    }
                    match Self::holder(&theirs)? {
                        Some(holder)
                            if (by.lives)(&holder)
                                && (holder != by.container || by.own.contains(&theirs)) =>
                        {
                            return Err(taken(port, &holder));
                        }
                        _ => file::remove(&theirs)?,
                    }
                }
                match Self::take(&path, by)? {
                    Ok(()) => claimed.push(path),
                    Err(holder) => return Err(taken(port, &holder)),
                }
            }
            if port::host_has(publish, port) {
                return Err(Error::taken(format!(
                    "the port {port}/{} belongs to a process of the host",
                    publish.protocol.word()
                ))
                .hint(format!("`ss -lnp sport = :{port}` shows which")));
            }
        }
        Ok(())
    }

    /// Gives claims back.
    pub fn release(&self, claimed: &[PathBuf]) -> Result<()> {
        for path in claimed {
            file::remove(path)?;
            if let Some(dir) = path.parent().filter(|dir| dir.parent() == Some(&self.ports())) {
                // Somebody may have the same port of another address.
                let _ = std::fs::remove_dir(dir);
            }
        }
        Ok(())
    }

    /// All claims: path and holder.
    pub fn all(&self) -> Result<Vec<(PathBuf, String)>> {
        let mut dirs = vec![self.dir.join("devices")];
        for root in [self.ports(), self.dir.join("addresses")] {
            dirs.extend(file::names(&root)?.iter().map(|name| root.join(name)));
        }
        let mut all = Vec::new();
        for dir in dirs {
            for name in file::names(&dir)? {
                let path = dir.join(name);
                if let Some(holder) = Self::holder(&path)? {
                    all.push((path, holder));
                }
            }
        }
        Ok(all)
    }

    /// Forgets a network's claims and its place in the pool.
    pub fn forget(&self, network: &str) -> Result<()> {
        use crate::error::Context;
        match std::fs::remove_dir_all(self.addresses(network)) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.doing(|| format!("removing the claims of network {network}")),
        }
    }
}
