//! One reading of a running machine: processor, memory, devices, tasks, network, disk, and the pressure on each.
//!
//! Owns the reading's form, which `stats` and `top` print. Counters count up since the start; what the kernel or the
//! machine has not is absent. A reading costs some fifteen opened files and no process of the machine's notices it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use locule_runtime::{Container, Result, Status, cgroup};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::group::{self, Group};

/// What a machine uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reading {
    /// Its name.
    pub name: String,
    /// How it fares.
    pub status: Status,
    /// Its first process.
    pub pid: i32,
    /// Seconds since it started.
    pub uptime: f64,
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Block devices, together.
    pub io: Io,
    /// Tasks.
    pub pids: Pids,
    /// Interfaces by name as inside, without loopback; absent where it has the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<BTreeMap<String, Interface>>,
    /// Its root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
}

/// Processor time, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// In all.
    pub usage: u64,
    /// Outside of the kernel.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Held back by the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled: Option<u64>,
    /// Most processors at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Waiting for a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes; absent numbers without the controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// In use, page cache included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<u64>,
    /// Of that, what cannot be had back without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working: Option<u64>,
    /// Most there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Swap in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Most swap there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_limit: Option<u64>,
    /// Processes killed for lack of it, those by a virtual machine's own kernel included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// How often the limit was met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_hits: Option<u64>,
    /// Waiting for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Io {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Waiting for a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Most there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Refused for the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
}

/// An interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets lost both ways.
    pub dropped: u64,
}

/// A root file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Bytes in use.
    pub usage: u64,
    /// Bytes that there can be.
    pub size: u64,
}

/// Shares of time in which tasks waited: in percent of the last ten seconds, and microseconds since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some did.
    pub some: f64,
    /// All did.
    pub full: f64,
    /// Some did, since the start.
    pub some_total: u64,
    /// All did, since the start.
    pub full_total: u64,
}

/// Reads a container; `None` when it does not run.
pub fn read(container: &Container) -> Result<Option<Reading>> {
    let status = container.status()?;
    let state = container.state();
    let (Some(init), false) = (&state.init, matches!(status, Status::Stopped | Status::Creating)) else {
        return Ok(None);
    };
    let mut reading = Reading { name: state.id.clone(), status, pid: init.pid, ..Reading::default() };
    reading.uptime = uptime(init.start_time).as_secs_f64();
    let path = state
        .cgroup
        .as_ref()
        .map(|record| Path::new(cgroup::MOUNT).join(record.path.strip_prefix("/").unwrap_or(&record.path)));
    if let Some(group) = path.as_deref().and_then(Group::open) {
        fill(&mut reading, &group);
    }
    if container.is_vm()
        && let (Some(kills), Ok(inner)) = (&mut reading.memory.oom_kills, container.inner_kills())
    {
        *kills += inner;
    }
    reading.network = network(init.pid);
    reading.disk = disk(&state.rootfs);
    Ok(Some(reading))
}

/// How long a process that started at `ticks` since boot has been running.
pub fn uptime(ticks: u64) -> Duration {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    // Clock ticks are hundredths of a second (USER_HZ).
    now.saturating_sub(Duration::from_millis(ticks.saturating_mul(10)))
}

fn fill(reading: &mut Reading, group: &Group) {
    let stat = group.text("cpu.stat").unwrap_or_default();
    let of = |key| group::value(&stat, key);
    reading.cpu = Cpu {
        usage: of("usage_usec").unwrap_or(0),
        user: of("user_usec").unwrap_or(0),
        system: of("system_usec").unwrap_or(0),
        throttled: of("throttled_usec"),
        limit: group.text("cpu.max").as_deref().and_then(processors),
        pressure: group.text("cpu.pressure").as_deref().map(pressure),
    };
    let stat = group.text("memory.stat").unwrap_or_default();
    let events = group.text("memory.events").unwrap_or_default();
    let usage = group.number("memory.current");
    // What kubelet and docker call the working set.
    let working = usage.map(|usage| usage.saturating_sub(group::value(&stat, "inactive_file").unwrap_or(0)));
    reading.memory = Memory {
        usage,
        working,
        limit: group.least("memory.max"),
        swap: group.number("memory.swap.current"),
        swap_limit: group.least("memory.swap.max"),
        oom_kills: group::value(&events, "oom_kill"),
        limit_hits: group::value(&events, "max"),
        pressure: group.text("memory.pressure").as_deref().map(pressure),
    };
    let devices = group::devices(&group.text("io.stat").unwrap_or_default());
    reading.io = Io {
        read_bytes: devices.iter().map(|device| device.read_bytes).sum(),
        written_bytes: devices.iter().map(|device| device.written_bytes).sum(),
        reads: devices.iter().map(|device| device.reads).sum(),
        writes: devices.iter().map(|device| device.writes).sum(),
        pressure: group.text("io.pressure").as_deref().map(pressure),
    };
    reading.pids = Pids {
        current: group.number("pids.current"),
        limit: group.least("pids.max"),
        refused: group.text("pids.events").and_then(|text| group::value(&text, "max")),
    };
}

fn processors(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

fn pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let of =
            |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let share = of("avg10").and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let total = of("total").and_then(|text| text.parse().ok()).unwrap_or(0);
        match line.split_whitespace().next() {
            Some("some") => (pressure.some, pressure.some_total) = (share, total),
            Some("full") => (pressure.full, pressure.full_total) = (share, total),
            _ => {}
        }
    }
    pressure
}

/// The interfaces of the network namespace of process `pid`.
fn network(pid: i32) -> Option<BTreeMap<String, Interface>> {
    let own = std::fs::read_link("/proc/self/ns/net").ok()?;
    let its = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    if own == its {
        return None;
    }
    Some(interfaces(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?))
}

fn interfaces(text: &str) -> BTreeMap<String, Interface> {
    let lines = text.lines().skip(2);
    let read = |line: &str| {
        // A name may hold a colon (an old alias), never a space.
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let of = |at: usize| numbers.get(at).copied().unwrap_or(0);
        let interface = Interface {
            received_bytes: of(0),
            received_packets: of(1),
            sent_bytes: of(8),
            sent_packets: of(9),
            dropped: of(3) + of(11),
        };
        Some((name.trim().to_owned(), interface))
    };
    lines.filter_map(read).filter(|(name, _)| name != "lo").collect()
}

/// What a root file system says of itself, which knows its quota or is a file system of its own.
fn disk(rootfs: &Path) -> Option<Disk> {
    let told = nix::sys::statvfs::statvfs(rootfs).ok()?;
    let block = told.fragment_size() as u64;
    let size = told.blocks() as u64 * block;
    Some(Disk { usage: size.saturating_sub(told.blocks_free() as u64 * block), size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::fixture;

    #[test]
    fn a_group_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let psi = "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=4\n";
        fixture(
            &path,
            &[
                ("cpu.stat", "usage_usec 7\nuser_usec 4\nsystem_usec 3\nthrottled_usec 2\n"),
                ("cpu.max", "150000 100000\n"),
                ("memory.current", "1000\n"),
                ("memory.max", "max\n"),
                ("memory.stat", "inactive_file 300\n"),
                ("memory.events", "max 5\noom 2\noom_kill 1\n"),
                ("memory.pressure", psi),
                ("pids.current", "3\n"),
                ("pids.max", "10\n"),
                (
                    "io.stat",
                    "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n8:16 rbytes=10 wbytes=20 rios=30 wios=40\n",
                ),
            ],
        );
        let mut reading = Reading::default();
        fill(&mut reading, &Group::open(&path).unwrap());
        assert_eq!((reading.cpu.usage, reading.cpu.throttled, reading.cpu.limit), (7, Some(2), Some(1.5)));
        let memory = &reading.memory;
        assert_eq!((memory.usage, memory.working, memory.limit), (Some(1000), Some(700), None));
        assert_eq!((memory.oom_kills, memory.limit_hits, memory.swap), (Some(1), Some(5), None));
        let told = Pressure { some: 1.5, full: 0.25, some_total: 9, full_total: 4 };
        assert_eq!(memory.pressure, Some(told));
        assert_eq!((reading.io.read_bytes, reading.io.writes), (11, 44));
        assert_eq!(
            (reading.pids.current, reading.pids.limit, reading.pids.refused),
            (Some(3), Some(10), None)
        );
        assert_eq!(reading.cpu.pressure, None);
    }

    #[test]
    fn interfaces_are_the_kernels_table() {
        let text = "Inter-|   Receive                         |  Transmit\n face |bytes    packets errs drop |bytes\n    \
                    lo:  9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0: 1500 3 0 1 0 0 0 0 700 2 0 4 0 0 0 0\n";
        let found = interfaces(text);
        let eth0 = Interface {
            received_bytes: 1500,
            received_packets: 3,
            sent_bytes: 700,
            sent_packets: 2,
            dropped: 5,
        };
        assert_eq!(found, BTreeMap::from([("eth0".to_owned(), eth0)]));
    }
}
