//! The limits of a plan as properties of a systemd unit.
//!
//! systemd has to know them, or it writes its own values over them at the next reload. The same
//! files are written again afterwards, for what systemd does not know. Pure.

use super::value::Value;
use crate::cgroup::plan::{Limits, OnFailure, Value as Wanted, Write};

/// The period that cgroups have when nobody sets one.
const DEFAULT_PERIOD: u64 = 100_000;

/// A property's name and value.
pub type Property = (String, Value);

/// What all scopes have: their place, delegation and accounting.
pub fn of_scope(slice: &str, description: &str, pid: i32) -> Vec<Property> {
    let yes = |name: &str| (name.to_owned(), Value::Bool(true));
    vec![
        ("Description".to_owned(), Value::str(description)),
        ("Slice".to_owned(), Value::str(slice)),
        yes("Delegate"),
        ("PIDs".to_owned(), Value::Array("u".to_owned(), vec![Value::U32(pid.unsigned_abs())])),
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes("IOAccounting"),
        yes("TasksAccounting"),
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
        // The runtime's own program on the cgroup holds the device rules. A second list in systemd
        // could not say all that they can, would have to follow each update, and is what takes
        // devices away at a reload (opencontainers/runc issue 3708).
        ("DevicePolicy".to_owned(), Value::str("auto")),
    ]
}

/// The limits that systemd knows. `starting` adds what can be set only when the unit starts.
pub fn of_limits(limits: &Limits, starting: bool) -> Vec<Property> {
    let mut found: Vec<Property> = Vec::new();
    for write in &limits.writes {
        for (name, value) in of_write(write, starting) {
            // The later write wins, as it does in the files.
            found.retain(|(have, _)| *have != name);
            found.push((name, value));
        }
    }
    found
}

fn of_write(write: &Write, starting: bool) -> Vec<Property> {
    let one = |name: &str, value: Value| vec![(name.to_owned(), value)];
    let text = match &write.value {
        Wanted::Text(text) => text.trim(),
        Wanted::Period(period) => return one("CPUQuotaPeriodUSec", Value::U64(*period)),
    };
    let number = || if text == "max" { Some(u64::MAX) } else { text.parse::<u64>().ok() };
    let limit = |name: &str| number().map_or(Vec::new(), |number| one(name, Value::U64(number)));
    match &*write.file {
        "memory.max" => limit("MemoryMax"),
        "memory.high" => limit("MemoryHigh"),
        "memory.low" => limit("MemoryLow"),
        "memory.min" => limit("MemoryMin"),
        "memory.swap.max" => limit("MemorySwapMax"),
        "memory.zswap.max" => limit("MemoryZSwapMax"),
        // systemd takes no 0; the file gets it afterwards.
        "pids.max" if text == "0" => one("TasksMax", Value::U64(1)),
        "pids.max" => limit("TasksMax"),
        "cpu.weight" => limit("CPUWeight"),
        // A weight of 0 is systemd's word for idle, from 252 on; older ones refuse it and the call
        // with it, so there the file alone has it.
        "cpu.max" => quota(text).unwrap_or_default(),
        "cpuset.cpus" => bits(text).map_or(Vec::new(), |bits| one("AllowedCPUs", bits)),
        "cpuset.mems" => bits(text).map_or(Vec::new(), |bits| one("AllowedMemoryNodes", bits)),
        "io.weight" => text
            .trim_start_matches("default ")
            .parse()
            .map_or(Vec::new(), |weight| one("IOWeight", Value::U64(weight))),
        "io.bfq.weight" => match &write.on_failure {
            OnFailure::Instead(_, weight) => {
                weight.parse().map_or(Vec::new(), |weight| one("IOWeight", Value::U64(weight)))
            }
            _ => Vec::new(),
        },
        "memory.oom.group" if starting => match text {
            "0" => one("OOMPolicy", Value::str("continue")),
            "1" => one("OOMPolicy", Value::str("kill")),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// `cpu.max` as time a second, rounded up to systemd's whole percents.
fn quota(text: &str) -> Option<Vec<Property>> {
    let (quota, given) = words_of(text)?;
    let per_second = match quota {
        None => u64::MAX,
        Some(quota) => per_second(quota, given.unwrap_or(DEFAULT_PERIOD))?,
    };
    let mut found = vec![("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second))];
    found.extend(given.map(|period| ("CPUQuotaPeriodUSec".to_owned(), Value::U64(period))));
    Some(found)
}

/// Completes a value for `cpu.max` by what the file has, `present`, and rounds it as systemd will.
pub(in crate::cgroup) fn round_quota(value: &mut Wanted, present: &str) {
    let Some((had, period)) = words_of(present) else { return };
    let (quota, period) = match value {
        Wanted::Period(given) => (had, *given),
        Wanted::Text(text) => match words_of(text) {
            Some((quota, given)) => (quota, given.or(period).unwrap_or(DEFAULT_PERIOD)),
            None => return,
        },
    };
    let rounded = |quota| per_second(quota, period)?.checked_mul(period).map(|time| time / 1_000_000);
    *value = match quota {
        None => Wanted::Text(format!("max {period}")),
        Some(quota) => Wanted::Text(format!("{} {period}", rounded(quota).unwrap_or(quota))),
    };
}

/// The quota of `cpu.max`, `None` for max, and the period where there is one.
fn words_of(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let mut words = text.split_whitespace();
    let quota = match words.next()? {
        "max" => None,
        quota => Some(quota.parse().ok()?),
    };
    Some((quota, words.next().map(str::parse).transpose().ok()?))
}

/// Microseconds a second, of whole percents.
fn per_second(quota: u64, period: u64) -> Option<u64> {
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    u64::try_from(exact.next_multiple_of(10_000)).ok()
}

/// A list of ranges as a bit mask, the lowest byte first.
fn bits(list: &str) -> Option<Value> {
    let mut mask: Vec<u8> = Vec::new();
    for part in list.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from > to || to >= 1 << 16 {
            return None;
        }
        for bit in from..=to {
            if mask.len() <= bit / 8 {
                mask.resize(bit / 8 + 1, 0);
            }
            mask[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(Value::Array("y".to_owned(), mask.into_iter().map(Value::Byte).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::plan::{Purpose, plan};

    fn properties(json: &str) -> Vec<Property> {
        let limits = plan(&serde_json::from_str(json).unwrap(), Purpose::Create).unwrap();
        of_limits(&limits, true)
    }

    fn number(name: &str, value: u64) -> Property {
        (name.to_owned(), Value::U64(value))
    }

    #[test]
    fn limits_are_told() {
        assert_eq!(
            properties(
                r#"{"memory":{"limit":1000,"swap":1000,"reservation":500},"pids":{"limit":-1},
                    "cpu":{"shares":1024}, "blockIO":{"weight":1000}}"#
            ),
            [
                number("MemorySwapMax", 0),
                number("MemoryMax", 1000),
                number("MemoryLow", 500),
                number("CPUWeight", 100),
                number("TasksMax", u64::MAX),
                number("IOWeight", 10_000),
            ]
        );
        assert_eq!(properties(r#"{"pids":{"limit":0}}"#), [number("TasksMax", 1)]);
    }

    #[test]
    fn quotas_are_rounded_up_to_whole_percents() {
        let quota = |json: &str| properties(&format!("{{\"cpu\":{json}}}"));
        assert_eq!(
            quota(r#"{"quota":12345,"period":100000}"#),
            [number("CPUQuotaPerSecUSec", 130_000), number("CPUQuotaPeriodUSec", 100_000)]
        );
        assert_eq!(quota(r#"{"quota":50000}"#), [number("CPUQuotaPerSecUSec", 500_000)]);
        assert_eq!(quota(r#"{"quota":-1}"#), [number("CPUQuotaPerSecUSec", u64::MAX)]);
    }

    #[test]
    fn files_get_what_systemd_keeps() {
        let rounded = |mut value: Wanted, present: &str| {
            round_quota(&mut value, present);
            value
        };
        let text = |text: &str| Wanted::Text(text.to_owned());
        // 500000 of 900000 is 55.5 %.
        assert_eq!(rounded(Wanted::Period(900_000), "500000 1000000\n"), text("504000 900000"));
        assert_eq!(rounded(text("600000"), "504000 900000\n"), text("603000 900000"));
        assert_eq!(rounded(text("max"), "504000 900000\n"), text("max 900000"));
        assert_eq!(rounded(text("50000 100000"), "max 100000\n"), text("50000 100000"));
        assert_eq!(rounded(Wanted::Period(20_000), "max 100000\n"), text("max 20000"));
    }

    #[test]
    fn cpusets_are_masks() {
        let mask = |bytes: &[u8]| Value::Array("y".into(), bytes.iter().map(|b| Value::Byte(*b)).collect());
        assert_eq!(bits("0-3,9"), Some(mask(&[0x0f, 0x02])));
        assert_eq!(bits("1-0"), None);
        assert_eq!(bits("x"), None);
    }

    #[test]
    fn unified_overrides() {
        let found = properties(
            r#"{"memory":{"limit":1000},"unified":{"memory.max":"max","memory.high":"7","memory.oom.group":"1",
                "cpuset.cpus":"1","hugetlb.2MB.max":"0"}}"#,
        );
        let mask = Value::Array("y".into(), vec![Value::Byte(2)]);
        let has = |name: &str, value: &Value| found.iter().any(|(have, is)| have == name && is == value);
        assert!(has("MemoryMax", &Value::U64(u64::MAX)));
        assert!(has("MemoryHigh", &Value::U64(7)));
        assert!(has("OOMPolicy", &Value::str("kill")));
        assert!(has("AllowedCPUs", &mask));
        assert_eq!(found.len(), 4);
    }
}
