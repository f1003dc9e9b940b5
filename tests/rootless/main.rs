//! Containers in user namespaces: made by a user without privileges, by root of a user namespace,
//! and by root with mapped ids; and what a service manager hands to a container.
//!
//! Runs within `tests/lane`, as root, which steps down to the user for each call. Owns one module a
//! subject; what containers do in general is tested in `tests/host`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

#[allow(dead_code, reason = "the helpers of the host lane, of which these tests need some")]
#[path = "../host/lane.rs"]
mod lane;

mod cgroup;
mod mapped;
mod notify;
mod sockets;
mod unprivileged;
mod user;
