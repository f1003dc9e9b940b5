//! The container's state as others see it: `state`, `list`, and the JSON on a hook's stdin.
//!
//! Pure.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::isolation::Isolation;
use crate::spec::StringMap;
use crate::state::State;

/// Status words of the runtime-spec, and runc's `paused`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is not through yet.
    Creating,
    /// Waits for `start`.
    Created,
    /// The workload runs.
    Running,
    /// The workload is frozen.
    Paused,
    /// The workload has ended.
    #[default]
    Stopped,
}

impl Status {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The document of `state` and, in an array, of `list --format json`; runc's field order.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the container's document.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// Its init's pid; 0 once stopped.
    pub pid: i32,
    /// Its status.
    pub status: Status,
    /// The bundle.
    pub bundle: PathBuf,
    /// The root file system.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The document's annotations.
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub annotations: StringMap,
    /// What separates it from the host, where that is not namespaces.
    #[serde(skip_serializing_if = "Isolation::is_namespaces")]
    pub isolation: Isolation,
    /// Name of the user that created it, or the uid.
    pub owner: String,
}

/// The specification's state document (runtime.md, State).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HookState<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a std::path::Path,
    annotations: &'a StringMap,
}

/// State JSON for a hook's stdin; a `pid` of 0 is left out, as for a stopped container.
pub fn for_hooks(state: &State, pid: i32, status: &str) -> Vec<u8> {
    let document = HookState {
        oci_version: &state.oci_version,
        id: &state.id,
        status,
        pid: (pid != 0).then_some(pid),
        bundle: &state.bundle,
        annotations: &state.annotations,
    };
    serde_json::to_vec(&document).unwrap_or_default()
}
