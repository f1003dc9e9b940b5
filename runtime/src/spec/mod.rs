//! The runtime-spec 1.3 documents as locule reads them.
//!
//! Own types rather than `oci-spec`'s, for the reading side alone: words that a newer
//! specification may extend (capabilities, rlimits, seccomp flags) stay text until the plan
//! looks at them, which warns of or refuses an unknown one by field, as the specification says of
//! each, and what is absent stays absent (`docs/dependencies.md` has the comparison).
//! Unknown properties are ignored, as the specification asks.

mod linux;
mod process;
mod resources;
mod seccomp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use linux::*;
pub use process::*;
pub use resources::*;
pub use seccomp::*;

use crate::error::{Context, Error, Result};

/// Annotations and other string maps, in a stable order.
pub type StringMap = BTreeMap<String, String>;

/// `config.json` of a bundle (runtime-spec 1.3, `config.md`).
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// The specification version that the bundle was written for.
    #[serde(default)]
    pub oci_version: String,
    /// The root file system; mandatory on Linux, checked by the plan.
    pub root: Option<Root>,
    /// Mounts in the order in which they are made.
    #[serde(default, deserialize_with = "null_as_default")]
    pub mounts: Vec<Mount>,
    /// The process; mandatory for `start`.
    pub process: Option<Process>,
    /// Host name inside the UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name inside the UTS namespace.
    pub domainname: Option<String>,
    /// Hooks by stage.
    pub hooks: Option<Hooks>,
    /// Free-form metadata; `org.systemd.property.*` and `org.locule.*` are read.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: StringMap,
    /// The Linux part.
    pub linux: Option<Linux>,
}

/// `root`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Path of the root file system, absolute or relative to the bundle.
    pub path: PathBuf,
    /// Whether the root is made read-only.
    #[serde(default)]
    pub readonly: bool,
}

/// An entry of `mounts`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where it is mounted; a relative path is taken from the root (spec 1.2).
    pub destination: PathBuf,
    /// The file system type; absent for a bind mount given by its options.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Device, file or directory; relative paths are taken from the bundle.
    pub source: Option<PathBuf>,
    /// Mount options, classic, recursive and file system specific ones mixed.
    #[serde(default, deserialize_with = "null_as_default")]
    pub options: Vec<String>,
    /// Maps of an idmapped mount.
    #[serde(default, deserialize_with = "null_as_default")]
    pub uid_mappings: Vec<IdMapping>,
    /// Maps of an idmapped mount.
    #[serde(default, deserialize_with = "null_as_default")]
    pub gid_mappings: Vec<IdMapping>,
}

/// `hooks`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// Deprecated stage, run before `createRuntime`, in the runtime's namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub prestart: Vec<Hook>,
    /// After the namespaces are made, before pivot_root, in the runtime's namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub create_runtime: Vec<Hook>,
    /// As `createRuntime`, in the container's namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub create_container: Vec<Hook>,
    /// Before the workload is executed, in the container's namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub start_container: Vec<Hook>,
    /// After the workload was executed, in the runtime's namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub poststart: Vec<Hook>,
    /// After the container is deleted, in the runtime's namespaces.
    #[serde(default, deserialize_with = "null_as_default")]
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// argv, including `argv[0]`; absent means the path alone.
    #[serde(default, deserialize_with = "null_as_default")]
    pub args: Vec<String>,
    /// Environment, `KEY=value`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// Seconds until the hook is killed and counted as failed.
    pub timeout: Option<i64>,
}

/// Reads `null` like an absent field, as Go's decoder does for the engines that write one.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Spec {
    /// Reads `config.json` of the bundle at `bundle`.
    pub fn load(bundle: &Path) -> Result<Spec> {
        let path = bundle.join("config.json");
        let text = std::fs::read(&path).doing(|| format!("reading {}", path.display()))?;
        Spec::parse(&text).map_err(|err| err.context(format_args!("reading {}", path.display())))
    }

    /// Reads a document; the error names line and column.
    pub fn parse(text: &[u8]) -> Result<Spec> {
        let mut spec: Spec = serde_json::from_slice(text)
            .map_err(|err| Error::invalid(format!("not a runtime-spec document: {err}")))?;
        spec.linux.get_or_insert_default();
        Ok(spec)
    }

    /// The Linux part; `parse` puts an empty one where the document has none.
    pub fn linux(&self) -> &Linux {
        static EMPTY: std::sync::LazyLock<Linux> = std::sync::LazyLock::new(Linux::default);
        self.linux.as_ref().unwrap_or(&EMPTY)
    }
}
