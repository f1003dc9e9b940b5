//! Warnings: what the user should know though the act went on.
//!
//! Owns the list until whoever prints takes it. A process of ours serves one call, so one list is enough.

use std::sync::Mutex;

static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Remembers a warning for whoever prints.
pub fn warn(text: String) {
    if let Ok(mut list) = WARNINGS.lock() {
        list.push(text);
    }
}

/// Remembers several.
pub fn warn_all(texts: impl IntoIterator<Item = String>) {
    texts.into_iter().for_each(warn);
}

/// Hands over the warnings so far.
pub fn take() -> Vec<String> {
    WARNINGS.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default()
}
