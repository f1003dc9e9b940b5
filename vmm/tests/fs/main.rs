//! The file server: each operation by itself, races against it, and real programs on it.
//!
//! Needs root, and `/dev/fuse` for the last part; mounts are made in namespaces of the tests' own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

mod bridge;
mod client;
mod operations;
mod programs;
mod races;
mod shares;
