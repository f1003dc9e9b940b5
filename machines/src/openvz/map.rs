//! The values of an OpenVZ configuration as changes of a definition.
//!
//! Owns the conversion; what becomes of each name is in `options.rs`.

use std::collections::BTreeMap;

use super::numbers::{count, pages, suffixed};
use super::options::Outcome::{Covered, Mapped, NotNeeded, NotPossible};
use super::options::{OPTIONS, Outcome};
use crate::definition::Size;

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

#[cfg(test)]
mod tests {
    use super::*;

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
