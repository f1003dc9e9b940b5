//! What a machine's files in /proc are made from: its control group, and the host where that has no limit.
//!
//! Owns the running sums (idle time, load). Never writes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use super::texts::{self, Cpu, Memory, Tasks};
use crate::group::{self, Group};

/// Most tasks whose states are looked at for one reading.
const LOOKED_AT: usize = 4096;
/// Up to so many tasks their states are looked at whenever /proc/stat is read, not only when the load is sampled.
const FEW: u64 = 256;

/// A file that changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    Meminfo,
    Stat,
    Loadavg,
    Swaps,
    Diskstats,
    Vmstat,
    Uptime,
}

impl Live {
    /// Its name, in /proc as in the view.
    pub fn name(self) -> &'static str {
        match self {
            Live::Meminfo => "meminfo",
            Live::Stat => "stat",
            Live::Loadavg => "loadavg",
            Live::Swaps => "swaps",
            Live::Diskstats => "diskstats",
            Live::Vmstat => "vmstat",
            Live::Uptime => "uptime",
        }
    }
}

/// The measured machine.
#[derive(Debug)]
pub struct Measure {
    group: PathBuf,
    /// When it started, by the host's clock that counts on in sleep.
    started: Duration,
    /// Processors that it sees.
    count: u32,
    /// Idle time so far, and the readings that it was counted to.
    idle: u64,
    counted: Option<(Duration, u64)>,
    load: Load,
    tasks: Tasks,
}

impl Measure {
    /// Of the machine whose control group is (or will be) `group`.
    pub fn new(group: &Path, started: Duration, count: u32) -> Measure {
        Measure {
            group: group.to_owned(),
            started,
            count,
            idle: 0,
            counted: None,
            load: Load::default(),
            tasks: Tasks::default(),
        }
    }

    /// It sees another number of processors from now on.
    pub fn set_count(&mut self, count: u32) {
        self.count = count;
    }

    /// The text of a file now; `None` where there is nothing better than what it says.
    pub fn text(&mut self, live: Live) -> Option<String> {
        let group = Group::open(&self.group)?;
        Some(match live {
            Live::Meminfo => match memory(&group) {
                Some(memory) => memory.meminfo(),
                // Without the controller the machine may use all that there is.
                None => std::fs::read_to_string("/proc/meminfo").ok()?,
            },
            Live::Swaps => memory(&group)?.swaps(),
            Live::Vmstat => {
                let devices = group::devices(&group.text("io.stat").unwrap_or_default());
                memory(&group).unwrap_or_default().vmstat(&devices, page())
            }
            Live::Diskstats => {
                texts::diskstats(&group::devices(&group.text("io.stat").unwrap_or_default()), device_name)
            }
            Live::Stat => {
                let cpu = self.cpu(&group)?;
                if group.number("pids.current").is_some_and(|tasks| tasks <= FEW) {
                    self.tasks = look(&group);
                }
                cpu.stat(self.tasks)
            }
            Live::Loadavg => texts::loadavg(self.load.averages, self.tasks),
            Live::Uptime => self.cpu(&group)?.uptime(micros(now().saturating_sub(self.started))),
        })
    }

    /// Counts the tasks that want to run, for the load; also the first time after a pause.
    pub fn sample(&mut self) {
        let Some(group) = Group::open(&self.group) else { return };
        self.tasks = look(&group);
        let mean = self.cpu(&group).map_or(0.0, |cpu| {
            let elapsed = micros(now().saturating_sub(self.started)).max(1);
            (cpu.user + cpu.system) as f64 / elapsed as f64
        });
        self.load.add((self.tasks.running + self.tasks.blocked) as f64, mean);
    }

    fn cpu(&mut self, group: &Group) -> Option<Cpu> {
        let stat = group.text("cpu.stat")?;
        let of = |key| group::value(&stat, key).unwrap_or(0);
        let (used, user, system) = (of("usage_usec"), of("user_usec"), of("system_usec"));
        let now = now();
        // What was left since the last reading, not since the start: the number of processors may have changed, and
        // idle time must never shrink.
        let (since, before) = self.counted.unwrap_or((self.started, 0));
        let offered = micros(now.saturating_sub(since)) * u64::from(self.count.max(1));
        self.idle += offered.saturating_sub(used.saturating_sub(before));
        self.counted = Some((now, used));
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = epoch.saturating_sub(now.saturating_sub(self.started)).as_secs();
        Some(Cpu { count: self.count, user, nice: of("nice_usec"), system, idle: self.idle, boot })
    }
}

/// The load of the last 1, 5 and 15 minutes.
#[derive(Debug, Default)]
struct Load {
    averages: [f64; 3],
    last: Option<Instant>,
}

impl Load {
    /// The kernel's moving average, for readings at any distance. After a pause it begins with the processors that
    /// the machine used on average, which is the best that is known.
    fn add(&mut self, tasks: f64, mean: f64) {
        let now = Instant::now();
        match self.last.map(|last| now - last).filter(|gap| *gap < super::IDLE) {
            None => self.averages = [mean; 3],
            Some(gap) => {
                for (average, minutes) in self.averages.iter_mut().zip([1.0, 5.0, 15.0]) {
                    let kept = (-gap.as_secs_f64() / (minutes * 60.0)).exp();
                    *average = *average * kept + tasks * (1.0 - kept);
                }
            }
        }
        self.last = Some(now);
    }
}

/// The machine's memory; `None` without the memory controller.
fn memory(group: &Group) -> Option<Memory> {
    let host = std::fs::read_to_string("/proc/meminfo").ok()?;
    memory_of(group, &host)
}

fn memory_of(group: &Group, host: &str) -> Option<Memory> {
    let used = group.number("memory.current")?;
    let (total, swap) = host_memory(host);
    Some(Memory {
        total: group.least("memory.max").map_or(total, |limit| limit.min(total)),
        used,
        swap: group.least("memory.swap.max").map_or(swap, |limit| limit.min(swap)),
        swapped: group.number("memory.swap.current").unwrap_or(0),
        stat: group.text("memory.stat")?,
    })
}

/// Bytes of memory and of swap in a /proc/meminfo.
pub fn host_memory(text: &str) -> (u64, u64) {
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
    };
    (of("MemTotal"), of("SwapTotal"))
}

/// The tasks of a group and their states.
fn look(group: &Group) -> Tasks {
    let mut tasks = Tasks::default();
    for dir in group.tree() {
        let Ok(processes) = std::fs::read_to_string(dir.join("cgroup.procs")) else { continue };
        for process in processes.lines() {
            let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { continue };
            for thread in threads.flatten() {
                tasks.all += 1;
                if tasks.all as usize > LOOKED_AT {
                    tasks.all = group.number("pids.current").unwrap_or(tasks.all);
                    return tasks;
                }
                let stat = std::fs::read(thread.path().join("stat")).unwrap_or_default();
                match state(&stat) {
                    Some(b'R') => tasks.running += 1,
                    Some(b'D') => tasks.blocked += 1,
                    _ => {}
                }
            }
        }
    }
    tasks
}

/// The state's letter in a /proc/PID/stat: behind the name, which may hold anything.
fn state(stat: &[u8]) -> Option<u8> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

fn device_name((major, minor): (u32, u32)) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    name.unwrap_or_else(|| format!("{major}:{minor}"))
}

fn page() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |size| size as u64)
}

/// The time since the host's boot.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::fixture;

    const HOST: &str = "MemTotal:       24572928 kB\nMemFree:        1 kB\nSwapTotal:       1048576 kB\n";

    #[test]
    fn the_host_caps_what_is_not_limited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        fixture(&path, &[("memory.current", "4096\n"), ("memory.max", "max\n"), ("memory.stat", "anon 1\n")]);
        let group = Group::open(&path).unwrap();
        let memory = memory_of(&group, HOST).unwrap();
        assert_eq!((memory.total, memory.swap), (24_572_928 << 10, 1 << 30));
        fixture(&path, &[("memory.max", "268435456\n"), ("memory.swap.max", "0\n")]);
        let memory = memory_of(&group, HOST).unwrap();
        assert_eq!((memory.total, memory.swap, memory.used), (256 << 20, 0, 4096));
        assert!(memory_of(&Group::open(dir.path()).unwrap(), HOST).is_none());
    }

    #[test]
    fn idle_is_what_the_visible_processors_left() {
        let dir = tempfile::tempdir().unwrap();
        fixture(dir.path(), &[("cpu.stat", "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n")]);
        let group = Group::open(dir.path()).unwrap();
        let started = now().saturating_sub(Duration::from_secs(10));
        let mut measure = Measure::new(dir.path(), started, 2);
        let first = measure.cpu(&group).unwrap();
        // Two processors for ten seconds, and the little that the test takes, but for three seconds.
        assert!(first.idle >= 17_000_000 && first.idle < 1_000_000_000, "{first:?}");
        fixture(dir.path(), &[("cpu.stat", "usage_usec 9000000000\nuser_usec 0\nsystem_usec 0\n")]);
        measure.set_count(1);
        assert_eq!(measure.cpu(&group).unwrap().idle, first.idle);
    }

    #[test]
    fn a_name_cannot_feign_a_state() {
        assert_eq!(state(b"7 (a) R (x) S 1 2"), Some(b'S'));
        assert_eq!(state(b"7 (sh) D 1"), Some(b'D'));
        assert_eq!(state(b""), None);
    }

    #[test]
    fn load_moves_towards_what_runs() {
        let mut load = Load::default();
        load.add(4.0, 0.5);
        assert_eq!(load.averages, [0.5; 3]);
        load.last = Some(Instant::now() - Duration::from_secs(60));
        load.add(4.0, 0.0);
        let [one, five, fifteen] = load.averages;
        assert!(one > 2.5 && one < 3.0 && five > fifteen && fifteen > 0.5, "{:?}", load.averages);
    }
}
