//! All machines at a glance, for `ls`: what each one's files say, and how it fares.
//!
//! Owns no index: a thousand machines are some thousand small files, read by as many threads as there are processors.
//! A machine whose definition cannot be read is listed all the same, with what is wrong.

use std::collections::BTreeMap;

use locule_runtime::{Container, Store};
use serde::Serialize;

use crate::definition::{BootStart, DiskKind, Isolation};
use crate::keeper::record::Health;
use crate::life::{self, Status};
use crate::{Definition, Home, Machine, Result, claims, stats};

/// From so many machines on it is worth a thread more.
const MANY: usize = 48;

/// How far a machine is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Its name alone.
    Name,
    /// What its files say, and how it fares.
    State,
    /// What it uses as well, which costs a dozen files more.
    Use,
}

/// One machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How it fares, in one word.
    pub status: &'static str,
    /// The exit code that it failed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Its first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Seconds since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime: Option<u64>,
    /// Its health, where it is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How often it was started again in a row.
    pub restarts: u32,
    /// What it was made from.
    pub image: String,
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The name that it has inside.
    pub hostname: String,
    /// Addresses that it has, running or not.
    pub ip: Vec<String>,
    /// Published ports.
    pub ports: Vec<String>,
    /// Networks that it is on.
    pub networks: Vec<String>,
    /// Most bytes of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes of memory in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// Most bytes of swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<u64>,
    /// Most processors at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Most tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Tasks now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks_used: Option<u64>,
    /// Most bytes of disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// How its disk is kept.
    pub storage: &'static str,
    /// Whether it starts with the host.
    pub boot: &'static str,
    /// What separates it from the host.
    pub isolation: &'static str,
    /// Words of the owner's own.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// The systemd unit that keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What is wrong with it: a definition that cannot be read, or why the last start failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// All machines, or those of `names`, in the order of their names.
pub fn list(home: &Home, names: Option<Vec<String>>, depth: Depth) -> Result<Vec<Entry>> {
    let names = match names {
        Some(names) => {
            names.iter().try_for_each(|name| home.find(name).map(drop))?;
            names
        }
        // Those without a definition are none; that is seen when it is read.
        None => claims::names(&home.machines())?,
    };
    let store = life::store(home)?;
    let threads = match names.len() / MANY {
        0 => 1,
        worth => worth.min(std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let look = |names: &[String]| {
        names.iter().filter_map(|name| entry(home, store.as_ref(), name, depth)).collect::<Vec<_>>()
    };
    if threads == 1 {
        return Ok(look(&names));
    }
    let parts: Vec<_> = names.chunks(names.len().div_ceil(threads)).collect();
    let found = std::thread::scope(|scope| {
        let running: Vec<_> = parts.iter().map(|part| scope.spawn(|| look(part))).collect();
        // A thread that panicked ended the process: it is built so.
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    Ok(found)
}

/// `None` for one that is not there, or was removed meanwhile.
fn entry(home: &Home, store: Option<&Store>, name: &str, depth: Depth) -> Option<Entry> {
    let machine = home.machine(name).ok()?;
    let mut entry = Entry { name: name.to_owned(), ..Entry::default() };
    if depth == Depth::Name {
        return machine.exists().then_some(entry);
    }
    match machine.definition() {
        Ok(definition) => describe(&mut entry, &definition),
        Err(_) if !machine.exists() => return None,
        Err(err) => entry.problem = Some(err.to_string()),
    }
    if let Ok(state) = machine.state() {
        entry.created = state.created;
        let kept = state.interfaces.values().flat_map(|interface| &interface.addresses);
        let mut ip: Vec<_> = kept.map(ToString::to_string).collect();
        ip.retain(|address| !entry.ip.contains(address));
        entry.ip.extend(ip);
    }
    fare(store, &machine, &mut entry, depth);
    Some(entry)
}

fn describe(entry: &mut Entry, definition: &Definition) {
    entry.image.clone_from(&definition.image);
    entry.description.clone_from(&definition.description);
    entry.hostname = definition.hostname.clone().unwrap_or_else(|| entry.name.clone());
    entry.labels.clone_from(&definition.labels);
    entry.memory = definition.memory.limit.map(|size| size.0);
    entry.swap = definition.memory.swap.map(|size| size.0);
    entry.cpus = definition.cpu.limit.or(definition.cpu.count.map(f64::from));
    entry.tasks = definition.pids.limit;
    entry.disk = definition.disk.size.map(|size| size.0);
    entry.storage = match definition.disk.kind {
        DiskKind::Overlay => "overlay",
        DiskKind::Disk => "disk",
    };
    entry.boot = match definition.boot.start {
        BootStart::Off => "off",
        BootStart::On => "on",
        BootStart::Last => "last",
    };
    entry.isolation = match definition.isolation {
        Isolation::Namespaces => "namespaces",
        Isolation::Vm => "vm",
    };
    let Some(interfaces) = &definition.networks else {
        entry.networks.push("default".into());
        return;
    };
    for interface in interfaces.values() {
        entry.networks.push(interface.network.clone().unwrap_or_else(|| "default".into()));
        let bare = |address: &String| address.split('/').next().unwrap_or(address).to_owned();
        entry.ip.extend(interface.address.iter().map(bare));
        entry.ports.extend(interface.ports.iter().cloned());
    }
}

fn fare(store: Option<&Store>, machine: &Machine, entry: &mut Entry, depth: Depth) {
    let seen = match life::look(store, machine) {
        Ok(seen) => seen,
        Err(err) => {
            entry.status = "unknown";
            entry.problem.get_or_insert(err.to_string());
            return;
        }
    };
    entry.status = seen.status.word();
    if let Status::Failed { exit } = seen.status {
        entry.exit = Some(exit);
    }
    if let Some(keeper) = seen.keeper {
        entry.restarts = keeper.restarts;
        if seen.status.is_down() {
            entry.problem = entry.problem.take().or(keeper.failure);
        } else {
            entry.health = keeper.health;
            entry.unit = keeper.unit;
        }
    }
    let Some(container) = seen.container.filter(|_| !seen.status.is_down()) else { return };
    let Some(init) = container.state().init.as_ref() else { return };
    entry.pid = Some(init.pid);
    entry.uptime = Some(stats::uptime(init.start_time).as_secs());
    if depth == Depth::Use {
        measure(&container, entry);
    }
}

fn measure(container: &Container, entry: &mut Entry) {
    if let Ok(Some(reading)) = stats::read(container) {
        entry.memory_used = reading.memory.usage;
        entry.tasks_used = reading.pids.current;
    }
}
