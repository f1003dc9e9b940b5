//! The networks of containers: real traffic between namespaces that each test makes for itself.
//!
//! Owns one module a subject. Every test has a host of its own, which is a network namespace, and nothing ever leaves
//! these. Runs only within `tests/lane`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod bridge;
mod cni;
mod faults;
mod guard;
mod kinds;
mod lab;
mod machine;
mod names;
mod namespaces;
mod ports;
mod rates;
mod runtime;
mod verbs;
