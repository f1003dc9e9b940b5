//! Names: a hosts file that all containers of a network share, and a resolv.conf written once.
//!
//! A hosts file kept current needs no daemon, and works with every C library. It is one file a network, bound into
//! each container: a new container is one line appended, however many there are. A container that starts on several
//! networks has a file of its own. Owns these files below one directory; never edits a file in a container.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::network::Network;
use crate::record::Wired;
use crate::sys::file;

const HEAD: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// The files of all networks.
#[derive(Debug, Clone)]
pub struct Names {
    dir: PathBuf,
}

impl Names {
    /// The files below `dir`.
    pub fn new(dir: &Path) -> Names {
        Names { dir: dir.to_owned() }
    }

    /// The hosts file of a network.
    pub fn shared(&self, network: &str) -> PathBuf {
        self.dir.join("networks").join(network)
    }

    fn own(&self, container: &str) -> PathBuf {
        self.dir.join("containers").join(container)
    }

    fn readers(&self, network: &str) -> PathBuf {
        self.dir.join("readers").join(network)
    }

    /// The container's resolv.conf.
    pub fn resolv(&self, container: &str) -> PathBuf {
        self.dir.join("resolv").join(container)
    }

    /// Makes the hosts file of a network, unless it is there.
    pub fn prepare(&self, network: &str) -> Result<PathBuf> {
        let path = self.shared(network);
        if !path.exists() {
            file::make_dir(&self.dir.join("networks"))?;
            file::overwrite(&path, HEAD.as_bytes())?;
        }
        Ok(path)
    }

    /// Makes the hosts file of a container that is to be on several networks.
    pub fn prepare_own(&self, container: &str, networks: &[&str]) -> Result<PathBuf> {
        for network in networks {
            self.prepare(network)?;
            file::make_dir(&self.readers(network))?;
            file::replace(&self.readers(network).join(container), b"")?;
        }
        for network in networks.iter().take(1) {
            self.refresh(network)?;
        }
        Ok(self.own(container))
    }

    /// Adds a container; returns the hosts file to bind into it.
    pub fn add(&self, container: &str, interfaces: &[Wired], first: bool) -> Result<Option<PathBuf>> {
        let named: Vec<_> = interfaces.iter().filter(|wired| !wired.addresses.is_empty()).collect();
        for wired in &named {
            let path = self.prepare(&wired.network)?;
            file::append(&path, &lines(container, wired))?;
        }
        if first && named.len() > 1 {
            for wired in &named {
                file::make_dir(&self.readers(&wired.network))?;
                file::replace(&self.readers(&wired.network).join(container), b"")?;
            }
        }
        for wired in &named {
            self.refresh(&wired.network)?;
        }
        Ok(match named.as_slice() {
            [] => None,
            [one] if first => Some(self.shared(&one.network)),
            _ => Some(self.own(container)).filter(|path| path.exists()),
        })
    }

    /// Takes an interface of a container out again.
    pub fn remove(&self, container: &str, wired: &Wired) -> Result<()> {
        let path = self.shared(&wired.network);
        let Some(text) = file::read(&path)? else { return Ok(()) };
        let text = String::from_utf8_lossy(&text);
        let mark = mark(container);
        let kept: String =
            text.split_inclusive('\n').filter(|line| !line.trim_end().ends_with(&mark)).collect();
        if kept != text {
            file::overwrite(&path, kept.as_bytes())?;
        }
        file::remove(&self.readers(&wired.network).join(container))?;
        self.refresh(&wired.network)
    }

    /// Forgets a container's own files.
    pub fn forget(&self, container: &str) -> Result<()> {
        file::remove(&self.own(container))?;
        file::remove(&self.resolv(container))
    }

    /// Takes out every container that is not among `living`.
    pub fn sweep(&self, living: &BTreeSet<String>) -> Result<()> {
        for network in file::names(&self.dir.join("networks"))? {
            let path = self.shared(&network);
            let text = file::read(&path)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lives = |line: &&str| match line.trim_end().rsplit_once(" # ") {
                Some((_, container)) => living.contains(container),
                None => true,
            };
            let kept: String = text.split_inclusive('\n').filter(lives).collect();
            if kept != text {
                file::overwrite(&path, kept.as_bytes())?;
                self.refresh(&network)?;
            }
            for reader in file::names(&self.readers(&network))?.iter().filter(|name| !living.contains(*name))
            {
                file::remove(&self.readers(&network).join(reader))?;
            }
        }
        for dir in ["containers", "resolv"].map(|name| self.dir.join(name)) {
            for name in file::names(&dir)?.iter().filter(|name| !living.contains(*name)) {
                file::remove(&dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Forgets a network's file.
    pub fn forget_network(&self, network: &str) -> Result<()> {
        file::remove(&self.shared(network))
    }

    /// Writes the files of those anew that read several networks, this one among them.
    fn refresh(&self, network: &str) -> Result<()> {
        for container in file::names(&self.readers(network))? {
            let mut text = HEAD.to_owned();
            for other in file::names(&self.dir.join("networks"))? {
                if !self.readers(&other).join(&container).exists() {
                    continue;
                }
                let shared = file::read(&self.shared(&other))?.unwrap_or_default();
                let shared = String::from_utf8_lossy(&shared);
                text.push_str(shared.strip_prefix(HEAD).unwrap_or(&shared));
            }
            file::make_dir(&self.dir.join("containers"))?;
            file::overwrite(&self.own(&container), text.as_bytes())?;
        }
        Ok(())
    }

    /// Writes the resolv.conf of a container, once.
    pub fn write_resolv(&self, container: &str, networks: &[&Network]) -> Result<PathBuf> {
        let path = self.resolv(container);
        if !path.exists() {
            file::make_dir(&self.dir.join("resolv"))?;
            file::overwrite(&path, resolv(networks, &host_resolv()).as_bytes())?;
        }
        Ok(path)
    }
}

fn mark(container: &str) -> String {
    format!(" # {container}")
}

/// The lines of one container on one network.
fn lines(container: &str, wired: &Wired) -> String {
    let mut names = vec![container];
    names.extend(wired.names.iter().map(String::as_str).filter(|name| *name != container));
    let names = names.join(" ");
    let mark = mark(container);
    wired.addresses.iter().map(|address| format!("{} {names}{mark}\n", address.address)).collect()
}

/// The host's resolv.conf, or that behind systemd-resolved's stub, which a container cannot reach.
fn host_resolv() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let own = read("/etc/resolv.conf");
    if servers(&own).any(|server| !server.is_loopback()) {
        return own;
    }
    let behind = read("/run/systemd/resolve/resolv.conf");
    if servers(&behind).next().is_some() { behind } else { own }
}

fn servers(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        // A zone (fe80::1%eth0) means nothing in the container.
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
    })
}

/// A resolv.conf from the networks' own settings, else from the host's.
fn resolv(networks: &[&Network], host: &str) -> String {
    let mut own: Vec<IpAddr> = Vec::new();
    let mut search: Vec<&str> = Vec::new();
    for network in networks {
        own.extend(network.dns.iter().filter(|server| !own.contains(server)).collect::<Vec<_>>());
        search.extend(network.search.iter().map(String::as_str));
    }
    let mut text = String::new();
    let host_lines = host.lines().map(str::trim);
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    } else if own.is_empty() {
        host_lines.clone().filter(|line| line.starts_with("search ")).for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
    }
    host_lines.filter(|line| line.starts_with("options ")).for_each(|line| {
        text.push_str(line);
        text.push('\n');
    });
    let inherited = servers(host).filter(|server| own.is_empty() && !server.is_loopback());
    for server in own.iter().copied().chain(inherited) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Kind;

    #[test]
    fn loopback_servers_are_never_inherited() {
        let host = "# stub\nsearch lan\noptions edns0\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n";
        let network = Network::new("x", Kind::Bridge);
        assert_eq!(resolv(&[&network], host), "search lan\noptions edns0\nnameserver 192.0.2.1\n");
        let network = Network {
            dns: vec!["192.0.2.7".parse().unwrap()],
            search: vec!["a.test".into()],
            ..Network::new("x", Kind::Bridge)
        };
        assert_eq!(resolv(&[&network], host), "search a.test\noptions edns0\nnameserver 192.0.2.7\n");
    }
}
