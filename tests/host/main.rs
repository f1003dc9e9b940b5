//! The host lane: what the runtime-spec promises, watched from inside containers on this kernel.
//!
//! Owns one module a subject. Runs only within `tests/lane`; never touches what lies outside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

mod caps;
mod cgroup;
mod devices;
mod elf;
mod hooks;
mod idmap;
mod labels;
mod lane;
mod limits;
mod mounts;
mod namespaces;
mod netdev;
mod process;
mod rdt;
mod root;
mod scheduler;
mod seccomp;
mod sysctl;
mod terminal;
mod time;
mod userns;
mod vm;
