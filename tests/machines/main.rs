//! Machines: made, run, stopped and removed by the binary, on a host of the test's own.
//!
//! Owns one module a subject. Every test has its own directories and its own network namespace. Runs only within
//! `tests/lane`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod faults;
mod flags;
mod inside;
mod lab;
mod life;
mod listing;
mod live;
mod pull;
