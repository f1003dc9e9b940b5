//! OpenVZ: a container's configuration (`VEID.conf` of vzctl 4 and 7) as a machine's definition.
//!
//! Owns the reading of the file, what each of its names becomes, and the report. Reads no container's files, and makes
//! no machine.

mod conf;
mod map;
mod numbers;
mod options;

use serde::Serialize;

pub use options::{OPTIONS, Option_, Outcome};

use crate::definition::Profiles;
use crate::set::{self, Change};
use crate::{Error, Result};

/// What became of one name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The name in the file.
    pub name: String,
    /// Its value there.
    pub value: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The keys that stand for it, as `set` would be told; or why there are none.
    pub note: String,
}

/// A definition that was made of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The document.
    pub document: String,
    /// What became of each name, in the order of the file.
    pub report: Vec<Row>,
    /// The name that the configuration has, if that can be a machine's.
    pub name: std::option::Option<String>,
}

/// Turns the text of a configuration into a definition made from `image`.
///
/// `host_memory` is what a share of memory is a share of.
pub fn import(text: &str, image: &str, host_memory: u64) -> Result<Imported> {
    let entries = conf::read(text)?;
    let mut report = Vec::new();
    let mut words = vec![format!("image={image}")];
    let context = map::Context::of(&entries, host_memory);
    for (name, value) in &entries {
        let (outcome, changes, note) = map::convert(name, value, &context);
        let told = if changes.is_empty() { note } else { join(&changes, &note) };
        words.extend(changes);
        report.push(Row { name: name.clone(), value: value.clone(), outcome, note: told });
    }
    let changes: Vec<Change> = words
        .iter()
        .map(|word| Change::parse(word).map_err(|err| err.context(format_args!("importing {word:?}"))))
        .collect::<Result<_>>()?;
    let document = set::document(&changes, &Profiles::of(Vec::new()))
        .map_err(|err| err.context("importing an OpenVZ configuration"))?;
    let called = entries.iter().find(|(name, _)| name == "NAME").map(|(_, value)| value.to_ascii_lowercase());
    let name = called.filter(|name| crate::home::check_name(name).is_ok());
    Ok(Imported { document, report, name })
}

fn join(changes: &[String], note: &str) -> String {
    let changes = changes.join(" ");
    if note.is_empty() { changes } else { format!("{changes} ({note})") }
}

/// This host's memory in bytes.
pub fn host_memory() -> Result<u64> {
    use crate::Context;
    let text = std::fs::read_to_string("/proc/meminfo").doing(|| "reading /proc/meminfo")?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| Error::invalid("reading /proc/meminfo: it has no MemTotal"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Definition;

    fn imported(text: &str) -> (Definition, Vec<Row>) {
        let imported = import(text, "debian:13", 8 << 30).unwrap();
        let definition = Definition::parse(&imported.document, Path::new("m"))
            .unwrap_or_else(|err| panic!("{err}\n{}", imported.document));
        (definition, imported.report)
    }

    /// A configuration as vzctl 4 writes it on a host with VSwap.
    const VSWAP: &str = r#"# Copyright (C) Parallels
ONBOOT="yes"
BOOTORDER="10"

# UBC parameters (in form of barrier:limit)
PHYSPAGES="0:512M"
SWAPPAGES="0:1G"
KMEMSIZE="232M:256M"
NUMPROC="400:400"
TCPSNDBUF=319488:524288

DISKSPACE="2G:2.2G"
DISKINODES="131072:144179"
QUOTATIME="0"
CPUUNITS="1000"
CPULIMIT="150"
CPUS=2
VE_ROOT="/vz/root/$VEID"
VE_PRIVATE="/vz/private/$VEID"
OSTEMPLATE="debian-7.0-x86"
ORIGIN_SAMPLE="vswap-512m"
IP_ADDRESS="192.0.2.10 2001:db8::10/64"
HOSTNAME="web.example.org"
NAME="Web1"
NAMESERVER="192.0.2.1 192.0.2.2"
SEARCHDOMAIN="example.org"
IOPRIO="4"
IOLIMIT="10485760"
IOPSLIMIT="200"
DEVNODES="net/tun:rw "
CAPABILITY="NET_ADMIN:on SYS_TIME:off "
NOBODYKNOWS="1"
"#;

    #[test]
    fn a_configuration_of_vzctl_4_becomes_a_definition() {
        let (definition, report) = imported(VSWAP);
        let text = definition.document().unwrap();
        assert_eq!(definition.memory.limit.unwrap().to_string(), "512M", "{text}");
        assert_eq!(definition.memory.swap.unwrap().to_string(), "1G");
        assert_eq!(
            (definition.pids.limit, definition.cpu.limit, definition.cpu.count),
            (Some(400), Some(1.5), Some(2))
        );
        assert_eq!(
            (definition.cpu.weight, definition.io.weight, definition.io.iops),
            (Some(100), Some(500), Some(200))
        );
        assert_eq!(definition.io.bps.unwrap().to_string(), "10M");
        assert_eq!(definition.disk.size.unwrap().to_string(), "2G");
        assert_eq!(definition.disk.inodes, Some(131_072));
        assert_eq!(definition.hostname.as_deref(), Some("web.example.org"));
        let eth0 = &definition.networks.as_ref().unwrap()["eth0"];
        assert_eq!(eth0.address, ["192.0.2.10", "2001:db8::10"]);
        assert_eq!(eth0.network.as_deref(), Some("venet"));
        assert_eq!(definition.dns.servers, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(definition.devices[0].path, "/dev/net/tun");
        assert_eq!(definition.capabilities.add, ["NET_ADMIN"]);
        assert_eq!(definition.capabilities.drop, ["SYS_TIME"]);
        assert_eq!(definition.boot.order, Some(10));
        let outcome = |name: &str| report.iter().find(|row| row.name == name).map(|row| row.outcome);
        assert_eq!(outcome("KMEMSIZE"), Some(Outcome::Covered));
        assert_eq!(outcome("NOBODYKNOWS"), Some(Outcome::Unknown));
        assert_eq!(outcome("QUOTATIME"), Some(Outcome::NotPossible));
        assert_eq!(report.len(), 28, "each line is told of");
        assert_eq!(import(VSWAP, "host", 1).unwrap().name.as_deref(), Some("web1"));
    }

    /// A configuration as Virtuozzo 7 writes it.
    const VZ7: &str = r#"VEID="0b1c"
UUID="0b1c"
ONBOOT="auto"
PHYSPAGES="262144:262144"
SWAPPAGES="131072:131072"
MEMGUARANTEE="50%"
VM_OVERCOMMIT="1.5"
CPUUNITS="2000"
CPUMASK="0-3"
NODEMASK="all"
DISK="{8a0e-...},uuid:..."
DISKSPACE="10485760"
NETIF="ifname=eth0,bridge=br1,mac=00:18:51:AB:CD:EF,host_ifname=veth1,configure=none,ip=10.0.0.5/24,gw=10.0.0.1;ifname=eth1,network=priv,dhcp=yes"
FEATURES="nfs:on tun:on"
IOLIMIT="0"
RATE="eth0:1:8000"
RATEBOUND="yes"
NETFILTER="stateless"
DISABLED="yes"
BINDMOUNT="/srv/data:/data,nosuid"
"#;

    #[test]
    fn a_configuration_of_virtuozzo_7_becomes_a_definition() {
        let (definition, report) = imported(VZ7);
        assert_eq!(definition.memory.limit.unwrap().to_string(), "1G");
        assert_eq!(definition.memory.swap.unwrap().to_string(), "512M");
        assert_eq!(definition.memory.guarantee.unwrap().to_string(), "512M");
        assert_eq!(definition.cpu.weight, Some(200));
        assert_eq!(definition.cpu.set.as_deref(), Some("0-3"));
        assert_eq!((definition.cpu.nodes, definition.io.bps), (None, None));
        assert_eq!(definition.disk.size.unwrap().to_string(), "10G");
        let networks = definition.networks.as_ref().unwrap();
        assert_eq!(networks["eth0"].mac.as_deref(), Some("00:18:51:AB:CD:EF"));
        assert_eq!(networks["eth0"].network.as_deref(), Some("br1"));
        assert_eq!(networks["eth0"].address, ["10.0.0.5"]);
        assert_eq!(networks["eth0"].up.as_deref(), Some("8000kbit"));
        assert_eq!(networks["eth1"].network.as_deref(), Some("priv"));
        assert!(definition.disabled);
        assert_eq!(definition.mounts[0].target, "/data");
        assert!(definition.devices.iter().any(|device| device.path == "/dev/net/tun"));
        let row = |name: &str| report.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("VM_OVERCOMMIT").outcome, Outcome::NotPossible);
        assert_eq!(row("NETIF").outcome, Outcome::Mapped);
        assert!(row("NETIF").note.contains("gw"), "{}", row("NETIF").note);
    }

    #[test]
    fn prlctls_names_are_read_as_well() {
        let (definition, _) = imported("memsize=2048\nautostart=on\ndisabled=no\n");
        assert_eq!(definition.memory.limit.unwrap().to_string(), "2G");
        assert_eq!(definition.boot.start, crate::definition::BootStart::On);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_harms_nothing() {
        let (definition, report) = imported(
            "CPUUNITS=\"many\"\nPHYSPAGES=\"unlimited\"\nIP_ADDRESS=\"nowhere\"\nNUMPROC=\"0\"\nHOSTNAME=\"a_b c\"\n",
        );
        assert_eq!(definition.cpu.weight, None);
        assert_eq!(definition.memory.limit, None);
        assert!(report.iter().filter(|row| row.outcome == Outcome::Unread).count() == 3, "{report:?}");
        assert!(import("KEY", "host", 1).unwrap_err().to_string().contains("line 1"));
        assert!(import("KEY=\"open", "host", 1).unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn every_option_of_vzctl_has_a_row() {
        // What `vzctl set` of versions 4 and 7 takes, and prlctl's own names.
        let options = "onboot bootorder autostop disabled stop-timeout name description hostname ostemplate distribution \
            osrelease vetype root private mount_opts noatime userpasswd ipadd ipdel ip ext_ipadd ext_ipdel netif_add netif_del \
            netif_mac_renew ifname mac host_ifname host_mac gw gw6 dhcp dhcp6 network bridge mac_filter configure nettype vporttype \
            default_gateway nameserver searchdomain skip_arpdetect apply_iponly origin_sample config_customized local_uid local_gid \
            ram memory physpages swap swappages vm_overcommit memguarantee pagecache-isolation num-memory-subgroups numproc numfile \
            numflock numpty numsiginfo lockedpages shmpages numiptent numnetif privvmpages vmguarpages avnumproc kmemsize tcpsndbuf \
            tcprcvbuf othersockbuf dgramrcvbuf numtcpsock numothersock dcachesize oomguarpages totvmpages ipcshmpages anonshpages \
            rsspages oomguar numsock unixsockbuf sockrcvbuf numunixsock slmmode slmmemorylimit meminfo cpuunits cpuweight cpulimit cpus cpumask \
            nodemask burst_cpulimit burst_cpu_avg_usage ioprio iolimit iopslimit diskspace diskinodes quotatime quotaugidlimit \
            diskquota jquota device-add device-set device-del bindmount_add bindmount_del devnodes devices pci_add pci_del netdev_add \
            netdev_del capability features iptables netfilter rate ratebound ha_enable ha_prio offline_management offline_service \
            save force setmode reset_ub applyconfig applyconfig_map memsize autostart autostart-delay autocompact";
        for option in options.split_whitespace() {
            assert!(
                OPTIONS.iter().any(|row| row.option.split(", ").any(|name| name == option)),
                "--{option}"
            );
        }
        let docs = include_str!("../../../docs/openvz.md");
        for row in OPTIONS {
            for option in row.option.split(", ") {
                assert!(docs.contains(&format!("`--{option}`")), "docs/openvz.md has no --{option}");
            }
        }
    }
}
