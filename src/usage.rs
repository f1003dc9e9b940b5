//! What machines use, from one look to the next: the rows of `stats` and `top`.
//!
//! Owns the rates, which are differences of two readings. Never prints.

use std::collections::BTreeMap;
use std::time::Instant;

use locule_machines::stats::{self, Pressure, Reading};
use locule_runtime::{Error, Kind, Result};

use crate::args::Globals;
use crate::table::{Column, short};

/// The columns of [`Row::cells`].
pub const COLUMNS: [Column; 14] = [
    ("NAME", false),
    ("CPU%", true),
    ("MEMORY", true),
    ("LIMIT", true),
    ("MEM%", true),
    ("SWAP", true),
    ("TASKS", true),
    ("READ/S", true),
    ("WRITE/S", true),
    ("RECV/S", true),
    ("SEND/S", true),
    ("WAIT-CPU", true),
    ("WAIT-MEM", true),
    ("WAIT-IO", true),
];

/// What rows can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Name,
    Cpu,
    Memory,
    Io,
    Network,
    Tasks,
    Pressure,
}

impl Key {
    /// Their words.
    pub const ALL: [(&'static str, Key); 7] = [
        ("cpu", Key::Cpu),
        ("memory", Key::Memory),
        ("io", Key::Io),
        ("network", Key::Network),
        ("tasks", Key::Tasks),
        ("pressure", Key::Pressure),
        ("name", Key::Name),
    ];
}

/// One machine, with its rates since the look before.
#[derive(Debug)]
pub struct Row {
    /// What was read.
    pub reading: Reading,
    rates: Option<Rates>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    cpu: f64,
    read: f64,
    written: f64,
    received: f64,
    sent: f64,
}

/// Looks again and again at the same machines.
#[derive(Debug)]
pub struct Looker {
    names: Vec<String>,
    before: BTreeMap<String, (Instant, Reading)>,
}

impl Looker {
    /// At `names`, or at all that run.
    pub fn new(names: Vec<String>) -> Looker {
        Looker { names, before: BTreeMap::new() }
    }

    /// Whether names were given.
    pub fn is_named(&self) -> bool {
        !self.names.is_empty()
    }

    /// What runs now. One that was named and is not there, or does not run, is an error the first time.
    pub fn look(&mut self, globals: &Globals) -> Result<Vec<Row>> {
        let (store, first) = (globals.store()?, self.before.is_empty());
        let ids = match (&store, self.is_named()) {
            (_, true) => self.names.clone(),
            (Some(store), false) => store.ids()?,
            (None, false) => Vec::new(),
        };
        let mut rows = Vec::new();
        let mut seen = BTreeMap::new();
        for id in ids {
            let now = Instant::now();
            let reading = match globals.container(&id).and_then(|container| stats::read(&container)) {
                Ok(Some(reading)) => reading,
                Ok(None) if first && self.is_named() => {
                    return Err(Error::new(
                        Kind::NotRunning,
                        format!("measuring {id}: container not running"),
                    ));
                }
                Err(err) if first && self.is_named() => return Err(err),
                // It ended meanwhile, or another's record cannot be read.
                Ok(None) | Err(_) => continue,
            };
            let rates = self
                .before
                .get(&id)
                .map(|(then, before)| rates(before, &reading, now.duration_since(*then).as_secs_f64()));
            seen.insert(id, (now, reading.clone()));
            rows.push(Row { reading, rates });
        }
        self.before = seen;
        Ok(rows)
    }
}

fn rates(before: &Reading, now: &Reading, seconds: f64) -> Rates {
    if seconds <= 0.0 || before.pid != now.pid {
        return Rates::default();
    }
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let all = |reading: &Reading| {
        let interfaces = reading.network.iter().flat_map(BTreeMap::values);
        interfaces
            .fold((0, 0), |(received, sent), one| (received + one.received_bytes, sent + one.sent_bytes))
    };
    let ((received, sent), (received_now, sent_now)) = (all(before), all(now));
    Rates {
        cpu: rate(before.cpu.usage, now.cpu.usage) / 10_000.0,
        read: rate(before.io.read_bytes, now.io.read_bytes),
        written: rate(before.io.written_bytes, now.io.written_bytes),
        received: rate(received, received_now),
        sent: rate(sent, sent_now),
    }
}

impl Row {
    /// Its cells under [`COLUMNS`]; a dash where the kernel tells nothing.
    pub fn cells(&self) -> Vec<String> {
        let (memory, reading) = (&self.reading.memory, &self.reading);
        let dash = || "-".to_owned();
        let bytes = |number: Option<u64>| number.map_or_else(dash, short);
        let rate =
            |of: fn(&Rates) -> f64| self.rates.as_ref().map_or_else(dash, |rates| short(of(rates) as u64));
        let wait = |pressure: &Option<Pressure>| {
            pressure.as_ref().map_or_else(dash, |pressure| format!("{:.1}%", pressure.some))
        };
        let share =
            memory.usage.zip(memory.limit).map(|(usage, limit)| usage as f64 * 100.0 / limit.max(1) as f64);
        vec![
            reading.name.clone(),
            self.rates.as_ref().map_or_else(dash, |rates| format!("{:.1}%", rates.cpu)),
            bytes(memory.usage),
            bytes(memory.limit),
            share.map_or_else(dash, |share| format!("{share:.1}%")),
            bytes(memory.swap),
            reading.pids.current.map_or_else(dash, |tasks| tasks.to_string()),
            rate(|rates| rates.read),
            rate(|rates| rates.written),
            rate(|rates| rates.received),
            rate(|rates| rates.sent),
            wait(&reading.cpu.pressure),
            wait(&memory.pressure),
            wait(&reading.io.pressure),
        ]
    }

    fn weight(&self, key: Key) -> f64 {
        let (reading, rates) = (&self.reading, self.rates.unwrap_or_default());
        let some = |pressure: &Option<Pressure>| pressure.map_or(0.0, |pressure| pressure.some);
        match key {
            Key::Name => 0.0,
            // Before there are two looks, what it used so far.
            Key::Cpu if self.rates.is_none() => reading.cpu.usage as f64,
            Key::Cpu => rates.cpu,
            Key::Memory => reading.memory.usage.unwrap_or(0) as f64,
            Key::Io => rates.read + rates.written,
            Key::Network => rates.received + rates.sent,
            Key::Tasks => reading.pids.current.unwrap_or(0) as f64,
            Key::Pressure => some(&reading.cpu.pressure)
                .max(some(&reading.memory.pressure))
                .max(some(&reading.io.pressure)),
        }
    }
}

/// Sorts by `key`, the greatest first, and then by name.
pub fn sort(rows: &mut [Row], key: Key, reverse: bool) {
    rows.sort_by(|a, b| {
        let order = b.weight(key).total_cmp(&a.weight(key)).then_with(|| a.reading.name.cmp(&b.reading.name));
        if reverse { order.reverse() } else { order }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(name: &str, usage: u64, memory: u64) -> Reading {
        let mut reading = Reading { name: name.into(), ..Reading::default() };
        reading.cpu.usage = usage;
        reading.memory.usage = Some(memory);
        reading.memory.limit = Some(1 << 20);
        reading
    }

    #[test]
    fn rates_are_differences() {
        let (before, now) = (reading("a", 1_000_000, 0), reading("a", 2_500_000, 512 << 10));
        let row = Row { rates: Some(rates(&before, &now, 1.0)), reading: now };
        assert_eq!(row.cells()[..6], ["a", "150.0%", "512K", "1M", "50.0%", "-"]);
        let reborn = Reading { pid: 7, ..reading("a", 5, 0) };
        assert_eq!(rates(&before, &reborn, 1.0).cpu, 0.0);
        assert_eq!(COLUMNS.len(), row.cells().len());
    }

    #[test]
    fn the_greatest_comes_first() {
        let row = |name, cpu, memory| Row { reading: reading(name, cpu, memory), rates: None };
        let mut rows = [row("b", 1, 9), row("c", 5, 1), row("a", 1, 2)];
        let names = |rows: &[Row]| rows.iter().map(|row| row.reading.name.clone()).collect::<String>();
        sort(&mut rows, Key::Cpu, false);
        assert_eq!(names(&rows), "cab");
        sort(&mut rows, Key::Memory, true);
        assert_eq!(names(&rows), "cab");
        sort(&mut rows, Key::Name, false);
        assert_eq!(names(&rows), "abc");
    }
}
