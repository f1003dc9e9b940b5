//! What the kernel is spoken to with: netlink messages and sockets, files that never appear half written.
//!
//! No policy, no text for people. Everything here is safe code on top of nix.

pub mod file;
pub mod netlink;
pub mod proc;
