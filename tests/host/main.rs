//! The host lane: what the runtime-spec promises, watched from inside containers on this kernel.
//!
//! Owns one module a subject. Runs only within `tests/lane`; never touches what lies outside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod lane;
mod mounts;
mod process;
