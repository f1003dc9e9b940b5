//! The verbs and their failures: what a caller of the binary gets, and what is left behind.
//!
//! Owns one module a subject. Runs only within `tests/lane`, whose cgroup tree and tmpfs it uses;
//! what an unprivileged call answers is in `tests/cli.rs`, what the workload sees in `tests/host`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod crash;
mod engines;
mod exec;
mod expected;
mod faults;
mod hooks;
mod input;
#[allow(dead_code, reason = "shared with tests/host, which uses all of it")]
#[path = "../host/lane.rs"]
mod lane;
mod leaks;
mod listing;
mod pty;
mod races;
mod scarce;
mod takeover;
mod terminals;
mod verbs;
