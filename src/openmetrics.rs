//! Readings as OpenMetrics text, which Prometheus and its kin scrape.
//!
//! Owns the metrics' names, which are a contract with dashboards. Pure.

use std::fmt::Write;

use locule_machines::stats::{Interface, Pressure, Reading};

/// One metric of a machine: name, kind, unit, help, value.
type Metric = (&'static str, &'static str, &'static str, &'static str, fn(&Reading) -> Option<f64>);

const METRICS: [Metric; 20] = [
    ("locule_uptime_seconds", "gauge", "seconds", "Time since the start", |reading| Some(reading.uptime)),
    ("locule_cpu_usage_seconds", "counter", "seconds", "Processor time", |reading| {
        Some(seconds(reading.cpu.usage))
    }),
    ("locule_cpu_user_seconds", "counter", "seconds", "Processor time outside of the kernel", |reading| {
        Some(seconds(reading.cpu.user))
    }),
    ("locule_cpu_system_seconds", "counter", "seconds", "Processor time in the kernel", |reading| {
        Some(seconds(reading.cpu.system))
    }),
    ("locule_cpu_throttled_seconds", "counter", "seconds", "Time held back by the limit", |reading| {
        reading.cpu.throttled.map(seconds)
    }),
    ("locule_cpu_limit", "gauge", "", "Most processors at once", |reading| reading.cpu.limit),
    ("locule_memory_usage_bytes", "gauge", "bytes", "Memory in use, page cache included", |reading| {
        reading.memory.usage.map(float)
    }),
    (
        "locule_memory_working_bytes",
        "gauge",
        "bytes",
        "Memory in use without inactive page cache",
        |reading| reading.memory.working.map(float),
    ),
    ("locule_memory_limit_bytes", "gauge", "bytes", "Most memory", |reading| reading.memory.limit.map(float)),
    ("locule_memory_swap_bytes", "gauge", "bytes", "Swap in use", |reading| reading.memory.swap.map(float)),
    ("locule_memory_swap_limit_bytes", "gauge", "bytes", "Most swap", |reading| {
        reading.memory.swap_limit.map(float)
    }),
    ("locule_memory_oom_kills", "counter", "", "Processes killed for lack of memory", |reading| {
        reading.memory.oom_kills.map(float)
    }),
    ("locule_io_read_bytes", "counter", "bytes", "Read from block devices", |reading| {
        Some(float(reading.io.read_bytes))
    }),
    ("locule_io_written_bytes", "counter", "bytes", "Written to block devices", |reading| {
        Some(float(reading.io.written_bytes))
    }),
    ("locule_io_reads", "counter", "", "Reads from block devices", |reading| Some(float(reading.io.reads))),
    ("locule_io_writes", "counter", "", "Writes to block devices", |reading| Some(float(reading.io.writes))),
    ("locule_tasks", "gauge", "", "Tasks", |reading| reading.pids.current.map(float)),
    ("locule_tasks_limit", "gauge", "", "Most tasks", |reading| reading.pids.limit.map(float)),
    ("locule_disk_usage_bytes", "gauge", "bytes", "Root file system in use", |reading| {
        reading.disk.map(|disk| float(disk.usage))
    }),
    ("locule_disk_size_bytes", "gauge", "bytes", "Size of the root file system", |reading| {
        reading.disk.map(|disk| float(disk.size))
    }),
];

/// One metric of an interface: name, unit, help, value.
type Traffic = (&'static str, &'static str, &'static str, fn(&Interface) -> u64);

/// What each interface tells.
const NETWORK: [Traffic; 5] = [
    ("locule_network_received_bytes", "bytes", "Received", |one| one.received_bytes),
    ("locule_network_received_packets", "", "Packets received", |one| one.received_packets),
    ("locule_network_sent_bytes", "bytes", "Sent", |one| one.sent_bytes),
    ("locule_network_sent_packets", "", "Packets sent", |one| one.sent_packets),
    ("locule_network_dropped_packets", "", "Packets lost both ways", |one| one.dropped),
];

/// The whole exposition.
pub fn text(readings: &[Reading]) -> String {
    let mut text = String::new();
    for (name, kind, unit, help, value) in METRICS {
        head(&mut text, name, kind, unit, help);
        let suffix = if kind == "counter" { "_total" } else { "" };
        for reading in readings {
            if let Some(value) = value(reading) {
                let _ = writeln!(text, "{name}{suffix}{{name=\"{}\"}} {value}", escaped(&reading.name));
            }
        }
    }
    head(
        &mut text,
        "locule_pressure_waiting_seconds",
        "counter",
        "seconds",
        "Time in which some or all tasks waited for a resource",
    );
    for reading in readings {
        let of =
            [("cpu", reading.cpu.pressure), ("memory", reading.memory.pressure), ("io", reading.io.pressure)];
        for (resource, pressure) in of {
            let Some(Pressure { some_total, full_total, .. }) = pressure else { continue };
            for (tasks, total) in [("some", some_total), ("full", full_total)] {
                let _ = writeln!(
                    text,
                    "locule_pressure_waiting_seconds_total{{name=\"{}\",resource=\"{resource}\",tasks=\"{tasks}\"}} {}",
                    escaped(&reading.name),
                    seconds(total)
                );
            }
        }
    }
    for (name, unit, help, value) in NETWORK {
        head(&mut text, name, "counter", unit, help);
        for reading in readings {
            for (interface, counters) in reading.network.iter().flatten() {
                let _ = writeln!(
                    text,
                    "{name}_total{{name=\"{}\",interface=\"{}\"}} {}",
                    escaped(&reading.name),
                    escaped(interface),
                    value(counters)
                );
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

fn head(text: &mut String, name: &str, kind: &str, unit: &str, help: &str) {
    let _ = writeln!(text, "# TYPE {name} {kind}");
    if !unit.is_empty() {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = writeln!(text, "# HELP {name} {help}.");
}

/// A label's value: names of interfaces are the machine's own choice.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_their_units_and_end() {
        let mut reading = Reading { name: "web1".into(), ..Reading::default() };
        reading.cpu.usage = 1_500_000;
        reading.memory.usage = Some(4096);
        let eth0 = Interface { received_bytes: 7, ..Interface::default() };
        reading.network = Some([("a\"b".to_owned(), eth0)].into());
        let text = text(&[reading]);
        for line in [
            "# TYPE locule_cpu_usage_seconds counter",
            "# UNIT locule_cpu_usage_seconds seconds",
            "locule_cpu_usage_seconds_total{name=\"web1\"} 1.5",
            "locule_memory_usage_bytes{name=\"web1\"} 4096",
            "locule_network_received_bytes_total{name=\"web1\",interface=\"a\\\"b\"} 7",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
        assert!(!text.contains("locule_memory_limit_bytes{"), "what is not known is left out");
        assert!(text.ends_with("\n# EOF\n"));
        // The name ends in the unit, as the format demands.
        let mut units = text.lines().filter_map(|line| line.strip_prefix("# UNIT ")?.split_once(' '));
        assert!(units.all(|(name, unit)| name.ends_with(&format!("_{unit}"))));
    }
}
