//! What each option of `vzctl set`, and each name of its files, is for a machine.
//!
//! Owns the table, which `docs/openvz.md` prints, and the conversion of values.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::definition::Size;

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has keys of its own.
    Mapped,
    /// Another limit counts it: the memory's, mostly.
    Covered,
    /// There is nothing to do.
    NotNeeded,
    /// The kernel or this version cannot.
    NotPossible,
    /// vzctl does not know it, or not any more.
    Unknown,
    /// Its value was not understood.
    Unread,
}

impl Outcome {
    /// For the report.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Mapped => "mapped",
            Outcome::Covered => "covered",
            Outcome::NotNeeded => "not needed",
            Outcome::NotPossible => "not possible",
            Outcome::Unknown => "unknown",
            Outcome::Unread => "not understood",
        }
    }
}

/// An option of `vzctl set` (or names of several that are alike).
#[derive(Debug, Clone, Copy)]
pub struct Option_ {
    /// Its names without dashes.
    pub option: &'static str,
    /// Its names in the file.
    pub conf: &'static str,
    /// What it is here.
    pub outcome: Outcome,
    /// The keys of `locule set`, or the verb.
    pub here: &'static str,
    /// What differs, or why it cannot be.
    pub note: &'static str,
}

const fn row(
    option: &'static str,
    conf: &'static str,
    outcome: Outcome,
    here: &'static str,
    note: &'static str,
) -> Option_ {
    Option_ { option, conf, outcome, here, note }
}

use Outcome::{Covered, Mapped, NotNeeded, NotPossible};

/// All of them.
pub const OPTIONS: &[Option_] = &[
    row("onboot, autostart", "ONBOOT, AUTOSTART", Mapped, "boot=on|off|last", "auto is last"),
    row(
        "autostart-delay",
        "AUTOSTART_DELAY",
        NotPossible,
        "boot.after, boot.ready",
        "machines wait for each other's readiness, not for a time",
    ),
    row("bootorder", "BOOTORDER", Mapped, "boot.order", "higher starts earlier, as there"),
    row(
        "autostop",
        "AUTOSTOP",
        NotPossible,
        "init.stop-timeout",
        "machines are stopped with the host; nothing is suspended to disk",
    ),
    row("disabled", "DISABLED", Mapped, "disabled", "no --force: disabled=off first"),
    row("stop-timeout", "STOP_TIMEOUT", Mapped, "init.stop-timeout", "90 s without one, there 120"),
    row("name", "NAME", Mapped, "locule rename", "the machine's own name, in lower case"),
    row("description", "DESCRIPTION", Mapped, "description", ""),
    row("hostname", "HOSTNAME", Mapped, "hostname", "no file inside is edited"),
    row(
        "ostemplate, distribution",
        "OSTEMPLATE, DISTRIBUTION",
        Mapped,
        "labels.openvz-template",
        "the image is named at the import; packages are not templates",
    ),
    row("osrelease", "OSRELEASE", NotPossible, "", "the kernel tells its own release"),
    row("vetype", "VE_TYPE", NotNeeded, "", ""),
    row(
        "root, private",
        "VE_ROOT, VE_PRIVATE",
        NotNeeded,
        "--data",
        "a machine is one directory below /var/lib/locule/machines",
    ),
    row(
        "mount_opts, noatime",
        "MOUNT_OPTS, NOATIME",
        NotPossible,
        "",
        "the root file system is mounted with relatime; other mounts take options",
    ),
    row(
        "userpasswd",
        "",
        NotPossible,
        "locule exec NAME chpasswd",
        "run inside; nothing outside edits the machine's files",
    ),
    row(
        "ipadd, ipdel, ip",
        "IP_ADDRESS",
        Mapped,
        "network.NAME.address",
        "on a network of kind routed, which is venet's way; prefix lengths belong to the network",
    ),
    row(
        "ext_ipadd, ext_ipdel",
        "EXT_IP_ADDRESS",
        NotPossible,
        "",
        "every address of an interface is announced",
    ),
    row("netif_add, netif_del, ifname", "NETIF", Mapped, "network.NAME.network", "network.NAME= removes it"),
    row("mac", "", Mapped, "network.NAME.mac", "part of NETIF"),
    row(
        "netif_mac_renew",
        "",
        NotNeeded,
        "network.NAME.mac=",
        "without one a new one is chosen at each start",
    ),
    row("host_ifname, host_mac", "", NotNeeded, "", "the host's end is named by locule"),
    row("gw, gw6", "", NotNeeded, "", "the gateway is the network's"),
    row(
        "dhcp, dhcp6, configure",
        "",
        NotNeeded,
        "",
        "the interface is configured from outside, with addresses that stay",
    ),
    row(
        "network, bridge",
        "",
        Mapped,
        "network.NAME.network",
        "a network of that name is made once by locule network create",
    ),
    row("mac_filter", "", NotNeeded, "", "false senders are refused on every bridge and routed network"),
    row("nettype, vporttype", "", NotPossible, "", "no Open vSwitch; a CNI network can have one"),
    row(
        "default_gateway",
        "VE_DEFAULT_GATEWAY",
        NotPossible,
        "",
        "the first interface has the default route",
    ),
    row("nameserver", "NAMESERVER", Mapped, "dns", "inherit is to leave it out"),
    row("searchdomain", "SEARCHDOMAIN", Mapped, "dns.search", ""),
    row(
        "skip_arpdetect, apply_iponly",
        "SKIP_ARPDETECT, APPLY_IPONLY",
        NotNeeded,
        "",
        "addresses are claimed in files",
    ),
    row(
        "origin_sample, config_customized",
        "ORIGIN_SAMPLE, CONFIG_CUSTOMIZED",
        Mapped,
        "labels.openvz-sample",
        "",
    ),
    row(
        "local_uid, local_gid",
        "LOCAL_UID, LOCAL_GID",
        NotNeeded,
        "",
        "each machine has its own 65536 ids; privileged=on is the way to have none",
    ),
    row(
        "ram, memory, physpages, memsize",
        "PHYSPAGES, MEMSIZE",
        Mapped,
        "memory",
        "the barrier counts for nothing, as there",
    ),
    row(
        "swap, swappages",
        "SWAPPAGES",
        Mapped,
        "swap",
        "real swap of the host; nothing is slowed artificially",
    ),
    row(
        "vm_overcommit",
        "VM_OVERCOMMIT",
        NotPossible,
        "memory.high",
        "the kernel has no limit of address space for a group",
    ),
    row(
        "memguarantee",
        "MEMGUARANTEE",
        Mapped,
        "memory.guarantee",
        "a share becomes bytes when it is imported",
    ),
    row(
        "vmguarpages",
        "VMGUARPAGES",
        Mapped,
        "memory.guarantee",
        "protects memory in use, not allocations to come",
    ),
    row(
        "pagecache-isolation",
        "PAGECACHE_ISOLATION",
        NotPossible,
        "memory.high",
        "the page cache counts to the machine's own memory anyway",
    ),
    row("num-memory-subgroups", "NUMMEMORYSUBGROUPS", Mapped, "cgroup.max", ""),
    row("numproc", "NUMPROC", Mapped, "pids", "threads count, as there"),
    row("avnumproc", "AVNUMPROC", NotNeeded, "", "it was an accounting hint"),
    row(
        "numfile, numflock",
        "NUMFILE, NUMFLOCK",
        NotPossible,
        "ulimit.nofile",
        "the kernel counts them for each process, not for a group; their memory counts",
    ),
    row("numpty", "NUMPTY", Mapped, "pids.ptys", ""),
    row("numsiginfo", "NUMSIGINFO", Mapped, "ulimit.sigpending", "counted in the user namespace"),
    row("lockedpages", "LOCKEDPAGES", Mapped, "ulimit.memlock", "in bytes, counted in the user namespace"),
    row(
        "shmpages",
        "SHMPAGES",
        Mapped,
        "sysctl.kernel.shmall",
        "System V segments; POSIX ones count to memory",
    ),
    row(
        "numiptent, numnetif",
        "NUMIPTENT, NUMNETIF",
        NotPossible,
        "capabilities.drop+=NET_ADMIN",
        "the kernel limits neither; their memory counts",
    ),
    row(
        "privvmpages",
        "PRIVVMPAGES",
        Mapped,
        "memory",
        "only without PHYSPAGES; address space has no limit of a group",
    ),
    row(
        "kmemsize, tcpsndbuf, tcprcvbuf, othersockbuf, dgramrcvbuf, numtcpsock, numothersock, dcachesize, oomguarpages",
        "KMEMSIZE, TCPSNDBUF, TCPRCVBUF, OTHERSOCKBUF, DGRAMRCVBUF, NUMTCPSOCK, NUMOTHERSOCK, DCACHESIZE, OOMGUARPAGES",
        Covered,
        "memory",
        "the kernel's memory and that of sockets count to memory.limit",
    ),
    row(
        "totvmpages, ipcshmpages, anonshpages, rsspages, oomguar, numsock, unixsockbuf, sockrcvbuf, numunixsock, slmmode, slmmemorylimit",
        "TOTVMPAGES, IPCSHMPAGES, ANONSHPAGES, RSSPAGES, OOMGUAR, NUMSOCK, UNIXSOCKBUF, SOCKRCVBUF, NUMUNIXSOCK, SLMMODE, SLMMEMORYLIMIT",
        Covered,
        "memory",
        "leftovers of older kernels",
    ),
    row(
        "meminfo",
        "MEMINFO",
        Mapped,
        "visible",
        "none is visible=off; otherwise the numbers are the machine's own",
    ),
    row(
        "cpuunits, cpuweight",
        "CPUUNITS, CPUWEIGHT",
        Mapped,
        "cpu.weight",
        "a tenth: 1000 is 100, the default",
    ),
    row("cpulimit", "CPULIMIT", Mapped, "cpus", "150 is 1.5; MHz are not possible"),
    row("cpus", "CPUS", Mapped, "cpu.count", "the least used ones are chosen"),
    row("cpumask", "CPUMASK", Mapped, "cpu.set", ""),
    row("nodemask", "NODEMASK", Mapped, "cpu.nodes", ""),
    row(
        "burst_cpulimit, burst_cpu_avg_usage",
        "BURST_CPULIMIT, BURST_CPU_AVG_USAGE",
        NotPossible,
        "cpu.burst",
        "the kernel saves up unused time and knows no average",
    ),
    row("ioprio", "IOPRIO", Mapped, "io.weight", "0 to 7 are 320, 365, 410, 460, 500, 550, 600, 640"),
    row(
        "iolimit",
        "IOLIMIT",
        Mapped,
        "io.bps",
        "reading and writing each, there together; a number below 4096 is MB/s, as vzctl 4 takes it",
    ),
    row("iopslimit", "IOPSLIMIT", Mapped, "io.iops", "reading and writing each, there together"),
    row("diskspace", "DISKSPACE", Mapped, "disk", "the first of two; there is no time of grace"),
    row("diskinodes", "DISKINODES", Mapped, "disk.inodes", "the first of two; overlay only"),
    row("quotatime", "QUOTATIME", NotPossible, "", "limits are hard"),
    row(
        "quotaugidlimit, diskquota, jquota",
        "QUOTAUGIDLIMIT, DISK_QUOTA, JOURNALED_QUOTA",
        NotPossible,
        "",
        "quotas of users inside are not there",
    ),
    row(
        "device-add, device-set, device-del",
        "DISK",
        NotPossible,
        "mount+=",
        "one disk a machine; a directory or a mounted disk of the host can be shown in it",
    ),
    row("autocompact", "AUTOCOMPACT", NotNeeded, "", "overlay needs none"),
    row(
        "bindmount_add, bindmount_del",
        "BINDMOUNT",
        Mapped,
        "mount+=, mount-=",
        "at the next start, as there",
    ),
    row("devnodes", "DEVNODES", Mapped, "device+=", "q (quota calls) is left out"),
    row("devices", "DEVICES", NotPossible, "device+=", "a device is named by its path, not by its numbers"),
    row("pci_add, pci_del", "PCI", NotPossible, "", "needs a machine with a kernel of its own"),
    row(
        "netdev_add, netdev_del",
        "NETDEV",
        NotPossible,
        "locule network create --kind",
        "an interface of the host is given by a network of its own",
    ),
    row(
        "capability",
        "CAPABILITY",
        Mapped,
        "capabilities.add, capabilities.drop",
        "those that OpenVZ's kernel alone had are told of",
    ),
    row(
        "features",
        "FEATURES",
        Mapped,
        "device+=",
        "tun and ppp are devices; tunnels and bridges work in the machine's network; nfs is mounted by the host; the clock is the host's",
    ),
    row("iptables", "IPTABLES", NotNeeded, "", "each machine has netfilter of its own"),
    row(
        "netfilter",
        "NETFILTER",
        Mapped,
        "capabilities.drop+=NET_ADMIN",
        "disabled; every other word leaves it all",
    ),
    row(
        "rate, ratebound",
        "RATE, RATEBOUND",
        Mapped,
        "network.NAME.up, network.NAME.up-rate",
        "with RATEBOUND=yes a ceiling (up), else a guarantee (up-rate); classes are the network's",
    ),
    row("ha_enable, ha_prio", "HA_ENABLE, HA_PRIO", NotNeeded, "", "the cluster's affair"),
    row("offline_management, offline_service", "OFFLINE_MANAGEMENT, OFFLINE_SERVICE", NotNeeded, "", ""),
    row("save", "", NotNeeded, "--runtime for its opposite", "changes are kept unless told otherwise"),
    row("force", "", NotNeeded, "", "nothing is forced: what does not hold is an error"),
    row("setmode", "", NotNeeded, "locule restart", "what needs a new start says so"),
    row(
        "reset_ub",
        "",
        NotPossible,
        "locule set NAME KEY=VALUE",
        "a key is told to the kernel again by setting it to what it is",
    ),
    row(
        "applyconfig, applyconfig_map",
        "",
        Mapped,
        "include+=PROFILE",
        "a profile stays in force and can change later; nothing of the machine's own is in one",
    ),
];

/// What one name of a file needs to know of the others.
#[derive(Debug)]
pub struct Context {
    values: BTreeMap<String, String>,
    host_memory: u64,
}

impl Context {
    /// Of all names of a file.
    pub fn of(entries: &[(String, String)], host_memory: u64) -> Context {
        Context { values: entries.iter().cloned().collect(), host_memory }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn memory(&self) -> u64 {
        let physpages = self.get("PHYSPAGES").and_then(|value| pages(value, false)).flatten();
        physpages.unwrap_or(self.host_memory)
    }

    /// The interface that addresses without one belong to.
    fn venet(&self) -> &'static str {
        if self.get("NETIF").is_some_and(|netif| !netif.is_empty()) { "venet0" } else { "eth0" }
    }

    fn first_interface(&self) -> String {
        let first = self.get("NETIF").and_then(|netif| {
            netif.split([';', ',']).find_map(|field| field.trim().strip_prefix("ifname=").map(str::to_owned))
        });
        first.unwrap_or_else(|| self.venet().to_owned())
    }
}

type Converted = (Outcome, Vec<String>, String);

/// The words of `set` that say the same, and what is to be told.
pub fn convert(name: &str, value: &str, context: &Context) -> Converted {
    if matches!(name, "VEID" | "CTID" | "UUID") {
        return (Mapped, vec![format!("labels.openvz-{}={value}", name.to_ascii_lowercase())], String::new());
    }
    let Some(row) = OPTIONS.iter().find(|row| row.conf.split(", ").any(|known| known == name)) else {
        return (Outcome::Unknown, Vec::new(), "no option of vzctl".into());
    };
    let nearest = match row.here {
        "" => row.note.to_owned(),
        here => format!("{}; nearest: {here}", row.note),
    };
    match row.outcome {
        Mapped => {}
        Covered => return (Covered, Vec::new(), row.note.into()),
        NotPossible => return (NotPossible, Vec::new(), nearest),
        other => return (other, Vec::new(), row.note.into()),
    }
    if value.is_empty() {
        return (NotNeeded, Vec::new(), "empty".into());
    }
    match mapped(name, value, context) {
        Some((words, note)) if words.is_empty() && note.is_empty() => (NotNeeded, words, "no limit".into()),
        Some((words, note)) => {
            // What has a name that is right and a value that is not is told, and does not spoil the rest.
            let (good, bad): (Vec<_>, Vec<_>) =
                words.into_iter().partition(|word| crate::set::Change::parse(word).is_ok());
            let told: Vec<_> = bad
                .iter()
                .filter_map(|word| crate::set::Change::parse(word).err())
                .map(|err| err.to_string())
                .collect();
            let outcome = if good.is_empty() && !bad.is_empty() { Outcome::Unread } else { Mapped };
            let note = std::iter::once(note)
                .chain(told)
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join("; ");
            (outcome, good, note)
        }
        None => (Outcome::Unread, Vec::new(), "its value was not understood".into()),
    }
}

/// `None` where the value is not understood; no words where it says that there is no limit.
fn mapped(name: &str, value: &str, context: &Context) -> Option<(Vec<String>, String)> {
    let plain = |words: Vec<String>| Some((words, String::new()));
    let one = |key: &str, value: &str| plain(vec![format!("{key}={value}")]);
    let limit = |key: &str, limit: Option<u64>| match limit {
        Some(number) => one(key, &number.to_string()),
        None => plain(Vec::new()),
    };
    let size = |key: &str, bytes: Option<u64>| match bytes {
        Some(bytes) => one(key, &Size(bytes).to_string()),
        None => plain(Vec::new()),
    };
    let list = |key: &str, words: Vec<String>| {
        plain(if words.is_empty() { words } else { vec![format!("{key}={}", words.join(","))] })
    };
    let words = || value.split([' ', ',']).filter(|word| !word.is_empty());
    match name {
        "ONBOOT" | "AUTOSTART" => {
            let word = match value {
                "yes" | "on" => "on",
                "no" | "off" => "off",
                "auto" => "last",
                _ => return None,
            };
            one("boot", word)
        }
        "BOOTORDER" => one("boot.order", value),
        "DISABLED" => one("disabled", value),
        "STOP_TIMEOUT" => one("init.stop-timeout", &format!("{}s", value.parse::<u64>().ok()?)),
        "NAME" => Some((Vec::new(), "the machine's name, unless another one is given".into())),
        "DESCRIPTION" => one("description", value),
        "HOSTNAME" => one("hostname", value),
        "OSTEMPLATE" | "DISTRIBUTION" => one("labels.openvz-template", value),
        "ORIGIN_SAMPLE" => one("labels.openvz-sample", value),
        "CONFIG_CUSTOMIZED" => one("labels.openvz-customized", value),
        "IP_ADDRESS" => {
            let interface = context.venet();
            let addresses: Vec<_> =
                words().map(|word| word.split('/').next().unwrap_or(word).to_owned()).collect();
            if addresses.is_empty() {
                return plain(addresses);
            }
            let all = format!("network.{interface}.address={}", addresses.join(","));
            let note = "a network called venet is made once: locule network create --kind routed venet";
            // Without one good address there is nothing to have a network for.
            if crate::set::Change::parse(&all).is_err() {
                return None;
            }
            Some((vec![format!("network.{interface}.network=venet"), all], note.into()))
        }
        "NETIF" => netif(value),
        "NAMESERVER" if value == "inherit" => plain(Vec::new()),
        "NAMESERVER" => list("dns", words().map(str::to_owned).collect()),
        "SEARCHDOMAIN" if value == "inherit" => plain(Vec::new()),
        "SEARCHDOMAIN" => list("dns.search", words().map(str::to_owned).collect()),
        "PHYSPAGES" => size("memory", pages(value, false)?),
        "MEMSIZE" => size("memory", Some(value.parse::<u64>().ok()?.checked_mul(1 << 20)?)),
        "SWAPPAGES" => match pages(value, true)? {
            Some(bytes) => size("swap", Some(bytes)),
            None => plain(Vec::new()),
        },
        "PRIVVMPAGES"
            if context.get("PHYSPAGES").and_then(|value| pages(value, false)).flatten().is_some() =>
        {
            Some((Vec::new(), "PHYSPAGES is the limit; address space has none".into()))
        }
        "PRIVVMPAGES" => size("memory", pages(value, false)?),
        "MEMGUARANTEE" if value == "auto" => Some((Vec::new(), "auto: none".into())),
        "MEMGUARANTEE" => {
            let percent: u64 = value.trim_end_matches('%').parse().ok().filter(|percent| *percent <= 100)?;
            size(
                "memory.guarantee",
                Some((context.memory() as u128 * u128::from(percent) / 100) as u64 & !4095)
                    .filter(|bytes| *bytes > 0),
            )
        }
        "VMGUARPAGES" if context.get("MEMGUARANTEE").is_some() => {
            Some((Vec::new(), "MEMGUARANTEE is there".into()))
        }
        // Guaranteeing more than the limit is no guarantee.
        "VMGUARPAGES" => {
            size("memory.guarantee", pages(value, false)?.map(|bytes| bytes.min(context.memory())))
        }
        "NUMMEMORYSUBGROUPS" => limit("cgroup.max", count(value)?),
        "NUMPROC" => limit("pids", count(value)?),
        "NUMPTY" => limit("pids.ptys", count(value)?),
        "NUMSIGINFO" => limit("ulimit.sigpending", count(value)?),
        "LOCKEDPAGES" => limit("ulimit.memlock", pages(value, false)?),
        "SHMPAGES" => limit("sysctl.kernel.shmall", pages(value, false)?.map(|bytes| bytes >> 12)),
        "MEMINFO" if value.starts_with("none") => one("visible", "off"),
        "MEMINFO" => one("visible", "on"),
        "CPUUNITS" | "CPUWEIGHT" => {
            let units: u64 = value.split(':').next_back()?.parse().ok()?;
            one("cpu.weight", &(units / 10).clamp(1, 10_000).to_string())
        }
        "CPULIMIT" => {
            if value.ends_with(['m', 'M']) {
                return Some((Vec::new(), "MHz are not possible: name processors, as cpus=1.5".into()));
            }
            let percent: f64 = value.trim_end_matches('%').parse().ok()?;
            if percent == 0.0 { plain(Vec::new()) } else { one("cpus", &(percent / 100.0).to_string()) }
        }
        "CPUS" => limit("cpu.count", count(value)?),
        "CPUMASK" if matches!(value, "auto" | "all") => plain(Vec::new()),
        "CPUMASK" => one("cpu.set", value),
        "NODEMASK" if matches!(value, "auto" | "all") => plain(Vec::new()),
        "NODEMASK" => one("cpu.nodes", value),
        "IOPRIO" => {
            let weights = [320, 365, 410, 460, 500, 550, 600, 640];
            one("io.weight", &weights.get(value.parse::<usize>().ok()?)?.to_string())
        }
        "IOLIMIT" => {
            let bytes = suffixed(value, 1)?;
            let bytes = if bytes < 4096 { bytes << 20 } else { bytes };
            size("io.bps", Some(bytes).filter(|bytes| *bytes > 0))
        }
        "IOPSLIMIT" => limit("io.iops", count(value)?),
        "DISKSPACE" => {
            let first = value.split(':').next()?;
            if first == "unlimited" {
                plain(Vec::new())
            } else {
                size("disk", Some(suffixed(first, 1024)?).filter(|bytes| *bytes > 0))
            }
        }
        "DISKINODES" => limit("disk.inodes", count(value.split(':').next()?)?),
        "BINDMOUNT" => plain(value.split_whitespace().map(bind).collect()),
        "DEVNODES" => {
            let device = |word: &str| {
                let (path, access) = word.split_once(':').unwrap_or((word, "rw"));
                let access: String = access.chars().filter(|c| "rw".contains(*c)).collect();
                (path != "none" && !access.is_empty())
                    .then(|| format!("device+=/dev/{}:{access}", path.trim_start_matches("/dev/")))
            };
            plain(words().filter_map(device).collect())
        }
        "CAPABILITY" => {
            let one = |word: &str| {
                let (name, on) = word.split_once(':').unwrap_or((word, "on"));
                format!(
                    "capabilities.{}+={}",
                    if on == "on" { "add" } else { "drop" },
                    name.to_ascii_uppercase()
                )
            };
            plain(words().map(one).collect())
        }
        "FEATURES" => {
            let mut changes = Vec::new();
            let mut notes = Vec::new();
            for word in words() {
                match word.split_once(':').unwrap_or((word, "on")) {
                    (_, "off") => {}
                    ("tun", _) => changes.push("device+=/dev/net/tun:rw".into()),
                    ("ppp", _) => changes.push("device+=/dev/ppp:rw".into()),
                    ("nfs" | "nfsd", _) => notes.push("nfs: mounted by the host, and shown by mount+="),
                    ("time", _) => notes.push("time: the clock is the host's"),
                    ("sit" | "ipip" | "ipgre" | "bridge" | "sysfs" | "ipv6", _) => {}
                    (_, _) => notes.push("an unknown feature"),
                }
            }
            if changes.is_empty() && notes.is_empty() {
                notes.push("works without being asked for");
            }
            Some((changes, notes.join("; ")))
        }
        "NETFILTER" if value == "disabled" => plain(vec!["capabilities.drop+=NET_ADMIN".into()]),
        "NETFILTER" => Some((Vec::new(), "each machine has netfilter of its own".into())),
        "RATE" => {
            // DEVICE:CLASS:KBIT, class 1 being all traffic that has none of its own.
            let kbit: u64 = words().next()?.rsplit(':').next()?.parse().ok()?;
            let key = if context.get("RATEBOUND") == Some("yes") { "up" } else { "up-rate" };
            let note = if words().count() > 1 { "the first class alone" } else { "" };
            Some((vec![format!("network.{}.{key}={kbit}kbit", context.first_interface())], note.into()))
        }
        "RATEBOUND" => Some((Vec::new(), "with RATE".into())),
        _ => None,
    }
}

/// The interfaces of a NETIF line.
fn netif(value: &str) -> Option<(Vec<String>, String)> {
    let (mut changes, mut left) = (Vec::new(), Vec::new());
    for interface in value.split(';').filter(|interface| !interface.trim().is_empty()) {
        let fields: Vec<_> = interface.split(',').filter_map(|field| field.trim().split_once('=')).collect();
        let name = fields.iter().find(|(key, _)| *key == "ifname")?.1;
        let mut network = None;
        for (key, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            match *key {
                "ifname" => {}
                "network" | "bridge" => network = Some(*value),
                "mac" => changes.push(format!("network.{name}.mac={value}")),
                "ip" => {
                    let addresses: Vec<_> =
                        value.split([' ', ':']).filter(|_| !value.contains("::")).collect();
                    let addresses = if addresses.is_empty() { vec![*value] } else { addresses };
                    for address in addresses {
                        let bare = address.split('/').next().unwrap_or(address);
                        changes.push(format!("network.{name}.address+={bare}"));
                    }
                }
                other => left.push(other.to_owned()),
            }
        }
        // Without a network of its own it is on the default one, as every machine's first.
        changes.push(format!("network.{name}.network={}", network.unwrap_or("default")));
    }
    left.sort();
    left.dedup();
    let note = if left.is_empty() {
        String::new()
    } else {
        format!("left out, as the network decides: {}", left.join(", "))
    };
    Some((changes, note))
}

/// `[source:]target[,option…]`.
fn bind(word: &str) -> String {
    let mut parts = word.split(',');
    let place = parts.next().unwrap_or_default();
    let (source, target) = place.split_once(':').unwrap_or((place, place));
    let options: Vec<_> = parts.collect();
    let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
    format!("mount+={source}:{target}{options}")
}

/// The limit of `barrier[:limit]`; `Some(None)` is none.
fn last(value: &str) -> Option<Option<&str>> {
    let limit = value.split(':').next_back()?;
    // Half of the address space is what vzctl writes for no limit.
    let none =
        limit == "unlimited" || limit.parse::<u64>().is_ok_and(|number| number >= i64::MAX as u64 >> 12);
    Some(if none { None } else { Some(limit) })
}

/// Bytes of a number of pages; nothing for no limit, which 0 is as well unless `zero` is a number.
fn pages(value: &str, zero: bool) -> Option<Option<u64>> {
    let Some(limit) = last(value)? else { return Some(None) };
    let bytes = suffixed(limit, 4096)?;
    Some(Some(bytes).filter(|bytes| zero || *bytes > 0))
}

/// A number of things.
fn count(value: &str) -> Option<Option<u64>> {
    let Some(limit) = last(value)? else { return Some(None) };
    let number: u64 = limit.parse().ok()?;
    Some(Some(number).filter(|number| *number > 0))
}

/// A number with vzctl's suffix; without one it is in units of `unit` bytes.
fn suffixed(text: &str, unit: u64) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    match suffix.to_ascii_uppercase().as_str() {
        "" => number.parse::<u64>().ok()?.checked_mul(unit),
        "P" => number.parse::<u64>().ok()?.checked_mul(4096),
        "B" => number.parse().ok(),
        _ => text.parse::<Size>().ok().map(|size| size.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_vzctls() {
        for (value, bytes) in [
            ("262144", Some(1 << 30)),
            ("0:262144", Some(1 << 30)),
            ("512M", Some(512 << 20)),
            ("0:1G", Some(1 << 30)),
            ("100p", Some(409_600)),
            ("4096B", Some(4096)),
            ("unlimited", None),
            ("0", None),
            ("9223372036854775807:9223372036854775807", None),
        ] {
            assert_eq!(pages(value, false), Some(bytes), "{value}");
        }
        assert_eq!(pages("0", true), Some(Some(0)));
        assert_eq!((pages("x", false), count("5x"), suffixed("", 1)), (None, None, None));
    }

    #[test]
    fn every_mapped_row_converts() {
        let context = Context::of(&[], 1 << 30);
        for row in OPTIONS.iter().filter(|row| row.outcome == Mapped && !row.conf.is_empty()) {
            for name in row.conf.split(", ") {
                let good = [
                    "yes",
                    "10",
                    "eth0:1:100",
                    "ifname=eth0",
                    "10.0.0.1",
                    "a.b",
                    "0-1",
                    "/a:/b",
                    "NET_ADMIN:on",
                    "4",
                    "1:2",
                ];
                let known = good.iter().any(|value| mapped(name, value, &context).is_some());
                assert!(known, "{name} is mapped, and no value converts");
            }
        }
    }

    /// Values of all kinds: words that `set` takes or a note, and never a panic.
    #[test]
    fn nonsense_harms_nothing() {
        let letters: Vec<char> = "019.:;,=/-_ aMGKP%µ\"[]ifname".chars().collect();
        let mut state = 7_u64;
        let context = Context::of(&[("NETIF".into(), "ifname=".into())], 1 << 30);
        for row in OPTIONS.iter().flat_map(|row| row.conf.split(", ")) {
            for _ in 0..200 {
                let mut value = String::new();
                for _ in 0..12 {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    value.push(letters[(state >> 33) as usize % letters.len()]);
                }
                let (_, words, _) = convert(row, value.trim(), &context);
                for word in words {
                    crate::set::Change::parse(&word).unwrap();
                }
            }
        }
    }
}
