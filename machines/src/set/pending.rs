//! What a running machine was started with, so that it can be said what waits for its next start.
//!
//! Owns `asked.json` in the machine's runtime directory. It counts only for the container that it names.

use std::collections::BTreeMap;

use locule_runtime::Container;
use locule_runtime::state::write_atomic;
use serde::{Deserialize, Serialize};

use crate::definition::tree::Entry;
use crate::{Context, Machine, Result};

/// The file's name.
const FILE: &str = "asked.json";

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    /// When the container was made, and its init: no two have both.
    container: (String, i32),
    /// The values of the definition then, by path.
    values: BTreeMap<String, serde_json::Value>,
}

fn identity(container: &Container) -> (String, i32) {
    let state = container.state();
    (state.created.clone(), state.init.as_ref().map_or(0, |init| init.pid))
}

fn load(machine: &Machine, container: &Container) -> Option<Asked> {
    let text = std::fs::read(machine.run().join(FILE)).ok()?;
    let asked: Asked = serde_json::from_slice(&text).ok()?;
    (asked.container == identity(container)).then_some(asked)
}

/// Remembers the definition that the machine runs with, unless that is known already.
pub fn remember(machine: &Machine, container: &Container, definition: &Entry) -> Result<()> {
    if load(machine, container).is_some() {
        return Ok(());
    }
    let values =
        super::flat(definition).into_iter().map(|(path, entry)| (path, entry.value.json())).collect();
    let asked = Asked { container: identity(container), values };
    let text = serde_json::to_vec(&asked).doing(|| "encoding the definition")?;
    let path = machine.run().join(FILE);
    std::fs::create_dir_all(machine.run()).doing(|| format!("making {}", machine.run().display()))?;
    write_atomic(&path, &text)
}

/// The values that the running machine was started with; `None` if nothing was changed since.
pub fn started_with(machine: &Machine, container: &Container) -> Option<BTreeMap<String, serde_json::Value>> {
    load(machine, container).map(|asked| asked.values)
}
