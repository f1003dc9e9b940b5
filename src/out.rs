//! Standard output for the verbs: whole texts, and a reader that went away is not an error.
//!
//! Owns the knowledge that the reader is gone. Never buffers beyond one call and never exits.

use std::io::{ErrorKind, Write};

use locule_runtime::error::{Context, Error, Kind, Result};

/// Where a verb's results go.
#[derive(Debug, Default)]
pub struct Out {
    broken: bool,
}

impl Out {
    /// Writes `text` as it is.
    pub fn write(&mut self, text: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(err) if err.kind() == ErrorKind::BrokenPipe => {
                self.broken = true;
                Err(err)
            }
            other => other,
        }
        .doing(|| "writing to standard output")
    }

    /// Writes `value` as one line of JSON.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<()> {
        self.json_text(serde_json::to_string(value))
    }

    /// Writes `value` as JSON for people: two spaces a level.
    pub fn json_pretty(&mut self, value: &impl serde::Serialize) -> Result<()> {
        self.json_text(serde_json::to_string_pretty(value))
    }

    fn json_text(&mut self, text: serde_json::Result<String>) -> Result<()> {
        let mut text =
            text.map_err(|err| Error::new(Kind::System, format!("writing the answer as JSON: {err}")))?;
        text.push('\n');
        self.write(&text)
    }

    /// Whether the reader of standard output is gone.
    pub fn broken(&self) -> bool {
        self.broken
    }
}
