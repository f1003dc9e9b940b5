//! What stays beside a running machine: consoles, logs, exit records, restarts, and what a kill -9 of it loses.
//!
//! Runs only within `tests/lane`. Each test has a state root and a data directory of its own on the lane's tmpfs, and
//! ends its machines. The machines are made from the image `host`, without a network.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod boot;
mod console;
mod lab;
mod logs;
mod loss;
mod policy;
mod ready;
