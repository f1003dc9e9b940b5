//! `linux`: namespaces, devices, limits and the rest of `config-linux.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Resources, Seccomp, StringMap, null_as_default};

/// `linux` of `config.json`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// User id maps of a new user namespace.
    #[serde(default, deserialize_with = "null_as_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group id maps of a new user namespace.
    #[serde(default, deserialize_with = "null_as_default")]
    pub gid_mappings: Vec<IdMapping>,
    /// sysctls, set inside the container's namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub sysctl: StringMap,
    /// cgroup limits.
    pub resources: Option<Resources>,
    /// cgroup path, or `slice:prefix:name` for the systemd manager.
    pub cgroups_path: Option<String>,
    /// Namespaces to make or to join.
    #[serde(default, deserialize_with = "null_as_default")]
    pub namespaces: Vec<Namespace>,
    /// Network interfaces to move in, by their name on the host.
    #[serde(default, deserialize_with = "null_as_default")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// Devices beside the default ones.
    #[serde(default, deserialize_with = "null_as_default")]
    pub devices: Vec<Device>,
    /// System call filter.
    pub seccomp: Option<Seccomp>,
    /// Propagation of the root mount.
    pub rootfs_propagation: Option<String>,
    /// Paths made unreadable.
    #[serde(default, deserialize_with = "null_as_default")]
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    #[serde(default, deserialize_with = "null_as_default")]
    pub readonly_paths: Vec<String>,
    /// SELinux label of mounts.
    pub mount_label: Option<String>,
    /// Intel Resource Director Technology.
    pub intel_rdt: Option<IntelRdt>,
    /// NUMA memory policy (set_mempolicy(2)).
    pub memory_policy: Option<MemoryPolicy>,
    /// Execution domain.
    pub personality: Option<Personality>,
    /// Clock offsets of a new time namespace, by `monotonic` and `boottime`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// An id map entry, as in `/proc/PID/uid_map`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// An entry of `linux.namespaces`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Namespace {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup` or `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A namespace to join; absent (or empty) makes a new one.
    pub path: Option<PathBuf>,
}

/// An entry of `linux.netDevices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct NetDevice {
    /// Name inside; absent keeps the name.
    pub name: Option<String>,
}

/// An entry of `linux.devices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// `c`, `b`, `u` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Absolute path inside.
    pub path: PathBuf,
    /// Major number, for `c`, `b` and `u`.
    pub major: Option<i64>,
    /// Minor number.
    pub minor: Option<i64>,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Owner inside.
    pub uid: Option<u32>,
    /// Group inside.
    pub gid: Option<u32>,
}

/// `linux.intelRdt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntelRdt {
    /// Class of service; absent means the container's id.
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    /// Lines written to the class's `schemata` (spec 1.3).
    #[serde(default, deserialize_with = "null_as_default")]
    pub schemata: Vec<String>,
    /// Schema for the L3 cache.
    pub l3_cache_schema: Option<String>,
    /// Schema for memory bandwidth.
    pub mem_bw_schema: Option<String>,
    /// Whether a monitoring group is made (spec 1.3).
    #[serde(default)]
    pub enable_monitoring: bool,
}

/// `linux.memoryPolicy` (spec 1.3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MemoryPolicy {
    /// `MPOL_…`.
    pub mode: String,
    /// Node list, as `0-3,7`.
    #[serde(default)]
    pub nodes: String,
    /// `MPOL_F_…`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub flags: Vec<String>,
}

/// `linux.personality`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None is defined by the specification.
    #[serde(default, deserialize_with = "null_as_default")]
    pub flags: Vec<String>,
}

/// An entry of `linux.timeOffsets`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(default)]
    pub secs: i64,
    /// Nanoseconds, 0 to 999999999.
    #[serde(default)]
    pub nanosecs: u32,
}
