//! The stages of a start, told when they are asked for.

use std::time::Instant;

/// Tells stages.
pub struct Trace(Option<Instant>);

impl Trace {
    /// Tells them if `on`, in microseconds since now.
    pub fn new(on: bool) -> Trace {
        Trace(on.then(Instant::now))
    }

    /// A stage is reached.
    pub fn stage(&self, name: &str) {
        if let Some(start) = self.0 {
            eprintln!("locule-vmm: {:>8} us {name}", start.elapsed().as_micros());
        }
    }
}
