//! The progress bar of a pull or a push: one line on a terminal, nothing elsewhere.
//!
//! Owns that line; the last thing it does is to wipe it away.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use locule_images::registry::Progress;

use super::size;

/// How often the line is drawn.
const EVERY: Duration = Duration::from_millis(100);
const CELLS: u64 = 30;

/// A bar on standard error.
#[derive(Debug, Default)]
pub struct Bar {
    shown: bool,
    layers: AtomicU64,
    layers_done: AtomicU64,
    total: AtomicU64,
    done: AtomicU64,
    drawn: Mutex<Option<Instant>>,
}

impl Bar {
    /// A bar, where somebody looks.
    pub fn new(quiet: bool) -> Bar {
        Bar { shown: !quiet && std::io::stderr().is_terminal(), ..Bar::default() }
    }

    fn draw(&self, now: bool) {
        if !self.shown {
            return;
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        if !now && drawn.is_some_and(|drawn| drawn.elapsed() < EVERY) {
            return;
        }
        *drawn = Some(Instant::now());
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (done, total) = (get(&self.done), get(&self.total).max(1));
        let full = (done.min(total) * CELLS / total) as usize;
        let line = format!(
            "\r\x1b[K[{}{}] {} of {}, {} of {} layers",
            "=".repeat(full),
            " ".repeat(CELLS as usize - full),
            size(done),
            size(total),
            get(&self.layers_done),
            get(&self.layers)
        );
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }
}

impl Progress for Bar {
    fn begin(&self, layers: usize, bytes: u64) {
        self.layers.store(layers as u64, Ordering::Relaxed);
        self.total.store(bytes, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.layers_done.store(0, Ordering::Relaxed);
        self.draw(true);
    }

    fn bytes(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
        self.draw(false);
    }

    fn layer(&self) {
        self.layers_done.fetch_add(1, Ordering::Relaxed);
        self.draw(true);
    }

    fn end(&self) {
        if self.shown {
            let _ = std::io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }
}
