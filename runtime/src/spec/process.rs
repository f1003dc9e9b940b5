//! `process`: what runs inside, and with which attributes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// `process` of `config.json`, and the document of `exec --process`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Whether a pseudo-terminal is attached.
    #[serde(default)]
    pub terminal: bool,
    /// Initial size of the terminal, in characters.
    pub console_size: Option<ConsoleSize>,
    /// User and groups.
    #[serde(default, deserialize_with = "null_as_default")]
    pub user: User,
    /// argv.
    #[serde(default, deserialize_with = "null_as_default")]
    pub args: Vec<String>,
    /// Environment, `KEY=value`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Working directory, absolute.
    #[serde(default)]
    pub cwd: PathBuf,
    /// The five capability sets.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rlimits: Vec<Rlimit>,
    /// Whether `no_new_privs` is set.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor_profile: Option<String>,
    /// Value for `/proc/self/oom_score_adj`, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy (sched_setattr(2)).
    pub scheduler: Option<Scheduler>,
    /// SELinux label.
    pub selinux_label: Option<String>,
    /// I/O priority (ioprio_set(2)).
    #[serde(rename = "ioPriority")]
    pub io_priority: Option<IoPriority>,
    /// CPU affinity around `exec`.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ConsoleSize {
    /// Rows.
    #[serde(default)]
    pub height: u64,
    /// Columns.
    #[serde(default)]
    pub width: u64,
}

/// `process.user`; ids are those inside the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User id.
    #[serde(default)]
    pub uid: u32,
    /// Group id.
    #[serde(default)]
    pub gid: u32,
    /// umask, as a decimal number in the document.
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(default, deserialize_with = "null_as_default")]
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`; names stay text, the plan warns about unknown ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Capabilities {
    /// Bounding set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub bounding: Vec<String>,
    /// Effective set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub effective: Vec<String>,
    /// Inheritable set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub inheritable: Vec<String>,
    /// Permitted set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub permitted: Vec<String>,
    /// Ambient set.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ambient: Vec<String>,
}

/// An entry of `process.rlimits`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// `process.scheduler`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Scheduler {
    /// `SCHED_OTHER`, `SCHED_FIFO`, `SCHED_RR`, `SCHED_BATCH`, `SCHED_ISO`, `SCHED_IDLE`, `SCHED_DEADLINE`.
    #[serde(default)]
    pub policy: String,
    /// Nice value for OTHER and BATCH.
    #[serde(default)]
    pub nice: i32,
    /// Static priority for FIFO and RR.
    #[serde(default)]
    pub priority: i32,
    /// `SCHED_FLAG_…`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub flags: Vec<String>,
    /// Nanoseconds, for DEADLINE.
    #[serde(default)]
    pub runtime: u64,
    /// Nanoseconds, for DEADLINE.
    #[serde(default)]
    pub deadline: u64,
    /// Nanoseconds, for DEADLINE.
    #[serde(default)]
    pub period: u64,
}

/// `process.ioPriority`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE` or `IOPRIO_CLASS_IDLE`.
    #[serde(default)]
    pub class: String,
    /// 0 (highest) to 7.
    #[serde(default)]
    pub priority: i32,
}

/// `process.execCPUAffinity`; CPU lists as in `cpuset(7)`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ExecCpuAffinity {
    /// Before the process is moved into the container's cgroup.
    pub initial: Option<String>,
    /// After that.
    #[serde(rename = "final")]
    pub last: Option<String>,
}
