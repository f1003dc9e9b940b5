//! A definition as a document, for machines that are made anew.

use super::Definition;
use crate::{Error, Result};

impl Definition {
    /// The document that is read back as this definition.
    pub fn document(&self) -> Result<String> {
        toml::to_string(self).map_err(|err| Error::invalid(format!("encoding the definition: {err}")))
    }
}
