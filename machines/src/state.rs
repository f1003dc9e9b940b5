//! What was chosen once for a machine and stays: its uuid, its range of user ids, its addresses.
//!
//! Owns `state.json` beside the definition. Fields that others keep there survive a change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use locule_images::rootfs::Map;
use serde::{Deserialize, Serialize};

use crate::{Context, Machine, Result, file};

/// The file's name in a machine's directory.
pub const FILE: &str = "state.json";
/// Version of the form.
const VERSION: u32 = 1;

/// What a machine keeps over its starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the form.
    pub version: u32,
    /// Which machine it is, whatever its name.
    pub uuid: String,
    /// The host's ids that stand for those inside; none for a privileged machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Map>,
    /// When it was made.
    pub created: String,
    /// Addresses of its interfaces, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interfaces: BTreeMap<String, Kept>,
    /// What others keep here.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// What an interface keeps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The network that it was on.
    pub network: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl State {
    /// One for a new machine.
    pub fn new() -> Result<State> {
        let path = "/proc/sys/kernel/random/uuid";
        let uuid = std::fs::read_to_string(path).doing(|| format!("reading {path}"))?;
        Ok(State {
            version: VERSION,
            uuid: uuid.trim().to_owned(),
            created: locule_runtime::time::rfc3339(std::time::SystemTime::now()),
            ..State::default()
        })
    }

    /// Reads that in the machine's directory `dir`.
    pub fn load(dir: &Path) -> Result<State> {
        let path = dir.join(FILE);
        let text = std::fs::read(&path).doing(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).doing(|| format!("reading {}", path.display()))
    }

    /// Writes it, whole.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text =
            serde_json::to_vec_pretty(self).doing(|| format!("writing {}", dir.join(FILE).display()))?;
        file::write_whole(&dir.join(FILE), &text)
    }
}

impl Machine {
    /// What was chosen for it.
    pub fn state(&self) -> Result<State> {
        State::load(self.dir())
    }
}
