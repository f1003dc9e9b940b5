//! The texts of /proc and /sys as a machine sees them.
//!
//! Pure: numbers in, text out. A text keeps its length from one reading to the next, so that a reader who comes
//! back for the rest of a file that changed meanwhile finds the rest where it was: numbers are set to the right
//! where the kernel does so, and elsewhere a line is filled up with spaces at its end, which no parser minds.

use std::fmt::Write;

use crate::group::{Device, value};

/// Length to which a line of several counters is filled.
const WIDE: usize = 160;
/// Length to which a line of one counter is filled.
const NARROW: usize = 48;
/// Clock ticks a second in which the kernel tells times (USER_HZ, the same on every architecture that Linux has).
const TICKS: u64 = 100;

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the machine may use.
    pub total: u64,
    /// What it uses, page cache included.
    pub used: u64,
    /// Swap that it may use.
    pub swap: u64,
    /// Swap that it uses.
    pub swapped: u64,
    /// `memory.stat`.
    pub stat: String,
}

impl Memory {
    fn of(&self, key: &str) -> u64 {
        value(&self.stat, key).unwrap_or(0)
    }

    /// Bytes that nobody uses.
    pub fn free(&self) -> u64 {
        self.total.saturating_sub(self.used)
    }

    /// Bytes that are free, or can be had without swapping.
    pub fn available(&self) -> u64 {
        // `used` contains the cache: it is added once and taken away nowhere.
        let reclaimable = self.of("active_file") + self.of("inactive_file") + self.of("slab_reclaimable");
        (self.free() + reclaimable).min(self.total)
    }

    /// /proc/meminfo.
    pub fn meminfo(&self) -> String {
        let stat = |key: &str| self.of(key);
        let shared = stat("shmem");
        let lines = [
            ("MemTotal", self.total),
            ("MemFree", self.free()),
            ("MemAvailable", self.available()),
            ("Buffers", 0),
            ("Cached", stat("file")),
            ("SwapCached", stat("swapcached")),
            ("Active", stat("active_anon") + stat("active_file")),
            ("Inactive", stat("inactive_anon") + stat("inactive_file")),
            ("Active(anon)", stat("active_anon")),
            ("Inactive(anon)", stat("inactive_anon")),
            ("Active(file)", stat("active_file")),
            ("Inactive(file)", stat("inactive_file")),
            ("Unevictable", stat("unevictable")),
            ("Mlocked", 0),
            ("SwapTotal", self.swap),
            ("SwapFree", self.swap.saturating_sub(self.swapped)),
            ("Zswap", stat("zswap")),
            ("Zswapped", stat("zswapped")),
            ("Dirty", stat("file_dirty")),
            ("Writeback", stat("file_writeback")),
            ("AnonPages", stat("anon")),
            ("Mapped", stat("file_mapped")),
            ("Shmem", shared),
            ("KReclaimable", stat("slab_reclaimable")),
            ("Slab", stat("slab")),
            ("SReclaimable", stat("slab_reclaimable")),
            ("SUnreclaim", stat("slab_unreclaimable")),
            ("KernelStack", stat("kernel_stack")),
            ("PageTables", stat("pagetables")),
            ("SecPageTables", stat("sec_pagetables")),
            ("NFS_Unstable", 0),
            ("Bounce", 0),
            ("WritebackTmp", 0),
            ("CommitLimit", self.total / 2 + self.swap),
            ("Committed_AS", stat("anon") + shared + self.swapped),
            ("VmallocUsed", stat("vmalloc")),
            ("Percpu", stat("percpu")),
            ("AnonHugePages", stat("anon_thp")),
            ("ShmemHugePages", stat("shmem_thp")),
            ("FileHugePages", stat("file_thp")),
        ];
        // No number is longer than that of a total, so the width depends on the limits alone.
        let width = 8.max(decimals((self.total + self.swap) >> 10));
        let mut text = String::with_capacity(lines.len() * 28);
        for (name, bytes) in lines {
            let name = format!("{name}:");
            let _ = writeln!(text, "{name:<15} {:>width$} kB", bytes >> 10);
        }
        text
    }

    /// /proc/swaps.
    pub fn swaps(&self) -> String {
        let mut text = String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
        if self.swap > 0 {
            let width = decimals(self.swap >> 10);
            let (size, used) = (self.swap >> 10, self.swapped >> 10);
            let _ = writeln!(text, "none{:36}virtual\t\t{size}\t{used:>width$}\t0", "");
        }
        text
    }

    /// /proc/vmstat, as far as a machine has such numbers.
    pub fn vmstat(&self, devices: &[Device], page: u64) -> String {
        let pages = |bytes: u64| bytes / page.max(1);
        let read: u64 = devices.iter().map(|device| device.read_bytes).sum();
        let written: u64 = devices.iter().map(|device| device.written_bytes).sum();
        let mut text = String::with_capacity(40 * NARROW);
        let mut line = |name: &str, number: u64| {
            fill(&mut text, &format!("{name} {number}"), NARROW);
        };
        line("nr_free_pages", pages(self.free()));
        for (name, key) in [
            ("nr_inactive_anon", "inactive_anon"),
            ("nr_active_anon", "active_anon"),
            ("nr_inactive_file", "inactive_file"),
            ("nr_active_file", "active_file"),
            ("nr_unevictable", "unevictable"),
            ("nr_slab_reclaimable", "slab_reclaimable"),
            ("nr_slab_unreclaimable", "slab_unreclaimable"),
            ("nr_anon_pages", "anon"),
            ("nr_mapped", "file_mapped"),
            ("nr_file_pages", "file"),
            ("nr_dirty", "file_dirty"),
            ("nr_writeback", "file_writeback"),
            ("nr_shmem", "shmem"),
            ("nr_page_table_pages", "pagetables"),
        ] {
            line(name, pages(self.of(key)));
        }
        line("nr_kernel_stack", self.of("kernel_stack") >> 10);
        // These two are in KiB.
        line("pgpgin", read >> 10);
        line("pgpgout", written >> 10);
        for name in [
            "pswpin",
            "pswpout",
            "pgfault",
            "pgmajfault",
            "pgrefill",
            "pgscan_kswapd",
            "pgscan_direct",
            "pgsteal_kswapd",
            "pgsteal_direct",
            "pgactivate",
            "pgdeactivate",
            "pglazyfree",
            "pglazyfreed",
            "thp_fault_alloc",
            "thp_collapse_alloc",
        ] {
            line(name, self.of(name));
        }
        text
    }
}

/// Processor time, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Processors that the machine sees.
    pub count: u32,
    /// Used outside of the kernel, that of nice processes included.
    pub user: u64,
    /// Of `user`, what nice processes used.
    pub nice: u64,
    /// Used in the kernel.
    pub system: u64,
    /// Left unused by all processors together.
    pub idle: u64,
    /// When the machine started, in seconds since 1970.
    pub boot: u64,
}

/// Tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tasks {
    /// All.
    pub all: u64,
    /// Those that run or could.
    pub running: u64,
    /// Those that wait for a device.
    pub blocked: u64,
}

impl Cpu {
    /// /proc/stat.
    pub fn stat(&self, tasks: Tasks) -> String {
        let ticks = |micros: u64| micros / (1_000_000 / TICKS);
        let all = [
            ticks(self.user.saturating_sub(self.nice)),
            ticks(self.nice),
            ticks(self.system),
            ticks(self.idle),
        ];
        let count = u64::from(self.count.max(1));
        let mut text = String::with_capacity((count as usize + 8) * WIDE);
        let mut line = |name: &str, [user, nice, system, idle]: [u64; 4]| {
            fill(&mut text, &format!("{name} {user} {nice} {system} {idle} 0 0 0 0 0 0"), WIDE);
        };
        // As the kernel: two spaces behind the sum's name.
        line("cpu ", all);
        for at in 0..count {
            // cgroup v2 knows no processor's share: each shows its part, and the parts add up.
            let part = all.map(|sum| sum / count + u64::from(at < sum % count));
            line(&format!("cpu{at}"), part);
        }
        for (name, number) in [
            ("intr", 0),
            ("ctxt", 0),
            ("btime", self.boot),
            ("processes", tasks.all),
            ("procs_running", tasks.running),
            ("procs_blocked", tasks.blocked),
        ] {
            fill(&mut text, &format!("{name} {number}"), NARROW);
        }
        fill(&mut text, "softirq 0 0 0 0 0 0 0 0 0 0 0", NARROW);
        text
    }

    /// /proc/uptime, for kernels without time namespaces.
    pub fn uptime(&self, elapsed: u64) -> String {
        let mut text = String::new();
        let hundredths = |micros: u64| (micros / 1_000_000, micros / 10_000 % 100);
        let ((up, up_part), (idle, idle_part)) = (hundredths(elapsed), hundredths(self.idle));
        fill(&mut text, &format!("{up}.{up_part:02} {idle}.{idle_part:02}"), NARROW);
        text
    }
}

/// /proc/loadavg.
pub fn loadavg(load: [f64; 3], tasks: Tasks) -> String {
    let mut text = String::new();
    let [one, five, fifteen] = load;
    // The last field is the newest pid, which nobody outside knows.
    let line = format!("{one:.2} {five:.2} {fifteen:.2} {}/{} 0", tasks.running, tasks.all.max(1));
    fill(&mut text, &line, NARROW + 16);
    text
}

/// /proc/diskstats; `name` knows a device's name.
pub fn diskstats(devices: &[Device], name: impl Fn((u32, u32)) -> String) -> String {
    let mut text = String::with_capacity(devices.len() * WIDE);
    for device in devices {
        let (major, minor) = device.number;
        let line = format!(
            "{major:>4} {minor:>7} {} {} 0 {} 0 {} 0 {} 0 0 0 0 {} 0 {} 0 0 0",
            name(device.number),
            device.reads,
            device.read_bytes >> 9,
            device.writes,
            device.written_bytes >> 9,
            device.discards,
            device.discarded_bytes >> 9,
        );
        fill(&mut text, &line, WIDE);
    }
    text
}

/// /proc/cpuinfo of a machine that sees `count` processors: the host's first ones.
pub fn cpuinfo(host: &str, count: u32) -> String {
    let mut seen = 0;
    let mut text = String::with_capacity(host.len());
    for block in host.split_inclusive("\n\n") {
        if block.starts_with("processor") {
            if seen == count {
                continue;
            }
            seen += 1;
        }
        text.push_str(block);
    }
    text
}

/// The list of processors 0 to `count` - 1 as /sys writes it.
pub fn online(count: u32) -> String {
    match count {
        0 | 1 => "0\n".into(),
        count => format!("0-{}\n", count - 1),
    }
}

/// How many processors a list such as `0-3,7` names.
pub fn listed(list: &str) -> Option<u32> {
    list.trim().split(',').try_fold(0u32, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// Adds `line`, filled up to `width`.
fn fill(text: &mut String, line: &str, width: usize) {
    let _ = writeln!(text, "{line:<width$}");
}

fn decimals(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory {
            total: 256 << 20,
            used: 100 << 20,
            swap: 64 << 20,
            swapped: 1 << 20,
            stat:
                "anon 10485760\nfile 83886080\nshmem 4194304\nactive_file 31457280\ninactive_file 20971520\n\
                   slab_reclaimable 2097152\npgfault 77\n"
                    .into(),
        }
    }

    fn number(text: &str, key: &str) -> u64 {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn cache_counts_once() {
        let text = memory().meminfo();
        assert!(text.starts_with("MemTotal:         262144 kB\nMemFree:          159744 kB\n"), "{text}");
        // Free, and the file pages on the lists, and slab; tmpfs is no cache.
        assert_eq!(number(&text, "MemAvailable:"), (156 + 30 + 20 + 2) << 10);
        assert_eq!(number(&text, "SwapFree:"), 63 << 10);
        let full = Memory { used: 300 << 20, ..memory() };
        assert_eq!(full.free(), 0);
        assert_eq!(full.available(), 52 << 20);
    }

    #[test]
    fn lengths_stay() {
        let idle = Memory { used: 0, swapped: 0, stat: String::new(), ..memory() };
        assert_eq!(memory().meminfo().len(), idle.meminfo().len());
        assert_eq!(memory().swaps().len(), idle.swaps().len());
        assert_eq!(memory().vmstat(&[], 4096).len(), idle.vmstat(&[], 4096).len());
        let busy =
            Cpu { count: 2, user: u64::MAX / 4, nice: 9, system: 1 << 50, idle: 1 << 60, boot: 1 << 31 };
        let tasks = Tasks { all: 99999, running: 300, blocked: 7 };
        let fresh = Cpu { count: 2, ..Cpu::default() };
        assert_eq!(busy.stat(tasks).len(), fresh.stat(Tasks::default()).len());
        assert_eq!(busy.uptime(1 << 60).len(), fresh.uptime(0).len());
        assert_eq!(loadavg([123.0, 0.0, 0.0], tasks).len(), loadavg([0.0; 3], Tasks::default()).len());
        let devices =
            [Device { reads: 1 << 40, read_bytes: 1 << 60, ..Device::default() }, Device::default()];
        let name = |_| "sda".to_owned();
        assert_eq!(diskstats(&devices[..1], name).len(), diskstats(&devices[1..], name).len());
    }

    #[test]
    fn processors_add_up() {
        let cpu =
            Cpu { count: 3, user: 10_070_000, nice: 20_000, system: 1_000_000, idle: 7_777_777, boot: 5 };
        let text = cpu.stat(Tasks { all: 4, running: 1, blocked: 0 });
        let fields = |line: &str| -> Vec<u64> {
            line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect()
        };
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("cpu")).map(fields).collect();
        assert_eq!(lines[0], [1005, 2, 100, 777, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lines.len(), 4);
        for at in 0..10 {
            assert_eq!(lines[0][at], lines[1..].iter().map(|line| line[at]).sum::<u64>());
        }
        assert_eq!(number(&text, "btime"), 5);
        assert_eq!(number(&text, "procs_running"), 1);
    }

    #[test]
    fn processors_are_the_first_ones() {
        let host =
            "processor\t: 0\nmodel\t: a\n\nprocessor\t: 1\nmodel\t: a\n\nprocessor\t: 2\nmodel\t: a\n\n";
        assert_eq!(cpuinfo(host, 2).matches("processor").count(), 2);
        assert_eq!(cpuinfo(host, 9), host);
        // A tail that speaks of the whole machine stays (arm).
        assert!(cpuinfo(&format!("{host}Hardware\t: x\n"), 1).ends_with("Hardware\t: x\n"));
        assert_eq!((online(1), online(4)), ("0\n".into(), "0-3\n".into()));
        assert_eq!(
            (listed("0-3,7"), listed("2\n"), listed("x"), listed("3-1")),
            (Some(5), Some(1), None, None)
        );
    }

    #[test]
    fn disks_have_the_kernels_columns() {
        let device = Device {
            number: (8, 1),
            reads: 3,
            read_bytes: 4096,
            writes: 1,
            written_bytes: 512,
            ..Device::default()
        };
        let text = diskstats(&[device], |_| "sda1".into());
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words[..10], ["8", "1", "sda1", "3", "0", "8", "0", "1", "0", "1"]);
        assert_eq!(words.len(), 20);
    }
}
