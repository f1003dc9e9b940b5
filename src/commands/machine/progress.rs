//! How far a copy has come: one line on a terminal, nothing elsewhere.
//!
//! Owns that line; the last thing it does is to wipe it away.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use locule_machines::storage::Progress;

use crate::commands::image::size;

/// How often the line is drawn.
const EVERY: Duration = Duration::from_millis(200);

/// A line on standard error.
#[derive(Debug)]
pub struct Line {
    what: String,
    shown: bool,
    bytes: u64,
    drawn: Instant,
}

impl Line {
    /// A line that begins with `what`, where somebody looks.
    pub fn new(what: String) -> Line {
        Line { what, shown: std::io::stderr().is_terminal(), bytes: 0, drawn: Instant::now() }
    }
}

impl Progress for Line {
    fn bytes(&mut self, more: u64) {
        self.bytes += more;
        if self.shown && self.drawn.elapsed() >= EVERY {
            self.drawn = Instant::now();
            let line = format!("\r\x1b[K{}: {}", self.what, size(self.bytes));
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = std::io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}
