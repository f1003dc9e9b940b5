//! Statistics of a cgroup in the format of `runc events --stats`.
//!
//! The types fix the JSON that engines parse; the reader fills them from the files of cgroup v2.
//! A controller that is not there leaves its part empty.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use serde::Serialize;

use super::{Cgroup, fs};
use crate::error::{Context, Result};

/// The `data` of a statistics event.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Always zero on cgroup v2, present for its readers.
    pub cpuset: Cpuset,
    /// Memory and swap.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages by size.
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time held back by the quota.
    pub throttling: Throttling,
    /// Time waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Nanoseconds of processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    /// In all.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// Outside of the kernel.
    pub user: u64,
}

/// What the quota held back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which the container ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which it used up the quota.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds held back.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Pressure stall information of one resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Psi {
    /// Some task waited.
    pub some: PsiLine,
    /// All tasks waited.
    pub full: PsiLine,
}

/// Shares of time in percent, and the total in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PsiLine {
    /// Of the last 10 seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last 5 minutes.
    pub avg300: f64,
    /// Since the cgroup exists.
    pub total: u64,
}

/// What cgroup v1 told of cpusets.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Cpuset {
    pub cpu_exclusive: u64,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Bytes of memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Of files.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory plus swap, as cgroup v1 counted it.
    pub swap: MemoryEntry,
    /// Not counted apart on cgroup v2.
    pub kernel: MemoryEntry,
    /// Not counted apart on cgroup v2.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// Processes killed for lack of it, which runc does not tell.
    #[serde(rename = "oomKills", skip_serializing_if = "is_zero")]
    pub oom_kills: u64,
    /// `memory.stat`
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Time waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One limited amount.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// The limit; the greatest number is none.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most there ever was.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// Not counted on cgroup v2.
    pub failcnt: u64,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// The limit; 0 is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Time waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One device and direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlkioEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read` or `Write`.
    pub op: &'static str,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    /// Bytes reserved or in use.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// How often the limit refused some.
    pub failcnt: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Cgroup {
    /// Reads all statistics.
    pub fn stats(&self) -> Result<Stats> {
        let dir = self.as_fd();
        read_stats(dir).doing(|| format!("reading statistics of cgroup {}", self.path().display()))
    }
}

fn read_stats(dir: BorrowedFd<'_>) -> nix::Result<Stats> {
    let mut stats = Stats::default();
    if let Some(text) = optional(dir, "cpu.stat")? {
        stats.cpu = parse_cpu(&text);
    }
    stats.cpu.psi = psi(dir, "cpu.pressure")?;
    stats.memory = memory(dir)?;
    stats.memory.psi = psi(dir, "memory.pressure")?;
    stats.pids = pids(dir)?;
    if let Some(text) = optional(dir, "io.stat")? {
        stats.blkio = parse_io(&text);
    }
    stats.blkio.psi = psi(dir, "io.pressure")?;
    stats.hugetlb = hugetlb(dir)?;
    Ok(stats)
}

/// The file's text; `None` where the controller or the kernel's option is off.
fn optional(dir: BorrowedFd<'_>, name: &str) -> nix::Result<Option<String>> {
    match fs::read(dir, name) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn optional_number(dir: BorrowedFd<'_>, name: &str) -> nix::Result<Option<u64>> {
    Ok(optional(dir, name)?.and_then(|text| match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }))
}

fn keyed_lines(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

fn parse_cpu(text: &str) -> Cpu {
    let mut cpu = Cpu::default();
    for (key, value) in keyed_lines(text) {
        match key {
            "usage_usec" => cpu.usage.total = value * 1000,
            "user_usec" => cpu.usage.user = value * 1000,
            "system_usec" => cpu.usage.kernel = value * 1000,
            "nr_periods" => cpu.throttling.periods = value,
            "nr_throttled" => cpu.throttling.throttled_periods = value,
            "throttled_usec" => cpu.throttling.throttled_time = value * 1000,
            _ => {}
        }
    }
    cpu
}

fn memory(dir: BorrowedFd<'_>) -> nix::Result<Memory> {
    let mut memory = Memory::default();
    let Some(text) = optional(dir, "memory.stat")? else { return Ok(memory) };
    memory.raw = keyed_lines(&text).map(|(key, value)| (key.to_owned(), value)).collect();
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let entry = |kind: &str| -> nix::Result<MemoryEntry> {
        let read = |what: &str| optional_number(dir, &format!("memory.{kind}{what}"));
        Ok(MemoryEntry {
            usage: read("current")?.unwrap_or(0),
            limit: read("max")?.unwrap_or(0),
            max: read("peak")?.unwrap_or(0),
            failcnt: 0,
        })
    };
    memory.usage = entry("")?;
    memory.oom_kills =
        optional(dir, "memory.events")?.and_then(|text| fs::keyed(&text, "oom_kill")).unwrap_or(0);
    memory.swap = with_memory(entry("swap.")?, &memory.usage);
    Ok(memory)
}

/// Memory plus swap; its peak cannot be had from the two peaks.
fn with_memory(swap: MemoryEntry, memory: &MemoryEntry) -> MemoryEntry {
    MemoryEntry {
        usage: swap.usage + memory.usage,
        limit: swap.limit.saturating_add(memory.limit),
        max: 0,
        failcnt: 0,
    }
}

fn pids(dir: BorrowedFd<'_>) -> nix::Result<Pids> {
    let current = match optional_number(dir, "pids.current")? {
        Some(current) => current,
        None => optional(dir, "cgroup.procs")?.map_or(0, |text| text.lines().count() as u64),
    };
    // As runc reports it, no limit is 0.
    let limit = optional_number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX);
    Ok(Pids { current, limit: limit.unwrap_or(0) })
}

fn parse_io(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlkioEntry { major, minor, op, value });
            }
        }
    }
    blkio
}

fn psi(dir: BorrowedFd<'_>, name: &str) -> nix::Result<Option<Psi>> {
    Ok(optional(dir, name)?.as_deref().map(parse_psi))
}

fn parse_psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let target = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => target.avg10 = value.parse().unwrap_or_default(),
                "avg60" => target.avg60 = value.parse().unwrap_or_default(),
                "avg300" => target.avg300 = value.parse().unwrap_or_default(),
                "total" => target.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    psi
}

fn hugetlb(dir: BorrowedFd<'_>) -> nix::Result<BTreeMap<String, Hugetlb>> {
    let mut all = BTreeMap::new();
    for size in page_sizes() {
        // Reservations count what runc reports; kernels before 5.7 have none.
        let reserved = optional_number(dir, &format!("hugetlb.{size}.rsvd.current"))?;
        let usage = match reserved {
            Some(usage) => usage,
            None => match optional_number(dir, &format!("hugetlb.{size}.current"))? {
                Some(usage) => usage,
                None => break,
            },
        };
        let events = optional(dir, &format!("hugetlb.{size}.events"))?;
        let failcnt = events.and_then(|text| fs::keyed(&text, "max")).unwrap_or(0);
        all.insert(size, Hugetlb { usage, failcnt });
    }
    Ok(all)
}

/// The sizes of huge pages that this kernel has, as the files of the controller name them.
fn page_sizes() -> Vec<String> {
    let Ok(listing) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let names = listing.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| page_size(name.strip_prefix("hugepages-")?.strip_suffix("kB")?)).collect()
}

fn page_size(kilobytes: &str) -> Option<String> {
    let size: u64 = kilobytes.parse().ok()?;
    Some(match size {
        0x10_0000.. => format!("{}GB", size >> 20),
        0x400.. => format!("{}MB", size >> 10),
        _ => format!("{size}KB"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_statistics_have_the_shape_of_runc() {
        let json = serde_json::to_value(Stats::default()).unwrap();
        let entry = serde_json::json!({"limit": 0, "failcnt": 0});
        assert_eq!(json["cpu"], serde_json::json!({"usage": {"kernel": 0, "user": 0}, "throttling": {}}));
        assert_eq!(
            json["memory"],
            serde_json::json!({"usage": entry, "swap": entry, "kernel": entry, "kernelTCP": entry})
        );
        assert_eq!(json["pids"], serde_json::json!({}));
        assert_eq!(json["blkio"], serde_json::json!({}));
        assert_eq!(json["cpuset"]["sched_relax_domain_level"], 0);
        assert_eq!(json["hugetlb"], serde_json::json!({}));
    }

    #[test]
    fn processor_time_is_in_nanoseconds() {
        let cpu = parse_cpu(
            "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 2\nnr_throttled 1\nthrottled_usec 5\n",
        );
        assert_eq!(cpu.usage, CpuUsage { total: 7000, kernel: 3000, user: 4000 });
        assert_eq!(cpu.throttling, Throttling { periods: 2, throttled_periods: 1, throttled_time: 5000 });
    }

    #[test]
    fn block_devices_are_split_by_direction() {
        let blkio = parse_io("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:0 \n");
        let json = serde_json::to_value(&blkio).unwrap();
        assert_eq!(
            json["ioServiceBytesRecursive"][1],
            serde_json::json!({"major": 254, "op": "Write", "value": 2})
        );
        assert_eq!(json["ioServicedRecursive"][0]["value"], 3);
    }

    #[test]
    fn swap_is_reported_with_memory() {
        let memory = MemoryEntry { limit: 10, usage: 4, max: 5, failcnt: 0 };
        let swap = MemoryEntry { limit: 2, usage: 1, max: 1, failcnt: 0 };
        assert_eq!(with_memory(swap, &memory), MemoryEntry { limit: 12, usage: 5, max: 0, failcnt: 0 });
        let unlimited = MemoryEntry { limit: u64::MAX, ..MemoryEntry::default() };
        assert_eq!(with_memory(unlimited, &memory).limit, u64::MAX);
    }

    #[test]
    fn pressure_lines() {
        let text = "some avg10=0.50 avg60=1.00 avg300=2.25 total=99\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let psi = parse_psi(text);
        assert_eq!(psi.some, PsiLine { avg10: 0.5, avg60: 1.0, avg300: 2.25, total: 99 });
        assert_eq!(psi.full.total, 7);
    }

    #[test]
    fn page_sizes_are_named_as_the_kernel_does() {
        let sizes: Vec<_> =
            ["64", "2048", "1048576", "16777216"].map(page_size).into_iter().flatten().collect();
        assert_eq!(sizes, ["64KB", "2MB", "1GB", "16GB"]);
    }
}
