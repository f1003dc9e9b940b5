//! How large a machine is: memory and processors from the limits of its workload.
//!
//! Pure, but for two looks at the host.

use locule_runtime::spec::{Resources, StringMap};
use locule_runtime::{Error, Result};

const MIB: u64 = 1 << 20;
/// What the machine's own kernel and agent take.
const GUEST: u64 = 128 * MIB;
/// What the monitor takes beside the machine's memory.
const MONITOR: u64 = 32 * MIB;
/// Below this a workload would be killed before it says a word.
const LEAST: u64 = 4 * MIB;
/// Without a limit: at most this, and at most half of the host's.
const MOST: u64 = 4096 * MIB;
/// Processors that a machine has at most.
const PROCESSORS: u64 = 64;

/// Memory and processors of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of memory, a multiple of 2 MiB.
    pub memory: u64,
    /// Virtual processors.
    pub processors: u8,
    /// Bytes of the host's memory.
    host: u64,
}

/// Bytes by which the host's limit is above the workload's; `limit` is the latter.
///
/// A kernel describes each page of its memory in 64 bytes.
pub fn allowance(limit: Option<u64>) -> u64 {
    GUEST + MONITOR + limit.unwrap_or(0) / 32
}

/// The limits of a whole pod where its first container is made for it: containerd says them in annotations, as that container
/// itself has none.
pub fn of_pod(annotations: &StringMap, own: &Resources) -> Resources {
    let number = |name: &str| annotations.get(name)?.parse::<i64>().ok().filter(|number| *number > 0);
    let mut all = own.clone();
    if let Some(limit) = number("io.kubernetes.cri.sandbox-memory") {
        all.memory.get_or_insert_default().limit = Some(limit);
    }
    if let Some(quota) = number("io.kubernetes.cri.sandbox-cpu-quota") {
        let cpu = all.cpu.get_or_insert_default();
        cpu.quota = Some(quota);
        cpu.period = number("io.kubernetes.cri.sandbox-cpu-period").map(i64::unsigned_abs).or(cpu.period);
    }
    all
}

impl Size {
    /// The size for these limits.
    pub fn of(resources: &Resources) -> Result<Size> {
        let limit = resources.memory.and_then(|memory| memory.limit).filter(|limit| *limit > 0);
        let host = host_memory()?;
        Size::fit(limit.map(i64::unsigned_abs), processors(resources), host)
    }

    /// Bytes of memory for other limits, without a look at the host.
    pub fn memory_for(&self, resources: &Resources) -> Result<u64> {
        let limit = resources.memory.and_then(|memory| memory.limit).filter(|limit| *limit > 0);
        Ok(Size::fit(limit.map(i64::unsigned_abs), 1, self.host)?.memory)
    }

    /// Bytes that it can get while it runs: up to all that the host has.
    pub fn growth(&self) -> u64 {
        let most = self.host + GUEST + self.host / 64;
        most.saturating_sub(self.memory) / (2 * MIB) * (2 * MIB)
    }

    fn fit(limit: Option<u64>, processors: u64, host: u64) -> Result<Size> {
        let memory = match limit {
            Some(limit) if limit < LEAST => {
                return Err(Error::invalid(format!(
                    "linux.resources.memory.limit: {limit} bytes are too little for a virtual machine: give at least \
                     {} MiB",
                    LEAST / MIB
                )));
            }
            // More than the host has would be a promise only; the host's limit stays what was asked for.
            Some(limit) => limit.min(host) + GUEST + limit.min(host) / 64,
            None => (host / 2).clamp(GUEST, MOST),
        };
        if memory > host && limit.is_none() {
            return Err(Error::unsupported(format!(
                "this host has too little memory for a virtual machine: {host} bytes"
            )));
        }
        let processors = u8::try_from(processors.clamp(1, PROCESSORS)).unwrap_or(1);
        Ok(Size { memory: memory.div_ceil(2 * MIB) * 2 * MIB, processors, host })
    }
}

fn host_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map(|kib: u64| kib << 10)
        .ok_or_else(|| Error::unsupported("reading MemTotal of /proc/meminfo failed"))
}

/// As many as the quota pays for, or as many as the process may run on.
fn processors(resources: &Resources) -> u64 {
    let online = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let Some(cpu) = &resources.cpu else { return online };
    let listed = cpu.cpus.as_deref().and_then(count);
    let period = cpu.period.filter(|period| *period > 0).unwrap_or(100_000);
    let paid = cpu.quota.filter(|quota| *quota > 0).map(|quota| quota.unsigned_abs().div_ceil(period));
    online.min(listed.unwrap_or(online)).min(paid.unwrap_or(online))
}

/// How many numbers a list like `0-3,7` has.
fn count(list: &str) -> Option<u64> {
    list.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| match part.trim().split_once('-') {
            Some((first, last)) => {
                let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
                last.checked_sub(first)?.checked_add(1)
            }
            None => part.trim().parse::<u64>().ok().map(|_| 1),
        })
        .sum::<Option<u64>>()
        .filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use locule_runtime::spec::Cpu;

    use super::*;

    #[test]
    fn memory_is_the_limit_and_what_a_kernel_needs() {
        let host = 8 << 30;
        let size = Size::fit(Some(64 * MIB), 1, host).unwrap();
        assert!(size.memory > 64 * MIB + GUEST && size.memory < 64 * MIB + GUEST + 8 * MIB);
        assert!(size.memory <= 64 * MIB + allowance(Some(64 * MIB)));
        assert_eq!(size.memory % (2 * MIB), 0);
        assert_eq!(Size::fit(None, 1, host).unwrap().memory, MOST);
        assert_eq!(Size::fit(None, 1, 1 << 30).unwrap().memory, 512 * MIB);
        let err = Size::fit(Some(MIB), 1, host).unwrap_err().to_string();
        assert!(err.contains("too little for a virtual machine"), "{err}");
        // No limit at all, written as a number.
        assert!(Size::fit(Some(i64::MAX as u64), 1, host).unwrap().memory < 2 * host);
    }

    #[test]
    fn other_limits_fit_into_the_growth() {
        let host = 8 << 30;
        let size = Size::fit(Some(64 * MIB), 1, host).unwrap();
        let of = |limit| {
            let memory = locule_runtime::spec::Memory { limit: Some(limit), ..Default::default() };
            size.memory_for(&Resources { memory: Some(memory), ..Resources::default() }).unwrap()
        };
        assert_eq!(of(64 << 20), size.memory);
        assert!(of(60 << 20) < size.memory);
        assert!(of(1 << 30) > (1 << 30) + GUEST && of(-1) == MOST);
        assert!(of(i64::MAX) <= size.memory + size.growth() + 2 * MIB);
        assert_eq!(size.growth() % (2 * MIB), 0);
    }

    #[test]
    fn a_pod_is_as_large_as_its_annotations_say() {
        let of = |pairs: &[(&str, &str)]| {
            let annotations =
                pairs.iter().map(|(name, value)| (format!("io.kubernetes.cri.{name}"), (*value).to_owned()));
            of_pod(&annotations.collect(), &Resources::default())
        };
        let pod = of(&[
            ("sandbox-memory", "268435456"),
            ("sandbox-cpu-quota", "150000"),
            ("sandbox-cpu-period", "100000"),
        ]);
        assert_eq!(pod.memory.unwrap().limit, Some(256 << 20));
        let cpu = pod.cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
        // What the kubelet says of a pod without limits.
        assert_eq!(
            of(&[("sandbox-memory", "0"), ("sandbox-cpu-quota", "0"), ("x", "")]),
            Resources::default()
        );
    }

    #[test]
    fn processors_follow_quota_and_list() {
        let of = |cpu: Cpu| processors(&Resources { cpu: Some(cpu), ..Resources::default() });
        assert_eq!(of(Cpu { quota: Some(50_000), ..Cpu::default() }), 1);
        assert_eq!(of(Cpu { cpus: Some("0".into()), ..Cpu::default() }), 1);
        assert_eq!(of(Cpu { quota: Some(-1), ..Cpu::default() }), processors(&Resources::default()));
        assert_eq!(
            (count("0-3,7"), count("5"), count(""), count("3-1"), count("a")),
            (Some(5), Some(1), None, None, None)
        );
    }
}
