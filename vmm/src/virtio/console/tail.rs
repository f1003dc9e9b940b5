//! The last words of the guest's kernel, which nobody may be listening to when they are said.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// As many bytes are kept: a panic's reason is followed by registers and a call trace.
const KEPT: usize = 8 << 10;
/// What a panic begins with (`kernel/panic.c`).
const PANIC: &str = "Kernel panic - not syncing: ";
/// Characters of a reason that are told. They are the guest's, who may say anything.
const TOLD: usize = 200;

/// The end of what the console was given, shared by the device and whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Adds to it.
    pub fn put(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let over = (kept.len() + bytes.len()).saturating_sub(KEPT);
        kept.drain(..over);
        kept.extend(bytes);
    }

    /// Why the kernel said to panic, in one printable line.
    pub fn panic_reason(&self) -> Option<String> {
        let kept: Vec<u8> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        let (_, said) = text.rsplit_once(PANIC)?;
        let reason: String = said.lines().next()?.chars().filter(|c| !c.is_control()).take(TOLD).collect();
        Some(reason.trim_end().to_owned()).filter(|reason| !reason.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_panic_is_found_among_what_came_last() {
        let tail = Tail::default();
        assert_eq!(tail.panic_reason(), None);
        tail.put(&[b'x'; 3 * KEPT]);
        tail.put(b"\n[    9.1] Kernel panic - not syn");
        assert_eq!(tail.panic_reason(), None);
        tail.put(b"cing: Fatal \x1b[31mexception \r\n[    9.2] CPU: 0\n");
        assert_eq!(tail.panic_reason().as_deref(), Some("Fatal [31mexception"));
        tail.put(&[b'y'; KEPT]);
        assert_eq!(tail.panic_reason(), None);
        assert_eq!(tail.0.lock().unwrap().len(), KEPT);
    }
}
