//! The networks of a machine: what its definition says, as `locule_netns` wants to hear it.
//!
//! Owns the default network's making and the addresses that a machine keeps. Files of names are made before the
//! container, as they are bound into it, and filled when it is connected.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use locule_netns::error::Kind as NetKind;
use locule_netns::rate::Rates;
use locule_netns::record::Owner;
use locule_netns::{Attachment, Networks};

use crate::bundle::{self, Names, Wiring};
use crate::definition::Interface;
use crate::state::Kept;
use crate::{Context, Definition, Error, Home, Machine, Result, lift};

/// The network of machines that name none.
pub const DEFAULT: &str = "default";

/// The attachments of a definition, interface by interface.
pub fn plan(definition: &Definition) -> Result<Vec<Attachment>> {
    if bundle::wiring(definition)? == Wiring::Host {
        return Ok(Vec::new());
    }
    let default = || BTreeMap::from([("eth0".to_owned(), Interface::default())]);
    let interfaces = definition.networks.clone().unwrap_or_else(default);
    let mut wanted = Vec::new();
    for (name, interface) in interfaces {
        let network = interface.network.clone().unwrap_or_else(|| DEFAULT.to_owned());
        if network != "none" {
            wanted.push(
                attachment(&name, &network, &interface, definition)
                    .map_err(|err| err.context(format_args!("network.{name}")))?,
            );
        }
    }
    Ok(wanted)
}

fn attachment(
    name: &str,
    network: &str,
    interface: &Interface,
    definition: &Definition,
) -> Result<Attachment> {
    let address = |text: &String| -> Result<IpAddr> {
        let bare = text.split('/').next().unwrap_or(text);
        bare.parse().map_err(|_| Error::invalid(format!("address: {text:?} is no address")))
    };
    let mut ports = Vec::new();
    for text in &interface.ports {
        ports.push(text.parse().map_err(lift)?);
    }
    let mut rates = Rates::default();
    if let Some(down) = &interface.down {
        rates.down = down.parse().map_err(lift)?;
    }
    if let Some(up) = &interface.up {
        rates.up = up.parse().map_err(lift)?;
    }
    if let Some(down) = &interface.down_rate {
        rates.down_min = down.parse().map_err(lift)?;
    }
    if let Some(up) = &interface.up_rate {
        rates.up_min = up.parse().map_err(lift)?;
    }
    let mut names = interface.names.clone();
    names.extend(definition.hostname.clone());
    Ok(Attachment {
        network: network.to_owned(),
        interface: Some(name.to_owned()),
        addresses: interface.address.iter().map(address).collect::<Result<_>>()?,
        mac: interface.mac.as_deref().map(str::parse).transpose().map_err(lift)?,
        ports,
        names,
        rates,
        firewall: interface.firewall,
    })
}

/// Makes the default network where it is wanted and not there.
fn ensure_default(networks: &Networks, wanted: &[Attachment]) -> Result<()> {
    if wanted.iter().all(|attachment| attachment.network != DEFAULT) {
        return Ok(());
    }
    networks.ensure_default().map(drop).map_err(lift)
}

/// The files of names to bind into the container that is about to be made.
pub fn names(home: &Home, machine: &Machine, definition: &Definition) -> Result<Names> {
    let wanted = plan(definition)?;
    let networks = home.networks()?;
    ensure_default(&networks, &wanted)?;
    let resolv = machine.run().join("resolv.conf");
    write_in_place(&resolv, &own_resolv(definition))?;
    let hosts = match wanted.as_slice() {
        [] => {
            let path = machine.run().join("hosts");
            let name = definition.hostname.as_deref().unwrap_or(machine.name());
            write_in_place(
                &path,
                &format!("127.0.0.1 localhost {name}\n::1 localhost ip6-localhost ip6-loopback\n"),
            )?;
            path
        }
        [one] => {
            networks.definitions().load(&one.network).map_err(lift)?;
            networks.names().prepare(&one.network).map_err(lift)?
        }
        // Of several networks the machine has a file of its own, which the networks keep current in place.
        _ => {
            let path = own_hosts(home, machine);
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
            }
            write_in_place(&path, "")?;
            path
        }
    };
    Ok(Names { hosts: Some(hosts), resolv: Some(resolv) })
}

fn own_hosts(home: &Home, machine: &Machine) -> PathBuf {
    home.run().join(".networks/names/containers").join(machine.name())
}

fn own_resolv(definition: &Definition) -> String {
    let mut text = String::new();
    if !definition.dns.search.is_empty() {
        text.push_str(&format!("search {}\n", definition.dns.search.join(" ")));
    }
    for server in &definition.dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// Writes without making a new file: the old one is bound into a container.
fn write_in_place(path: &PathBuf, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let doing = || format!("writing {}", path.display());
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).doing(doing)?;
    file.write_all(text.as_bytes()).doing(doing)?;
    file.set_permissions(fs::Permissions::from_mode(0o644)).doing(doing)
}

/// Attaches the networks of the container whose init is `pid`, and remembers its addresses.
pub fn connect(home: &Home, machine: &Machine, definition: &Definition, pid: i32) -> Result<()> {
    let wanted = plan(definition)?;
    if bundle::wiring(definition)? == Wiring::Host || wanted.is_empty() {
        return Ok(());
    }
    let networks = home.networks()?;
    let mut state = machine.state()?;
    let (owner, namespace) = Owner::process(pid).map_err(lift)?;
    let attach = |wanted: &[Attachment]| networks.attach(&namespace, owner.clone(), machine.name(), wanted);
    let attached = match attach(&with_kept(&wanted, &state.interfaces)) {
        // What it had is somebody else's by now, or its network has other addresses: it gets others.
        Err(err) if matches!(err.kind(), NetKind::Taken | NetKind::Invalid) => attach(&wanted),
        other => other,
    }
    .map_err(lift)?;
    if definition.dns.servers.is_empty() {
        let found = fs::read_to_string(&attached.resolv)
            .doing(|| format!("reading {}", attached.resolv.display()))?;
        let own = own_resolv(definition);
        let found: String = match own.is_empty() {
            true => found,
            false => found
                .lines()
                .filter(|line| !line.starts_with("search "))
                .map(|line| format!("{line}\n"))
                .collect(),
        };
        write_in_place(&machine.run().join("resolv.conf"), &format!("{own}{found}"))?;
    }
    let before = state.interfaces.clone();
    for wired in &attached.interfaces {
        let addresses = wired.addresses.iter().map(|cidr| cidr.address).collect();
        state.interfaces.insert(wired.interface.clone(), Kept { network: wired.network.clone(), addresses });
    }
    if state.interfaces != before {
        state.save(machine.dir())?;
    }
    Ok(())
}

/// What is wanted, with the addresses that the machine had before where it wants none of that family.
fn with_kept(wanted: &[Attachment], kept: &BTreeMap<String, Kept>) -> Vec<Attachment> {
    let mut all = wanted.to_vec();
    for attachment in &mut all {
        let name = attachment.interface.clone().unwrap_or_default();
        let Some(kept) = kept.get(&name).filter(|kept| kept.network == attachment.network) else { continue };
        for family in [IpAddr::is_ipv4 as fn(&IpAddr) -> bool, IpAddr::is_ipv6] {
            if !attachment.addresses.iter().any(family) {
                attachment.addresses.extend(kept.addresses.iter().filter(|address| family(address)));
            }
        }
    }
    all
}

/// Detaches all networks of a machine, if it has any.
pub fn disconnect(home: &Home, machine: &Machine) -> Result<()> {
    if !home.run().join(".networks").exists() {
        return Ok(());
    }
    home.networks()?.detach(machine.name(), None).map(drop).map_err(lift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Attachment>> {
        plan(&Definition::parse(text, std::path::Path::new("x"))?)
    }

    #[test]
    fn without_a_word_there_is_one_interface() {
        let wanted = of("image = \"x\"").unwrap();
        assert_eq!((wanted.len(), wanted[0].network.as_str()), (1, DEFAULT));
        assert_eq!(wanted[0].interface.as_deref(), Some("eth0"));
        assert!(of("[network]").unwrap().is_empty());
        assert!(of("[network.eth0]\nnetwork = \"none\"").unwrap().is_empty());
        assert!(of("[network.eth0]\nnetwork = \"host\"").unwrap().is_empty());
        assert!(of("[network.eth0]\nnetwork = \"host\"\n[network.eth1]").is_err());
    }

    #[test]
    fn errors_name_the_interface() {
        let err = of("[network.lan]\naddress = [\"10.0.0.300\"]").unwrap_err().to_string();
        assert!(err.contains("network.lan") && err.contains("10.0.0.300"), "{err}");
        assert!(of("[network.lan]\nports = [\"x\"]").unwrap_err().to_string().contains("network.lan"));
    }

    #[test]
    fn kept_addresses_fill_what_is_open() {
        let kept = BTreeMap::from([(
            "eth0".to_owned(),
            Kept {
                network: DEFAULT.into(),
                addresses: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            },
        )]);
        let all = |text| with_kept(&of(text).unwrap(), &kept)[0].addresses.clone();
        assert_eq!(all("image = \"x\"").len(), 2);
        let fixed = all("[network.eth0]\naddress = [\"10.1.0.9\"]");
        assert_eq!(fixed, ["10.1.0.9".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert!(all("[network.eth0]\nnetwork = \"other\"").is_empty());
    }
}
