//! The only unsafe code of the crate.

#[cfg(not(test))]
pub mod entry;
