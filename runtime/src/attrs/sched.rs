//! Scheduling: `process.scheduler`, `ioPriority`, `execCPUAffinity`, `linux.personality`, affinity reset.
//!
//! Owns names and ranges. Whether the caller may have a policy is the kernel's answer.

use nix::errno::Errno;

use super::Warnings;
use crate::error::{Context, Error, Result};
use crate::spec;
use crate::sys::{prctl, sched as sys};

/// `policy`, in the order of the kernel's numbers; SCHED_ISO is reserved and never implemented.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// `flags` (linux/sched.h).
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Execution domains (linux/personality.h).
const PER_LINUX: u32 = 0x0000;
const PER_LINUX32: u32 = 0x0008;

/// The most CPUs that any Linux can have.
const CPUS: u32 = 8192;

/// A checked `process.scheduler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduler(sys::Attr);

/// Checks `process.scheduler`.
pub fn plan(spec: Option<&spec::Scheduler>) -> Result<Option<Scheduler>> {
    let Some(spec) = spec else { return Ok(None) };
    let wrong = |text: String| Err(Error::invalid(format!("process.scheduler.{text}")));
    let policy = match spec.policy.as_str() {
        "" => return wrong("policy: missing".into()),
        "SCHED_ISO" => return Err(Error::unsupported("process.scheduler.policy: no kernel has SCHED_ISO")),
        name => match lookup(&POLICIES, name) {
            Some(policy) => policy,
            None => return wrong(format!("policy: unknown policy {name:?}")),
        },
    };
    let mut flags = 0;
    for name in &spec.flags {
        match lookup(&FLAGS, name) {
            Some(flag) => flags |= flag,
            None => return wrong(format!("flags: unknown flag {name:?}")),
        }
    }
    if !(-20..=19).contains(&spec.nice) {
        return wrong(format!("nice: {} is not within -20 to 19", spec.nice));
    }
    let realtime = matches!(spec.policy.as_str(), "SCHED_FIFO" | "SCHED_RR");
    match (realtime, spec.priority) {
        (true, 1..=99) | (false, 0) => {}
        (true, priority) => return wrong(format!("priority: {priority} is not within 1 to 99")),
        (false, _) => return wrong("priority: only SCHED_FIFO and SCHED_RR have one".into()),
    }
    let (runtime, deadline, period) = (spec.runtime, spec.deadline, spec.period);
    if spec.policy == "SCHED_DEADLINE" {
        // A period of 0 means the deadline (sched_setattr(2)).
        if runtime == 0 || runtime > deadline || (period != 0 && deadline > period) {
            return wrong(format!(
                "runtime, deadline, period: {runtime}, {deadline}, {period} are not 0 < runtime <= deadline <= period"
            ));
        }
    } else if runtime != 0 || deadline != 0 || period != 0 {
        return wrong("runtime, deadline, period: only SCHED_DEADLINE has them".into());
    }
    Ok(Some(Scheduler(sys::Attr {
        policy,
        flags,
        nice: spec.nice,
        priority: spec.priority.unsigned_abs(),
        runtime,
        deadline,
        period,
        ..sys::Attr::default()
    })))
}

impl Scheduler {
    /// Sets it for the calling process; needs CAP_SYS_NICE for more than the process has, so before
    /// capabilities are cut.
    pub fn apply(self) -> Result<()> {
        let name = POLICIES.iter().find(|(_, number)| *number == self.0.policy).map_or("", |(name, _)| *name);
        sys::set_attr(&self.0).map_err(|errno| {
            let error = Error::sys(errno, format!("setting process.scheduler to {name}"));
            match errno {
                Errno::EPERM if name == "SCHED_DEADLINE" => {
                    error.hint("it takes CAP_SYS_NICE and no CPU affinity narrower than the root domain")
                }
                Errno::EPERM => {
                    error.hint("it takes CAP_SYS_NICE or a matching RLIMIT_NICE or RLIMIT_RTPRIO")
                }
                Errno::EBUSY => error.hint("the CPUs have no bandwidth left for this deadline"),
                _ => error,
            }
        })
    }
}

/// A checked `process.ioPriority`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoPriority(u32);

/// Checks `process.ioPriority`.
pub fn plan_io(spec: Option<&spec::IoPriority>) -> Result<Option<IoPriority>> {
    let Some(spec) = spec else { return Ok(None) };
    let Some(class) = lookup(&CLASSES, &spec.class) else {
        return Err(Error::invalid(format!("process.ioPriority.class: unknown class {:?}", spec.class)));
    };
    match u32::try_from(spec.priority) {
        Ok(level @ 0..=7) => Ok(Some(IoPriority(class << 13 | level))),
        _ => Err(Error::invalid(format!(
            "process.ioPriority.priority: {} is not within 0 to 7",
            spec.priority
        ))),
    }
}

impl IoPriority {
    /// Sets it for the calling process.
    pub fn apply(self) -> Result<()> {
        sys::set_io_priority(self.0).map_err(|errno| {
            let error = Error::sys(errno, "setting process.ioPriority");
            match errno {
                Errno::EPERM => error.hint("IOPRIO_CLASS_RT takes CAP_SYS_ADMIN or CAP_SYS_NICE"),
                _ => error,
            }
        })
    }
}

/// A checked `linux.personality`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Personality(u32);

/// Checks `linux.personality`; flags are warned about, since the specification defines none.
pub fn plan_personality(spec: Option<&spec::Personality>) -> Result<(Option<Personality>, Warnings)> {
    let Some(spec) = spec else { return Ok((None, Warnings::new())) };
    let persona = match spec.domain.as_str() {
        "LINUX" => PER_LINUX,
        "LINUX32" => PER_LINUX32,
        domain => {
            return Err(Error::invalid(format!("linux.personality.domain: unknown domain {domain:?}"))
                .hint("`LINUX` and `LINUX32` are known"));
        }
    };
    let warnings = match spec.flags.is_empty() {
        true => vec![],
        false => vec![format!("linux.personality.flags: ignoring {}", spec.flags.join(", "))],
    };
    Ok((Some(Personality(persona)), warnings))
}

impl Personality {
    /// Sets it for the calling process, before seccomp may forbid it.
    pub fn apply(self) -> Result<()> {
        prctl::personality(self.0).map(drop).doing(|| "setting linux.personality")
    }
}

/// A set of CPUs, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuSet(Vec<u64>);

/// Checked `process.execCPUAffinity`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecAffinity {
    /// For the parent, before it puts the process into the container's cgroup.
    pub initial: Option<CpuSet>,
    /// For the process once it is inside.
    pub last: Option<CpuSet>,
}

/// Checks `process.execCPUAffinity`.
pub fn plan_exec_affinity(spec: Option<&spec::ExecCpuAffinity>) -> Result<ExecAffinity> {
    let Some(spec) = spec else { return Ok(ExecAffinity::default()) };
    let parse = |field: &str, text: &Option<String>| match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => parse_list(text, CPUS)
            .map(|mask| Some(CpuSet(mask)))
            .map_err(|err| err.context(format_args!("process.execCPUAffinity.{field}"))),
    };
    Ok(ExecAffinity { initial: parse("initial", &spec.initial)?, last: parse("final", &spec.last)? })
}

impl CpuSet {
    /// Binds process `pid` (0 is the caller) to the set.
    pub fn apply(&self, pid: i32) -> Result<()> {
        sys::set_affinity(pid, &self.0).map_err(|errno| {
            let error = Error::sys(errno, "setting process.execCPUAffinity");
            match errno {
                Errno::EINVAL => error.hint("none of these CPUs is online and in the container's cpuset"),
                _ => error,
            }
        })
    }

    /// The set as words, CPU 0 in the lowest bit of the first.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

/// Lets process `pid` (0 is the caller) run on every CPU of its cgroup, so that a container does not
/// inherit the affinity of whoever called the runtime (as runc since 1.4).
///
/// To be called once the process is in its cgroup. Refusals are no error: a task may be bound
/// in ways that it must not leave.
pub fn reset_affinity(pid: i32) -> Result<()> {
    match sys::set_affinity(pid, &[u64::MAX; CPUS as usize / 64]) {
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(Error::sys(errno, "resetting the CPU affinity")),
    }
}

/// Reads `0-3,7` into a bit mask; as in runc, blanks around items and empty items are let pass.
pub(super) fn parse_list(text: &str, limit: u32) -> Result<Vec<u64>> {
    let number = |part: &str| {
        Some(part)
            .filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|part| part.parse::<u32>().ok())
            .filter(|number| *number < limit)
            .ok_or_else(|| Error::invalid(format!("{part:?} in list {text:?} is not a number below {limit}")))
    };
    let mut mask: Vec<u64> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if first > last {
            return Err(Error::invalid(format!("range {item:?} in list {text:?} runs backwards")));
        }
        for bit in first..=last {
            let word = bit as usize / 64;
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            mask[word] |= 1 << (bit % 64);
        }
    }
    match mask.is_empty() {
        true => Err(Error::invalid(format!("list {text:?} names nothing"))),
        false => Ok(mask),
    }
}

/// Finds the number of a name in a table.
pub(super) fn lookup<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(policy: &str) -> spec::Scheduler {
        spec::Scheduler { policy: policy.into(), ..spec::Scheduler::default() }
    }

    #[test]
    fn policies_and_flags_are_numbers() {
        let mut fifo = scheduler("SCHED_FIFO");
        fifo.priority = 10;
        fifo.flags = vec!["SCHED_FLAG_RESET_ON_FORK".into(), "SCHED_FLAG_KEEP_PARAMS".into()];
        let Scheduler(attr) = plan(Some(&fifo)).unwrap().unwrap();
        assert_eq!((attr.policy, attr.priority, attr.flags), (libc::SCHED_FIFO as u32, 10, 0x11));
        let mut deadline = scheduler("SCHED_DEADLINE");
        (deadline.runtime, deadline.deadline, deadline.period) = (10_000, 20_000, 0);
        let Scheduler(attr) = plan(Some(&deadline)).unwrap().unwrap();
        assert_eq!((attr.policy, attr.runtime, attr.deadline, attr.period), (6, 10_000, 20_000, 0));
        assert_eq!(plan(None).unwrap(), None);
    }

    #[test]
    fn wrong_schedulers_are_refused() {
        let refused = |change: &dyn Fn(&mut spec::Scheduler), policy: &str, text: &str| {
            let mut spec = scheduler(policy);
            change(&mut spec);
            let err = plan(Some(&spec)).unwrap_err().to_string();
            assert!(err.contains(text), "{err}");
        };
        refused(&|_| {}, "", "policy: missing");
        refused(&|_| {}, "SCHED_FAIR", "unknown policy");
        refused(&|_| {}, "SCHED_ISO", "no kernel has SCHED_ISO");
        refused(&|spec| spec.nice = 20, "SCHED_OTHER", "nice: 20");
        refused(&|spec| spec.priority = 1, "SCHED_OTHER", "priority: only");
        refused(&|_| {}, "SCHED_RR", "priority: 0 is not within");
        refused(&|spec| spec.priority = 100, "SCHED_RR", "priority: 100");
        refused(&|spec| spec.runtime = 1, "SCHED_BATCH", "only SCHED_DEADLINE");
        refused(&|_| {}, "SCHED_DEADLINE", "0, 0, 0 are not");
        refused(&|spec| (spec.runtime, spec.deadline) = (3, 2), "SCHED_DEADLINE", "3, 2, 0 are not");
        refused(&|spec| spec.flags = vec!["SCHED_FLAG_X".into()], "SCHED_OTHER", "unknown flag");
    }

    #[test]
    fn io_priorities() {
        let plan = |class: &str, priority| plan_io(Some(&spec::IoPriority { class: class.into(), priority }));
        assert_eq!(plan("IOPRIO_CLASS_BE", 4).unwrap(), Some(IoPriority(2 << 13 | 4)));
        assert!(plan("IOPRIO_CLASS_BE", 8).is_err());
        assert!(plan("IOPRIO_CLASS_BE", -1).is_err());
        assert!(plan("IOPRIO_CLASS_NONE", 0).is_err());
        assert!(plan("", 0).is_err());
    }

    #[test]
    fn personality_flags_warn() {
        let plan = |domain: &str, flags: &[&str]| {
            plan_personality(Some(&spec::Personality {
                domain: domain.into(),
                flags: flags.iter().map(|flag| String::from(*flag)).collect(),
            }))
        };
        assert_eq!(plan("LINUX32", &[]).unwrap(), (Some(Personality(8)), vec![]));
        let (persona, warnings) = plan("LINUX", &["ADDR_NO_RANDOMIZE"]).unwrap();
        assert_eq!(persona, Some(Personality(0)));
        assert_eq!(warnings, ["linux.personality.flags: ignoring ADDR_NO_RANDOMIZE"]);
        assert!(plan("SVR4", &[]).is_err());
    }

    #[test]
    fn lists_of_cpus() {
        let parse = |text: &str| parse_list(text, CPUS).ok();
        assert_eq!(parse("0-3,7"), Some(vec![0b1000_1111]));
        assert_eq!(parse(" 0 , 2 - 3 ,,64 "), Some(vec![0b1101, 1]));
        assert_eq!(parse("8191").map(|mask| mask.len()), Some(128));
        for text in ["", " ", ",", "a", "1-", "-1", "3-1", "1-2-3", "8192", "+1", "0x1", "4294967296"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn exec_affinity_names_the_field() {
        let spec = spec::ExecCpuAffinity { initial: Some("0".into()), last: Some("x".into()) };
        let err = plan_exec_affinity(Some(&spec)).unwrap_err().to_string();
        assert!(err.starts_with("process.execCPUAffinity.final: "), "{err}");
        let spec = spec::ExecCpuAffinity { initial: Some(String::new()), last: Some("1".into()) };
        let plan = plan_exec_affinity(Some(&spec)).unwrap();
        assert_eq!((plan.initial, plan.last), (None, Some(CpuSet(vec![2]))));
    }
}
