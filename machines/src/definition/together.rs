//! What values of a definition must be with respect to each other.
//!
//! Owns the checks that need more than one key. Never knows the host.

use super::forms::{PERIOD, quota};
use super::tree::Entry;
use super::{Definition, DiskKind, Isolation, Ready};
use crate::Result;

/// Refuses what does not go together; `whole` says where it was written.
pub fn check(definition: &Definition, whole: &Entry) -> Result<()> {
    let refuse = |key: &str, why: String| Err(whole.place(key).refuse(format!("{key}: {why}")));
    let (memory, cpu, io) = (&definition.memory, &definition.cpu, &definition.io);
    for (key, value) in [("memory.high", memory.high), ("memory.guarantee", memory.guarantee)] {
        if let (Some(value), Some(limit)) = (value, memory.limit)
            && value > limit
        {
            return refuse(key, format!("{value} is more than memory.limit {limit}"));
        }
    }
    if let (Some(guarantee), Some(high)) = (memory.guarantee, memory.high)
        && guarantee > high
    {
        return refuse("memory.guarantee", format!("{guarantee} is more than memory.high {high}"));
    }
    match (cpu.burst, cpu.limit) {
        (Some(burst), None) if !burst.0.is_zero() => {
            return refuse("cpu.burst", "there is no cpu.limit that it could exceed".into());
        }
        (Some(burst), Some(limit)) => {
            let most = quota(limit).unwrap_or(PERIOD);
            if burst.0.as_micros() > u128::from(most) {
                let text =
                    format!("{burst} is more than cpu.limit {limit} grants in 100 ms ({} ms)", most / 1000);
                return refuse("cpu.burst", text);
            }
        }
        _ => {}
    }
    if let (Some(count), Some(set)) = (cpu.count, &cpu.set) {
        let named = super::forms::numbers(set).map_or(0, |numbers| numbers.len());
        if named < count as usize {
            return refuse("cpu.count", format!("{count} processors of the {named} in cpu.set {set}"));
        }
    }
    if definition.disk.inodes.is_some() && definition.disk.kind == DiskKind::Disk {
        return refuse(
            "disk.inodes",
            "only an overlay can be limited so: a disk's are fixed by its size".into(),
        );
    }
    if definition.health.as_ref().is_some_and(|health| health.command.is_empty()) {
        return refuse("health", "health.command is missing".into());
    }
    if definition.boot.ready == Ready::Healthy && definition.health.is_none() {
        return refuse("boot.ready", "healthy needs a health.command".into());
    }
    if definition.vsock && definition.isolation != Isolation::Vm {
        return refuse("vsock", "only a machine with isolation = \"vm\" has a socket to the host".into());
    }
    let host_network = |interface: &super::Interface| interface.network.as_deref() == Some("host");
    for (name, interface) in definition.networks.iter().flatten() {
        let key = format!("network.{name}");
        if host_network(interface) {
            let asks = !interface.address.is_empty()
                || !interface.ports.is_empty()
                || interface.mac.is_some()
                || [&interface.down, &interface.up, &interface.down_rate, &interface.up_rate]
                    .iter()
                    .any(|r| r.is_some());
            if asks || definition.networks.as_ref().is_some_and(|all| all.len() > 1) {
                return refuse(
                    &key,
                    "the host's own network takes no addresses, ports or rates, and stands alone".into(),
                );
            }
        }
        for (guarantee, ceiling, word) in
            [(&interface.down_rate, &interface.down, "down"), (&interface.up_rate, &interface.up, "up")]
        {
            let bits = |rate: &Option<String>| {
                rate.as_ref().and_then(|rate| rate.parse::<locule_netns::rate::Rate>().ok())
            };
            if let (Some(guarantee), Some(ceiling)) = (bits(guarantee), bits(ceiling))
                && guarantee.0 > ceiling.0
            {
                return refuse(
                    &format!("{key}.{word}-rate"),
                    format!("{guarantee} is more than the ceiling {ceiling}"),
                );
            }
        }
    }
    for (number, mount) in definition.mounts.iter().enumerate() {
        let missing = [("source", mount.source.is_empty()), ("target", mount.target.is_empty())];
        if let Some((name, _)) = missing.iter().find(|(_, missing)| *missing) {
            return refuse("mount", format!("number {} has no {name}", number + 1));
        }
        if mount.source != "tmpfs" && !mount.source.starts_with('/') {
            return refuse("mount", format!("{:?} is neither an absolute path nor tmpfs", mount.source));
        }
    }
    if definition.devices.iter().any(|device| device.path.is_empty()) {
        return refuse("device", "one has no path".into());
    }
    if io.bps.is_some_and(|bps| bps.0 < 4096) {
        return refuse("io.bps", "less than a page a second stops the machine".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Definition;

    #[test]
    fn what_does_not_go_together_is_refused_where_it_stands() {
        for (text, want) in [
            (
                "[memory]\nlimit = \"1G\"\nhigh = \"2G\"\n",
                "m:3:8: memory.high: 2G is more than memory.limit 1G",
            ),
            ("[memory]\nlimit = \"1G\"\nguarantee = \"2G\"\n", "m:3:13: memory.guarantee"),
            ("[memory]\nhigh = \"1G\"\nguarantee = \"2G\"\n", "m:3:13: memory.guarantee"),
            ("[cpu]\nburst = \"10ms\"\n", "m:2:9: cpu.burst: there is no cpu.limit"),
            ("[cpu]\nlimit = 0.5\nburst = \"60ms\"\n", "m:3:9: cpu.burst: 60ms is more than"),
            ("[cpu]\ncount = 3\nset = \"0-1\"\n", "m:2:9: cpu.count"),
            ("[disk]\nkind = \"disk\"\ninodes = 5\n", "m:3:10: disk.inodes"),
            ("[health]\ninterval = \"1s\"\n", "m:1:2: health"),
            ("[boot]\nready = \"healthy\"\n", "m:2:9: boot.ready"),
            ("image = \"host\"\nvsock = true\n", "m:2:9: vsock: only a machine with isolation = \"vm\""),
            ("[network.a]\nnetwork = \"host\"\nports = [\"1:1\"]\n", "network.a"),
            ("[network.a]\nup = \"1mbit\"\nup-rate = \"2mbit\"\n", "m:3:11: network.a.up-rate"),
            ("[[mount]]\nsource = \"/a\"\n", "number 1 has no target"),
            ("[[mount]]\nsource = \"a\"\ntarget = \"/a\"\n", "neither an absolute path nor tmpfs"),
            ("[[device]]\naccess = \"r\"\n", "one has no path"),
            ("[io]\nbps = 5\n", "m:2:7: io.bps"),
        ] {
            let err = Definition::parse(text, Path::new("m")).unwrap_err().to_string();
            assert!(err.contains(want), "{text:?}: {err}");
        }
        let good = "image = \"host\"\n[cpu]\nlimit = 0.5\nburst = \"50ms\"\n[boot]\nready = \"healthy\"\n[health]\ncommand = [\"/bin/true\"]\n";
        assert!(Definition::parse(good, Path::new("m")).is_ok());
        let vsock = Definition::parse("isolation = \"vm\"\nvsock = true\n", Path::new("m")).unwrap();
        assert!(vsock.vsock && Definition::parse("vsock = false\n", Path::new("m")).is_ok());
    }
}
