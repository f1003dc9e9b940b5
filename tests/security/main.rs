//! Known attacks on container runtimes, each tried on locule: every hole of a published CVE has a
//! test here that fails where the hole is.
//!
//! Owns one module a way of attack; the table of CVEs is in docs/security.md. Runs only within
//! `tests/lane`, and never attacks anything outside it. A rootfs is the attacker's here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod binary;
mod cgroup;
mod descriptors;
mod ids;
mod input;
#[allow(dead_code, reason = "shared with tests/host, which uses all of it")]
#[path = "../host/lane.rs"]
mod lane;
#[allow(dead_code, reason = "shared with tests/lifecycle, which uses all of it")]
#[path = "../lifecycle/leaks.rs"]
mod leaks;
mod links;
mod peek;
mod privileges;
mod race;
mod swap;
mod table;
