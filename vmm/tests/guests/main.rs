//! Guests of a few instructions: how they end is told, and a hostile one does no harm.
//!
//! What runs a guest needs `/dev/kvm` and is left out without it; a KVM that cannot run Linux is enough.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod endings;
mod garbage;
mod hostile;
mod payload;
