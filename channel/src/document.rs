//! The documents that some frames carry, as JSON.
//!
//! Members that are not known are ignored, so that one may be added without a new version; one whose
//! absence would change what is done is never optional. The answer to Stats is the `data` of runc's
//! `events --stats`, the runtime's own type.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The host's first word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostHello {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// Name and version of the program, for messages.
    #[serde(default)]
    pub software: String,
    /// The guest's own host name, outside of the container; none leaves the kernel's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Wall clock, for guests whose kernel has none to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// Kernel modules to load beside those that the guest's own devices need, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970 UTC.
    pub seconds: u64,
    /// Nanoseconds of that second.
    pub nanoseconds: u32,
}

/// The guest's first word.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestHello {
    /// [`VERSION`](crate::VERSION).
    pub version: u32,
    /// Name and version of the program, for messages.
    #[serde(default)]
    pub software: String,
    /// The kernel's release, as `uname -r` says it.
    #[serde(default)]
    pub kernel: String,
    /// What did not work while the guest was set up, but need not stop it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The container to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// The container's id, which errors and hooks name.
    pub id: String,
    /// The runtime specification's `config.json`, with the guest's paths in it.
    pub config: Value,
    /// Whether what it says by sd_notify(3) is wanted: the guest then listens on `notify.sock` in `/run/locule/notify`,
    /// a directory that `config` mounts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
}

/// One more process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The runtime specification's `process`.
    pub process: Value,
    /// The container that it runs in, by the session of that one's own process.
    #[serde(default, skip_serializing_if = "is_first")]
    pub container: u32,
    /// A cgroup below the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

fn is_first(container: &u32) -> bool {
    *container == crate::INIT
}

/// Other limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The container that they are for, by the session of its own process.
    #[serde(default, skip_serializing_if = "is_first")]
    pub container: u32,
    /// The runtime specification's `linux.resources`.
    pub resources: Value,
}

/// A container that shall be there no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// Which one, by the session of its own process; never the first.
    pub container: u32,
    /// What of `/containers` the host takes away then, by name: the guest is to have nothing mounted there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trees: Vec<String>,
}

/// A process that was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its pid in the guest.
    pub pid: i32,
    /// What the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What a caller can do about it.
    pub kind: FailureKind,
    /// The whole text, in the runtime's words.
    pub message: String,
}

/// The kinds of the runtime's errors; they decide exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The bundle or the request asks for something wrong.
    Invalid,
    /// The guest lacks what was asked for.
    Unsupported,
    /// Nothing of that name.
    NotFound,
    /// There is one of that name.
    Exists,
    /// The container is in a state that does not allow it.
    State,
    /// The process is gone.
    NotRunning,
    /// The program was found but cannot be executed (exit code 126).
    NotExecutable,
    /// The program was not found (exit code 127).
    CommandNotFound,
    /// The kernel refused, or any kind that is not known here.
    #[serde(other)]
    System,
}

/// A network interface of the guest and what it shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The name that it shall have.
    pub name: String,
    /// Which one it is: its hardware address, as `02:00:00:00:00:01`.
    pub mac: String,
    /// The hardware address that it shall have instead; none leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Largest packet in bytes; none leaves the device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Addresses with the lengths of their prefixes, as `10.1.0.2/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Routes out of it, in the order in which they can be made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Neighbours that nobody answers for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Neighbour>,
}

/// A route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to, as `10.2.0.0/16`; `0.0.0.0/0` and `::/0` are the default routes.
    pub destination: String,
    /// By way of; none is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Address to prefer as the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The lower one wins; none or 0 is the kernel's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The gateway is on the link though no address says so.
    #[serde(default)]
    pub onlink: bool,
}

/// A neighbour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its address.
    pub address: String,
    /// Its hardware address.
    pub mac: String,
}

/// The answer to Ps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    /// The container's processes, by pid.
    pub processes: Vec<Process>,
}

/// A process of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Pid as the guest's own pid namespace has it.
    pub pid: i32,
    /// Pid in the container.
    pub inner_pid: i32,
    /// Parent's pid in the guest.
    pub parent: i32,
    /// Effective user id in the guest.
    pub uid: u32,
    /// The letter of /proc/PID/stat (proc_pid_stat(5)).
    pub state: String,
    /// Number of the controlling terminal, 0 for none.
    pub terminal: i32,
    /// When it began, in seconds since 1970 UTC.
    pub started: u64,
    /// Time on processors, in milliseconds.
    pub cpu: u64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Program and arguments, joined by spaces; the name in brackets where it has none.
    pub command: String,
}
