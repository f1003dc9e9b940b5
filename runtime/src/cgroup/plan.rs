//! `linux.resources` to writes: which files of the cgroup get which values, in which order.
//!
//! Pure: everything that can be refused without asking the kernel is refused here, and what
//! cgroup v2 has no counterpart for becomes a warning. It never touches a file.

use std::borrow::Cow;
use std::fmt::Display;

use serde::Serialize;

use super::devices::{self, Policy};
use super::plan_io;
use crate::error::{Error, Result};
use crate::spec::{Cpu, HugepageLimit, Memory, Resources};

/// Why a plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// For a new cgroup: whatever is absent has the kernel's default.
    Create,
    /// For a cgroup in use: whatever is absent stays as it is.
    Update,
}

/// What to put into a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Value {
    /// This text.
    Text(String),
    /// The present quota with this period; `cpu.max` cannot take a period alone.
    Period(u64),
}

/// What a failing write means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum OnFailure {
    /// The limit cannot be had: an error.
    Report,
    /// A file that does not exist means that there is nothing to limit.
    IgnoreMissing,
    /// A later write of the plan repeats it.
    Ignore,
    /// Where the file does not exist, another one does the same.
    Instead(&'static str, String),
}

/// One write to one file of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Write {
    /// The file's name.
    pub file: Cow<'static, str>,
    /// What goes into it.
    pub value: Value,
    /// What a failure means.
    pub on_failure: OnFailure,
}

impl Write {
    pub(super) fn new(file: impl Into<Cow<'static, str>>, value: impl Display) -> Write {
        Write { file: file.into(), value: Value::Text(value.to_string()), on_failure: OnFailure::Report }
    }

    pub(super) fn on_failure(self, on_failure: OnFailure) -> Write {
        Write { on_failure, ..self }
    }

    /// The text, where it is known before the cgroup is looked at.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Period(_) => None,
        }
    }

    /// The controller that the file belongs to.
    pub fn controller(&self) -> &str {
        self.file.split_once('.').map_or(&*self.file, |(controller, _)| controller)
    }
}

/// Everything that a document asks of a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// In the order in which they are made.
    pub writes: Vec<Write>,
    /// The device rules; absent means that they stay as they are.
    pub devices: Option<Policy>,
    /// Refuse to lower memory below its usage (`memory.checkBeforeUpdate`): memory and memory plus swap.
    pub check_memory: Option<(Option<u64>, Option<u64>)>,
    /// What was asked for and has no effect on cgroup v2.
    pub warnings: Vec<String>,
}

impl Limits {
    /// Whether a controller's file is written, so that running without a cgroup would lose a limit.
    /// Device rules do not count: they cannot be had without privileges.
    pub fn any(&self) -> bool {
        self.writes.iter().any(|write| write.controller() != "cgroup")
    }

    /// The controllers that the writes need.
    pub fn controllers(&self) -> impl Iterator<Item = &str> {
        self.writes.iter().map(Write::controller).filter(|name| *name != "cgroup")
    }
}

/// Turns `resources` into writes. `unified` comes last and so has the last word.
pub fn plan(resources: &Resources, purpose: Purpose) -> Result<Limits> {
    let mut limits = Limits::default();
    if purpose == Purpose::Create || !resources.devices.is_empty() {
        limits.devices = Some(Policy::new(&resources.devices)?);
        limits.warnings.extend(devices::unknown_access(&resources.devices));
    }
    if let Some(memory) = &resources.memory {
        plan_memory(memory, &mut limits)?;
    }
    if let Some(cpu) = &resources.cpu {
        plan_cpu(cpu, purpose, &mut limits)?;
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        limits.writes.push(Write::new("pids.max", or_max("pids.limit", limit)?));
    }
    if let Some(block_io) = &resources.block_io {
        plan_io::plan(block_io, &mut limits)?;
    }
    for limit in &resources.hugepage_limits {
        plan_hugepages(limit, &mut limits)?;
    }
    for (device, rdma) in &resources.rdma {
        let mut value = device.clone();
        for (key, number) in [("hca_handle", rdma.hca_handles), ("hca_object", rdma.hca_objects)] {
            if let Some(number) = number {
                value.push_str(&format!(" {key}={number}"));
            }
        }
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(Error::invalid(format!("resources.rdma: {device:?} is not the name of a device")));
        }
        if value != *device {
            limits.writes.push(Write::new("rdma.max", value));
        }
    }
    let network = resources.network.as_ref();
    if network.is_some_and(|n| n.class_id.unwrap_or(0) != 0 || !n.priorities.is_empty()) {
        limits.warnings.push("resources.network has no effect on cgroup v2".to_owned());
    }
    for (file, text) in &resources.unified {
        plan_unified(file, text, &mut limits)?;
    }
    leave_out_idle_weight(&mut limits);
    Ok(limits)
}

/// The kernel refuses a weight where cpu.idle is 1: idleness comes first, as for runc.
fn leave_out_idle_weight(limits: &mut Limits) {
    let idle = limits.writes.iter().rfind(|write| write.file == "cpu.idle");
    if idle.is_none_or(|write| write.text() != Some("1")) {
        return;
    }
    let before = limits.writes.len();
    limits.writes.retain(|write| write.file != "cpu.weight");
    if limits.writes.len() < before {
        limits
            .warnings
            .push("unable to apply both a weight and cpu.idle 1: cpu.weight is left out".to_owned());
    }
}

fn plan_memory(memory: &Memory, limits: &mut Limits) -> Result<()> {
    // As in runc, 0 means unset: engines write it for "no limit given".
    let limit = memory.limit.filter(|limit| *limit != 0);
    let swap = memory.swap.filter(|swap| *swap != 0);
    let limit_text = limit.map(|limit| or_max("memory.limit", limit)).transpose()?;
    let swap_text = match (limit, swap) {
        // Lifting the memory limit lifts swap too, as it did on cgroup v1.
        (Some(-1), None) | (_, Some(-1)) => Some("max".to_owned()),
        (_, None) => None,
        (Some(-1), Some(swap)) => Some(or_max("memory.swap", swap)?),
        (None, Some(swap)) => {
            return Err(Error::invalid(format!(
                "resources.memory.swap {swap} is memory plus swap, and memory.limit is not set"
            ))
            .hint("give memory.limit as well"));
        }
        (Some(limit), Some(swap)) if swap < limit => {
            return Err(Error::invalid(format!(
                "resources.memory.swap {swap} is memory plus swap, less than memory.limit {limit}"
            ))
            .hint("give the limit itself to allow no swap, -1 for unlimited swap"));
        }
        (Some(limit), Some(swap)) => Some((swap - limit).to_string()),
    };
    if let Some(text) = swap_text {
        // Without swap accounting there is no swap to forbid or to allow.
        let ignorable = matches!(&*text, "0" | "max");
        let on_failure = if ignorable { OnFailure::IgnoreMissing } else { OnFailure::Report };
        limits.writes.push(Write::new("memory.swap.max", text).on_failure(on_failure));
    }
    if let Some(text) = limit_text {
        limits.writes.push(Write::new("memory.max", text));
    }
    if let Some(low) = memory.reservation.filter(|low| *low != 0) {
        limits.writes.push(Write::new("memory.low", or_max("memory.reservation", low)?));
    }
    if memory.check_before_update == Some(true) {
        let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        limits.check_memory = Some((positive(limit), positive(swap)));
    }
    for (field, set) in [
        ("kernel", memory.kernel.is_some_and(|v| v > 0)),
        ("kernelTCP", memory.kernel_tcp.is_some_and(|v| v > 0)),
        ("swappiness", memory.swappiness.is_some()),
        ("disableOOMKiller", memory.disable_oom_killer == Some(true)),
        ("useHierarchy", memory.use_hierarchy == Some(false)),
    ] {
        if set {
            limits.warnings.push(format!("resources.memory.{field} has no effect on cgroup v2"));
        }
    }
    Ok(())
}

fn plan_cpu(cpu: &Cpu, purpose: Purpose, limits: &mut Limits) -> Result<()> {
    match cpu.idle {
        None => {}
        // cpu.weight is refused while cpu.idle is 1: idle comes first.
        Some(value @ (0 | 1)) => limits.writes.push(Write::new("cpu.idle", value)),
        Some(other) => return Err(out_of_range("cpu.idle", other, "0 or 1")),
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        limits.writes.push(Write::new("cpu.weight", weight_of_shares(shares)));
    }

    let quota = cpu.quota.filter(|quota| *quota != 0);
    if let Some(quota) = quota.filter(|quota| *quota != -1 && *quota < 1000) {
        return Err(out_of_range("cpu.quota", quota, "at least 1000 microseconds, or -1 for no limit"));
    }
    let period = cpu.period.filter(|period| *period != 0);
    if let Some(period) = period.filter(|period| !(1000..=1_000_000).contains(period)) {
        return Err(out_of_range("cpu.period", period, "1000 to 1000000 microseconds"));
    }
    if let (Some(burst), Some(quota)) = (cpu.burst, quota)
        && quota > 0
        && burst > quota.unsigned_abs()
    {
        return Err(out_of_range("cpu.burst", burst, format!("at most cpu.quota {quota}")));
    }
    let max = match (quota, period) {
        (None, None) => None,
        (None, Some(period)) if purpose == Purpose::Update => Some(Value::Period(period)),
        (quota, period) => {
            let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |q| q.to_string());
            // Without a period the kernel keeps its own.
            Some(Value::Text(period.map_or(quota.clone(), |period| format!("{quota} {period}"))))
        }
    };
    let burst = cpu.burst.map(|burst| Write::new("cpu.max.burst", burst));
    if let (Some(burst), Some(_)) = (&burst, &max) {
        // burst may never exceed quota: a smaller burst must go in before a smaller quota, a
        // greater one only after the greater quota.
        limits.writes.push(burst.clone().on_failure(OnFailure::Ignore));
    }
    if let Some(value) = max {
        limits.writes.push(Write { file: "cpu.max".into(), value, on_failure: OnFailure::Report });
    }
    limits.writes.extend(burst);

    for (file, field, list) in
        [("cpuset.cpus", "cpu.cpus", &cpu.cpus), ("cpuset.mems", "cpu.mems", &cpu.mems)]
    {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            check_list(field, list)?;
            limits.writes.push(Write::new(file, list));
        }
    }
    if cpu.realtime_runtime.unwrap_or(0) != 0 || cpu.realtime_period.unwrap_or(0) != 0 {
        let text = "resources.cpu.realtimeRuntime and realtimePeriod have no effect on cgroup v2";
        limits.warnings.push(text.to_owned());
    }
    Ok(())
}

/// `cpu.weight` for cgroup v1 `shares`, by the formula on which Kubernetes, runc (from 1.3.2) and
/// crun (from 1.23) agreed: a curve through (2, 1), (1024, 100) and (262144, 10000).
pub fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // 1024 gives 100 and the last bits of a power, which the processor's library may choose.
            (10f64.powf(exponent) - 1e-6).ceil() as u64
        }
    }
}

fn plan_hugepages(limit: &HugepageLimit, limits: &mut Limits) -> Result<()> {
    let size = &limit.page_size;
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or("");
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(out_of_range("hugepageLimits.pageSize", size, "a number with KB, MB or GB, as 2MB"));
    }
    limits.writes.push(Write::new(format!("hugetlb.{size}.max"), limit.limit));
    // Reservations are counted apart from kernel 5.7 on; without this mmap would succeed beyond
    // the limit and the process would die of SIGBUS when it touches the page.
    let reserved = Write::new(format!("hugetlb.{size}.rsvd.max"), limit.limit);
    limits.writes.push(reserved.on_failure(OnFailure::IgnoreMissing));
    Ok(())
}

fn plan_unified(file: &str, text: &str, limits: &mut Limits) -> Result<()> {
    let wrong = |why: &str| Error::invalid(format!("resources.unified {file:?}: {why}"));
    if file.contains('/') {
        return Err(wrong("must be the name of a file, without slashes"));
    }
    if file.find('.').is_none_or(|at| at == 0) {
        return Err(wrong("must be of the form CONTROLLER.PARAMETER"));
    }
    if matches!(file, "cgroup.procs" | "cgroup.threads" | "cgroup.kill" | "cgroup.freeze") {
        return Err(wrong("is an act on processes, not a limit"));
    }
    // Files such as io.max take one device a write.
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        limits.writes.push(Write::new(file.to_owned(), line));
    }
    if text.trim().is_empty() {
        limits.writes.push(Write::new(file.to_owned(), ""));
    }
    Ok(())
}

/// A number, with -1 for `max`.
fn or_max(field: &str, value: i64) -> Result<String> {
    match value {
        -1 => Ok("max".to_owned()),
        0.. => Ok(value.to_string()),
        _ => Err(out_of_range(field, value, "0 or more, or -1 for no limit")),
    }
}

/// A list of ranges as cpusets take it: `0-3,7`.
fn check_list(field: &str, list: &str) -> Result<()> {
    let number = |text: &str| text.parse::<u32>().ok();
    let legal = list.trim().split(',').all(|part| match part.split_once('-') {
        None => number(part.trim()).is_some(),
        Some((from, to)) => number(from.trim()).zip(number(to.trim())).is_some_and(|(from, to)| from <= to),
    });
    if legal { Ok(()) } else { Err(out_of_range(field, list, "a list of numbers and ranges, as 0-3,7")) }
}

pub(super) fn out_of_range(field: &str, value: impl Display, wanted: impl Display) -> Error {
    Error::invalid(format!("resources.{field} is {value}: must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(json: &str, purpose: Purpose) -> Vec<String> {
        let limits = plan(&serde_json::from_str(json).unwrap(), purpose).unwrap();
        limits.writes.iter().map(|w| format!("{}={}", w.file, w.text().unwrap_or("?"))).collect()
    }

    fn created(json: &str) -> Vec<String> {
        writes(json, Purpose::Create)
    }

    fn refusal(json: &str) -> String {
        plan(&serde_json::from_str(json).unwrap(), Purpose::Create).unwrap_err().to_string()
    }

    #[test]
    fn shares_follow_the_agreed_curve() {
        // The three points that the curve was made for, its clamped ends, and two between.
        let points =
            [(0, 1), (2, 1), (3, 2), (1024, 100), (65536, 3023), (262_144, 10_000), (u64::MAX, 10_000)];
        for (shares, weight) in points {
            assert_eq!(weight_of_shares(shares), weight, "shares {shares}");
        }
    }

    #[test]
    fn swap_is_memory_plus_swap() {
        let plan = |limit: &str, swap: &str| {
            created(&format!("{{\"memory\":{{\"limit\":{limit},\"swap\":{swap}}}}}"))
        };
        assert_eq!(plan("100", "100"), ["memory.swap.max=0", "memory.max=100"]);
        assert_eq!(plan("100", "150"), ["memory.swap.max=50", "memory.max=100"]);
        assert_eq!(plan("100", "-1"), ["memory.swap.max=max", "memory.max=100"]);
        assert_eq!(plan("-1", "0"), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(plan("-1", "7"), ["memory.swap.max=7", "memory.max=max"]);
        assert_eq!(plan("0", "0"), Vec::<String>::new());
        assert!(refusal(r#"{"memory":{"swap":5}}"#).contains("memory.limit is not set"));
        assert!(refusal(r#"{"memory":{"limit":9,"swap":5}}"#).contains("less than memory.limit 9"));
        assert!(refusal(r#"{"memory":{"limit":-2}}"#).contains("resources.memory.limit is -2"));
    }

    #[test]
    fn forbidding_swap_needs_no_swap_accounting() {
        let resources = serde_json::from_str(r#"{"memory":{"limit":9,"swap":9}}"#).unwrap();
        let limits = plan(&resources, Purpose::Create).unwrap();
        assert_eq!(limits.writes[0].on_failure, OnFailure::IgnoreMissing);
        assert_eq!(limits.writes[1].on_failure, OnFailure::Report);
    }

    #[test]
    fn quota_and_period_go_in_one_write_between_bursts() {
        let all = r#"{"cpu":{"quota":50000,"period":100000,"burst":20000}}"#;
        assert_eq!(created(all), ["cpu.max.burst=20000", "cpu.max=50000 100000", "cpu.max.burst=20000"]);
        assert_eq!(created(r#"{"cpu":{"quota":-1}}"#), ["cpu.max=max"]);
        assert_eq!(created(r#"{"cpu":{"period":50000}}"#), ["cpu.max=max 50000"]);
        assert_eq!(writes(r#"{"cpu":{"period":50000}}"#, Purpose::Update), ["cpu.max=?"]);
        assert!(refusal(r#"{"cpu":{"quota":5000,"burst":6000}}"#).contains("at most cpu.quota 5000"));
        assert!(refusal(r#"{"cpu":{"quota":5}}"#).contains("cpu.quota"));
        assert!(refusal(r#"{"cpu":{"period":5}}"#).contains("cpu.period"));
    }

    #[test]
    fn idle_comes_before_weight_and_replaces_it() {
        assert_eq!(created(r#"{"cpu":{"idle":0,"shares":1024}}"#), ["cpu.idle=0", "cpu.weight=100"]);
        assert_eq!(created(r#"{"unified":{"cpu.idle":"1","cpu.weight":"8"}}"#), ["cpu.idle=1"]);
        let resources = serde_json::from_str(r#"{"cpu":{"idle":1,"shares":1024}}"#).unwrap();
        let limits = plan(&resources, Purpose::Create).unwrap();
        assert_eq!(limits.writes.len(), 1);
        assert_eq!(limits.warnings.len(), 1);
    }

    #[test]
    fn pids_zero_is_a_limit() {
        assert_eq!(created(r#"{"pids":{"limit":0}}"#), ["pids.max=0"]);
        assert_eq!(created(r#"{"pids":{"limit":-1}}"#), ["pids.max=max"]);
        assert_eq!(created(r#"{"pids":{}}"#), Vec::<String>::new());
    }

    #[test]
    fn cpusets_are_checked() {
        assert_eq!(created(r#"{"cpu":{"cpus":"0-3,7","mems":"0"}}"#), ["cpuset.cpus=0-3,7", "cpuset.mems=0"]);
        for wrong in ["3-1", "a", "1,,2", "1-"] {
            assert!(
                refusal(&format!("{{\"cpu\":{{\"cpus\":\"{wrong}\"}}}}")).contains("cpu.cpus"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn hugepages_limit_reservations_too() {
        let plan = created(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615}]}"#);
        let max = u64::MAX;
        assert_eq!(plan, [format!("hugetlb.2MB.max={max}"), format!("hugetlb.2MB.rsvd.max={max}")]);
        assert!(refusal(r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#).contains("pageSize"));
    }

    #[test]
    fn unified_is_last_and_split_by_lines() {
        let plan = created(
            r#"{"pids":{"limit":5},"unified":{"io.max":"8:0 rbps=1\n8:16 rbps=2\n","pids.max":"6"},
                "rdma":{"mlx5_0":{"hcaHandles":3,"hcaObjects":4}}}"#,
        );
        assert_eq!(
            plan,
            [
                "pids.max=5",
                "rdma.max=mlx5_0 hca_handle=3 hca_object=4",
                "io.max=8:0 rbps=1",
                "io.max=8:16 rbps=2",
                "pids.max=6"
            ]
        );
        for wrong in ["a/b.c", "nodot", ".x", "cgroup.procs"] {
            assert!(
                refusal(&format!("{{\"unified\":{{\"{wrong}\":\"1\"}}}}")).contains("unified"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn fields_of_v1_warn() {
        let resources = serde_json::from_str(
            r#"{"memory":{"kernel":5,"swappiness":0,"disableOOMKiller":false},"network":{"classID":1},
                "cpu":{"realtimeRuntime":5}}"#,
        )
        .unwrap();
        let limits = plan(&resources, Purpose::Create).unwrap();
        assert_eq!(limits.warnings.len(), 4);
        assert!(!limits.any());
    }
}
