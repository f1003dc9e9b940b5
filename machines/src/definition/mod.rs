//! `machine.toml`: what the owner of a machine asked for.
//!
//! Owns the form of the document, its defaults and its checks. Never touches the kernel. Absent stays absent: what a
//! field's absence means is said at the field and decided where it is used.

pub mod forms;
pub mod keys;
pub mod profiles;
mod together;
pub mod tree;
mod units;
pub mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use profiles::Profiles;
pub use units::{Size, Span};

use crate::{Context, Error, Result};

/// The file's name in a machine's directory.
pub const FILE: &str = "machine.toml";

/// A machine's definition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Definition {
    /// Profiles that this definition builds on, the later ones winning over the earlier, this file over all.
    pub include: Vec<String>,
    /// The image: a name in the store, or `host`.
    pub image: String,
    /// What it is for, in the owner's words.
    pub description: String,
    /// The name that it has inside; without one its own.
    pub hostname: Option<String>,
    /// What separates it from the host.
    pub isolation: Isolation,
    /// A socket to the host without a network, for a kernel of its own.
    pub vsock: bool,
    /// It cannot be started.
    pub disabled: bool,
    /// It cannot be removed.
    pub protected: bool,
    /// Without a user namespace and without the default filters: root inside is root outside.
    pub privileged: bool,
    /// Containers can be made inside.
    pub nesting: bool,
    /// Whether the numbers of /proc inside are the machine's own; absent means yes.
    pub visible: Option<bool>,
    /// Words of the owner's own.
    pub labels: BTreeMap<String, String>,
    /// The first process.
    pub init: Init,
    /// Memory.
    pub memory: Memory,
    /// Processors.
    pub cpu: Cpu,
    /// Block devices.
    pub io: Io,
    /// Tasks.
    pub pids: Pids,
    /// Huge pages by size (`2M`): `hugetlb.2MB.max`.
    pub hugepages: BTreeMap<String, Size>,
    /// Its control group otherwise.
    pub cgroup: Cgroup,
    /// Its root file system.
    pub disk: Disk,
    /// What of the host it sees.
    #[serde(rename = "mount")]
    pub mounts: Vec<Mount>,
    /// Device nodes of the host.
    #[serde(rename = "device")]
    pub devices: Vec<Device>,
    /// Its interfaces by name; `none` of them means loopback alone. Absent means one on the default network.
    #[serde(rename = "network")]
    pub networks: Option<BTreeMap<String, Interface>>,
    /// How it finds names; absent is the host's way.
    pub dns: Dns,
    /// rlimits as `soft:hard` or one number, by name (`nofile`).
    pub ulimit: BTreeMap<String, String>,
    /// sysctls of its namespaces.
    pub sysctl: BTreeMap<String, String>,
    /// Capabilities beside or without those of the default.
    pub capabilities: Capabilities,
    /// How it starts with the host.
    pub boot: Boot,
    /// What happens when its first process ends.
    pub restart: Restart,
    /// How its health is asked.
    pub health: Option<Health>,
    /// Where its output goes.
    pub log: Log,
}

/// What separates a machine from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Namespaces of the host's kernel.
    #[default]
    Namespaces,
    /// A kernel of its own.
    Vm,
}

/// The first process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Init {
    /// Program and arguments; without them the image's, and where it has none `/sbin/init`.
    pub command: Vec<String>,
    /// Environment beside the image's.
    pub env: BTreeMap<String, String>,
    /// User and group inside as the image writes them (`user[:group]`); without one the image's.
    pub user: Option<String>,
    /// Working directory; without one the image's.
    pub workdir: Option<String>,
    /// Whether it has a terminal as its console; absent: an init has, a plain program has not.
    pub terminal: Option<bool>,
    /// Signal that asks it to end; without one the image's, else what its kind of init understands.
    pub stop_signal: Option<String>,
    /// How long it may take to end before it is killed; absent means 90 s.
    pub stop_timeout: Option<Span>,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Memory {
    /// `memory.max`.
    pub limit: Option<Size>,
    /// `memory.high`: above it the machine is slowed.
    pub high: Option<Size>,
    /// `memory.low`: what is reclaimed last.
    pub guarantee: Option<Size>,
    /// `memory.swap.max`: swap beside the limit.
    pub swap: Option<Size>,
    /// Out of memory ends all of the machine instead of one process.
    pub oom_group: bool,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Cpu {
    /// CPU time in processors (`1.5`): `cpu.max`.
    pub limit: Option<f64>,
    /// Share in contention, 1 to 10000, 100 by default: `cpu.weight`.
    pub weight: Option<u64>,
    /// How long it may exceed the limit with what it saved: `cpu.max.burst`.
    pub burst: Option<Span>,
    /// How many processors it sees and uses.
    pub count: Option<u32>,
    /// Which processors, as `0-3,7`: `cpuset.cpus`.
    pub set: Option<String>,
    /// Which memory nodes: `cpuset.mems`.
    pub nodes: Option<String>,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Io {
    /// Share in contention, 1 to 10000: `io.weight`.
    pub weight: Option<u64>,
    /// Bytes a second, each way: `io.max` of the device that its disk is on.
    pub bps: Option<Size>,
    /// Operations a second, each way.
    pub iops: Option<u64>,
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Pids {
    /// `pids.max`.
    pub limit: Option<u64>,
    /// Pseudo terminals: devpts `max=`.
    pub ptys: Option<u32>,
}

/// What else its control group limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Cgroup {
    /// Most control groups inside: `cgroup.max.descendants`.
    pub max: Option<u64>,
    /// Any file of cgroup v2 with what goes into it, after all other limits.
    pub unified: BTreeMap<String, String>,
}

/// The root file system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Disk {
    /// How it is kept; cannot be changed later.
    pub kind: DiskKind,
    /// Most bytes.
    pub size: Option<Size>,
    /// Most inodes (`overlay` only).
    pub inodes: Option<u64>,
    /// The machine cannot write to it.
    pub read_only: bool,
}

/// How a root file system is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// The image's layers below, an upper directory of its own.
    #[default]
    Overlay,
    /// A file with a file system in it.
    Disk,
}

/// A directory or file of the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Mount {
    /// Path on the host, or `tmpfs`.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Options as in config.json (`ro`, `idmap`, `size=64m`).
    pub options: Vec<String>,
}

/// A device node of the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Device {
    /// Path on the host.
    pub path: String,
    /// Path inside; without one the same.
    pub target: Option<String>,
    /// Some of `rwm`; absent means `rw`.
    pub access: Option<String>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Interface {
    /// The network; absent is `default`, `host` is the host's own, `none` is loopback alone.
    pub network: Option<String>,
    /// Addresses that it always has; a family without one gets a free one, kept in the machine's state.
    pub address: Vec<String>,
    /// Hardware address.
    pub mac: Option<String>,
    /// Published ports as `[address:]host[-host]:inside[-inside][/tcp|/udp]`.
    pub ports: Vec<String>,
    /// Ceiling of what it receives (`100mbit`).
    pub down: Option<String>,
    /// Ceiling of what it sends.
    pub up: Option<String>,
    /// Guarantee of what it receives, in contention.
    pub down_rate: Option<String>,
    /// Guarantee of what it sends, in contention.
    pub up_rate: Option<String>,
    /// Nobody but the host reaches it unasked.
    pub firewall: bool,
    /// Other names that its neighbours know it by.
    pub names: Vec<String>,
}

/// Names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Dns {
    /// Addresses of resolvers.
    pub servers: Vec<String>,
    /// Domains that are searched.
    pub search: Vec<String>,
}

/// Capabilities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Capabilities {
    /// Granted beside the default.
    pub add: Vec<String>,
    /// Taken from the default; `ALL` takes every one.
    pub drop: Vec<String>,
}

/// How a machine starts with the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Boot {
    /// Whether it does.
    pub start: BootStart,
    /// Higher starts earlier among those that do not depend on each other; absent comes last.
    pub order: Option<i32>,
    /// Machines that start before it.
    pub after: Vec<String>,
    /// Machines without which it does not start.
    pub requires: Vec<String>,
    /// When it counts as started.
    pub ready: Ready,
}

/// Whether a machine starts with the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootStart {
    /// No.
    #[default]
    Off,
    /// Yes.
    On,
    /// If it ran when the host went down.
    Last,
}

/// When a machine counts as started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// When its first process runs.
    #[default]
    Started,
    /// When its first process says READY=1 (sd_notify(3)), as systemd does after boot.
    Notify,
    /// When its health command has succeeded once.
    Healthy,
}

/// What happens when the first process ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Restart {
    /// When it is started again.
    pub policy: RestartPolicy,
    /// Most times in a row; absent is without end.
    pub max: Option<u32>,
    /// The first pause; each next is twice as long, up to five minutes. Absent means 1 s.
    pub delay: Option<Span>,
}

/// When a machine is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After an exit code other than 0, or a signal.
    OnFailure,
    /// Always, unless it was stopped by its owner.
    Always,
}

/// How health is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Health {
    /// Program and arguments, run inside; exit code 0 is healthy.
    pub command: Vec<String>,
    /// Pause between two; absent means 30 s.
    pub interval: Option<Span>,
    /// How long it may take; absent means 30 s.
    pub timeout: Option<Span>,
    /// Failures in a row until it is unhealthy; absent means 3.
    pub retries: Option<u32>,
    /// Failures before that do not count; absent means none.
    pub start_period: Option<Span>,
    /// Whether an unhealthy machine is restarted.
    pub restart: bool,
}

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// How it is kept.
    pub driver: LogDriver,
    /// Most bytes of a file; absent means 10 MiB.
    pub size: Option<Size>,
    /// Most files; absent means 3.
    pub files: Option<u32>,
}

/// How output is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// In files beside the machine's data.
    #[default]
    File,
    /// By journald.
    Journald,
    /// Not at all.
    None,
}

impl Definition {
    /// Reads a document with all that it includes; `name` stands in errors.
    pub fn parse(text: &str, name: &Path) -> Result<Definition> {
        Definition::resolve(text, name, &Profiles::default())
    }

    /// The same with profiles from elsewhere.
    pub fn resolve(text: &str, name: &Path, profiles: &Profiles) -> Result<Definition> {
        let whole = profiles.resolve(text, name)?;
        // What `keys` lets through has the form of the struct; a test of the table holds both together.
        let definition = serde_json::from_value(whole.value.json())
            .map_err(|err| Error::invalid(format!("reading {}: {err}", name.display())))?;
        together::check(&definition, &whole)?;
        Ok(definition)
    }

    /// Reads the definition in the machine's directory `dir`.
    pub fn load(dir: &Path) -> Result<Definition> {
        let path: PathBuf = dir.join(FILE);
        let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        Definition::parse(&text, &path)
    }
}
