//! From a definition's limits to files of cgroup v2: which file, which value, and whether the kernel holds it.
//!
//! Owns the conversions and the comparison of what was wanted with what is found. Writes nothing.

pub mod cpus;
mod device;
mod held;
pub mod ptys;

pub use device::{disk_device, disk_of};
pub use held::{agrees, present, unlimited};

use locule_runtime::spec::{Cpu, Memory, Pids, Resources};

use crate::definition::Size;
use crate::definition::forms::{PERIOD, quota};
use crate::{Definition, Error, Kind, Result};

/// A file of a machine's cgroup and what goes into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The key that asks for it.
    pub key: String,
    /// The file.
    pub file: String,
    /// Its value.
    pub value: String,
}

/// The resources that a bundle asks for; `disk_device` is what the machine's disk is on.
///
/// Where `cpu.count` is asked for, processors are chosen now.
pub fn resources(definition: &Definition, disk_device: Option<(u32, u32)>) -> Result<Resources> {
    let chosen = cpus::of(definition, &cpus::Loads::read)?;
    let mut resources = Resources::default();
    for limit in wanted(definition, disk_device, chosen.as_deref())? {
        put(&mut resources, &limit.file, &limit.value);
    }
    // Without swap accounting there is no swap to forbid, which only memory's own field lets pass.
    if let Some(memory) = &mut resources.memory
        && memory.limit.is_some_and(|limit| limit > 0)
        && resources.unified.get("memory.swap.max").is_some_and(|swap| swap == "0")
    {
        resources.unified.remove("memory.swap.max");
        memory.swap = memory.limit;
    }
    Ok(resources)
}

/// Every limit that the definition asks for, in the order in which they can be made.
///
/// `chosen` are the processors for `cpu.count` or `cpu.set`.
pub fn wanted(
    definition: &Definition,
    disk_device: Option<(u32, u32)>,
    chosen: Option<&str>,
) -> Result<Vec<Limit>> {
    let (memory, cpu, io) = (&definition.memory, &definition.cpu, &definition.io);
    let mut limits = Vec::new();
    let mut push = |key: &str, file: &str, value: String| {
        limits.push(Limit { key: key.into(), file: file.into(), value });
    };
    let sizes = [
        ("memory.limit", "memory.max", memory.limit),
        ("memory.swap", "memory.swap.max", memory.swap),
        ("memory.high", "memory.high", memory.high),
        ("memory.guarantee", "memory.low", memory.guarantee),
    ];
    for (key, file, size) in sizes {
        if let Some(Size(bytes)) = size {
            push(key, file, bytes.to_string());
        }
    }
    if memory.oom_group {
        push("memory.oom-group", "memory.oom.group", "1".into());
    }
    if let Some(limit) = cpu.limit {
        let micros = quota(limit).map_err(|why| Error::invalid(format!("cpu.limit: {why}")))?;
        push("cpu.limit", "cpu.max", format!("{micros} {PERIOD}"));
    }
    if let Some(burst) = cpu.burst {
        push("cpu.burst", "cpu.max.burst", burst.0.as_micros().to_string());
    }
    if let Some(weight) = cpu.weight {
        push("cpu.weight", "cpu.weight", weight.to_string());
    }
    if let Some(chosen) = chosen {
        push(if cpu.count.is_some() { "cpu.count" } else { "cpu.set" }, "cpuset.cpus", chosen.into());
    }
    if let Some(nodes) = &cpu.nodes {
        push("cpu.nodes", "cpuset.mems", nodes.clone());
    }
    if let Some(weight) = io.weight {
        push("io.weight", "io.weight", weight.to_string());
    }
    if io.bps.is_some() || io.iops.is_some() {
        let key = if io.bps.is_some() { "io.bps" } else { "io.iops" };
        let (major, minor) = disk_device.ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                format!("{key}: the machine's disk is on no block device, so that nothing can be limited"),
            )
            .hint("keep machines on a file system of a local disk, or use disk.kind = \"disk\"")
        })?;
        let or_max = |number: Option<u64>| number.map_or("max".to_owned(), |number| number.to_string());
        let (bps, iops) = (or_max(io.bps.map(|bps| bps.0)), or_max(io.iops));
        push(key, "io.max", format!("{major}:{minor} rbps={bps} wbps={bps} riops={iops} wiops={iops}"));
    }
    if let Some(limit) = definition.pids.limit {
        push("pids.limit", "pids.max", limit.to_string());
    }
    for (name, Size(bytes)) in &definition.hugepages {
        let size: Size = name.parse().map_err(|why| Error::invalid(format!("hugepages.{name}: {why}")))?;
        for file in hugetlb(size) {
            push(&format!("hugepages.{name}"), &file, bytes.to_string());
        }
    }
    if let Some(max) = definition.cgroup.max {
        push("cgroup.max", "cgroup.max.descendants", max.to_string());
    }
    for (file, value) in &definition.cgroup.unified {
        push(&format!("cgroup.unified.{file}"), file, value.clone());
    }
    Ok(limits)
}

/// The files that limit huge pages of `size`: those in use, and those that mmap(2) reserves.
pub fn hugetlb(size: Size) -> [String; 2] {
    let unit = match size.0.trailing_zeros() {
        30.. => format!("{}GB", size.0 >> 30),
        20.. => format!("{}MB", size.0 >> 20),
        _ => format!("{}KB", size.0 >> 10),
    };
    ["max", "rsvd.max"].map(|end| format!("hugetlb.{unit}.{end}"))
}

/// The files of the cgroup that `key` (a path of a definition) decides, whether or not it is set.
pub fn files_of(key: &str) -> Vec<String> {
    let known = [
        ("memory.limit", "memory.max"),
        ("memory.swap", "memory.swap.max"),
        ("memory.high", "memory.high"),
        ("memory.guarantee", "memory.low"),
        ("memory.oom-group", "memory.oom.group"),
        ("cpu.limit", "cpu.max"),
        ("cpu.burst", "cpu.max.burst"),
        ("cpu.weight", "cpu.weight"),
        ("cpu.count", "cpuset.cpus"),
        ("cpu.set", "cpuset.cpus"),
        ("cpu.nodes", "cpuset.mems"),
        ("io.weight", "io.weight"),
        ("io.bps", "io.max"),
        ("io.iops", "io.max"),
        ("pids.limit", "pids.max"),
        ("cgroup.max", "cgroup.max.descendants"),
    ];
    if let Some((_, file)) = known.iter().find(|(known, _)| *known == key) {
        return vec![(*file).to_owned()];
    }
    if let Some(file) = key.strip_prefix("cgroup.unified.") {
        return vec![file.to_owned()];
    }
    key.strip_prefix("hugepages.")
        .and_then(|name| name.parse::<Size>().ok())
        .map(|size| hugetlb(size).to_vec())
        .unwrap_or_default()
}

/// Adds one file to `resources`: to the field that later calls reckon with, else to `unified`.
pub fn put(resources: &mut Resources, file: &str, value: &str) {
    let number = || match value {
        "max" => Some(-1),
        value => value.parse::<i64>().ok(),
    };
    match file {
        "memory.max" => resources.memory.get_or_insert_with(Memory::default).limit = number(),
        "pids.max" => resources.pids.get_or_insert_with(Pids::default).limit = number(),
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
            let cpu = resources.cpu.get_or_insert_with(Cpu::default);
            cpu.quota = if quota == "max" { Some(-1) } else { quota.parse().ok() };
            cpu.period = period.parse().ok();
        }
        "cpuset.cpus" if !value.is_empty() => {
            resources.cpu.get_or_insert_with(Cpu::default).cpus = Some(value.into());
        }
        "cpuset.mems" if !value.is_empty() => {
            resources.cpu.get_or_insert_with(Cpu::default).mems = Some(value.into());
        }
        _ => drop(resources.unified.insert(file.into(), value.into())),
    }
}

/// Whether a virtual machine's own kernel keeps what `file` says, and the host's does not.
pub fn is_inside(file: &str) -> bool {
    file.starts_with("memory.") || file.starts_with("pids.")
}

/// What `resources` has for one file: the other way round than [`put`].
pub fn remembered(resources: &Resources, file: &str) -> String {
    let number = |number: i64| if number < 0 { "max".to_owned() } else { number.to_string() };
    let memory = resources.memory.unwrap_or_default();
    let found = match file {
        "memory.max" => memory.limit.map(number),
        "pids.max" => resources.pids.and_then(|pids| pids.limit).map(number),
        // Of memory and swap together, unless a file of its own says it.
        "memory.swap.max" if !resources.unified.contains_key(file) => match (memory.swap, memory.limit) {
            (Some(both), Some(limit)) if both >= limit => Some(number(both - limit)),
            _ => None,
        },
        _ => resources.unified.get(file).cloned(),
    };
    found.unwrap_or_else(|| unlimited(file).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use locule_runtime::cgroup::{Purpose, plan};

    use super::*;

    fn definition(text: &str) -> Definition {
        Definition::parse(text, Path::new("m")).unwrap()
    }

    /// What the runtime writes for a definition.
    fn written(text: &str, disk: Option<(u32, u32)>) -> Vec<String> {
        let limits = plan(&resources(&definition(text), disk).unwrap(), Purpose::Create).unwrap();
        limits.writes.iter().map(|write| format!("{}={}", write.file, write.text().unwrap_or("?"))).collect()
    }

    #[test]
    fn every_limit_reaches_its_file() {
        for (text, want) in [
            ("memory.limit = \"512M\"", "memory.max=536870912"),
            ("memory.limit = \"512M\"\nmemory.swap = 0", "memory.swap.max=0"),
            ("memory.swap = \"1G\"", "memory.swap.max=1073741824"),
            ("memory.high = \"1G\"", "memory.high=1073741824"),
            ("memory.guarantee = \"1G\"", "memory.low=1073741824"),
            ("memory.oom-group = true", "memory.oom.group=1"),
            ("cpu.limit = 1.5", "cpu.max=150000 100000"),
            ("cpu.limit = 1\ncpu.burst = \"20ms\"", "cpu.max.burst=20000"),
            ("cpu.weight = 7", "cpu.weight=7"),
            ("cpu.set = \"0\"", "cpuset.cpus=0"),
            ("cpu.nodes = \"0\"", "cpuset.mems=0"),
            ("cpu.count = 1", "cpuset.cpus="),
            ("io.weight = 50", "io.weight=50"),
            ("io.bps = \"1M\"", "io.max=8:0 rbps=1048576 wbps=1048576 riops=max wiops=max"),
            ("io.iops = 100", "io.max=8:0 rbps=max wbps=max riops=100 wiops=100"),
            ("pids.limit = 9", "pids.max=9"),
            ("hugepages.2M = \"4M\"", "hugetlb.2MB.max=4194304"),
            ("hugepages.1G = 0", "hugetlb.1GB.rsvd.max=0"),
            ("hugepages.64K = 0", "hugetlb.64KB.max=0"),
            ("cgroup.max = 3", "cgroup.max.descendants=3"),
            ("cgroup.unified.\"memory.zswap.max\" = 0", "memory.zswap.max=0"),
        ] {
            let writes = written(text, Some((8, 0)));
            assert!(writes.iter().any(|write| write.starts_with(want)), "{text}: {writes:?}");
        }
        assert!(written("", None).is_empty());
    }

    #[test]
    fn every_live_key_of_a_file_is_wanted_from_that_file() {
        let text = "memory = {limit = \"1G\", swap = 0, high = \"1G\", guarantee = 0, oom-group = true}\n\
            cpu = {limit = 1, burst = 0, weight = 1, set = \"0\", nodes = \"0\"}\nio = {weight = 1, bps = 5000}\n\
            pids.limit = 1\nhugepages.2M = 0\ncgroup.max = 0\ncgroup.unified.\"a.b\" = 1\n";
        let definition = definition(text);
        for limit in wanted(&definition, Some((8, 0)), Some("0")).unwrap() {
            assert!(files_of(&limit.key).contains(&limit.file), "{limit:?}");
        }
        for key in crate::definition::keys::KEYS {
            let of_cgroup = key.holds == crate::definition::keys::Holds::Now
                && ["memory", "cpu", "io", "cgroup.max"].iter().any(|begin| key.path.starts_with(begin));
            if of_cgroup {
                assert_eq!(files_of(key.path)[0], key.kernel.split(' ').next().unwrap(), "{}", key.path);
            }
        }
    }

    #[test]
    fn what_was_put_is_remembered() {
        for (file, value) in [
            ("memory.max", "1048576"),
            ("memory.max", "max"),
            ("pids.max", "7"),
            ("memory.swap.max", "0"),
            ("memory.high", "4096"),
            ("memory.oom.group", "1"),
        ] {
            assert!(is_inside(file));
            let mut resources = Resources::default();
            put(&mut resources, file, value);
            assert_eq!(remembered(&resources, file), value, "{file}");
        }
        assert_eq!(remembered(&Resources::default(), "memory.max"), "max");
        assert_eq!(remembered(&Resources::default(), "memory.low"), "0");
        let text = "memory.limit = \"1M\"\nmemory.swap = 0\n";
        assert_eq!(remembered(&resources(&definition(text), None).unwrap(), "memory.swap.max"), "0");
    }

    #[test]
    fn a_limit_of_a_disk_that_is_on_no_device_is_refused() {
        let err = resources(&definition("io.bps = \"1M\""), None).unwrap_err();
        assert_eq!(err.kind(), Kind::Unsupported);
        assert!(err.to_string().starts_with("io.bps: "), "{err}");
    }
}
