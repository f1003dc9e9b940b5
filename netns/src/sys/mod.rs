//! What the kernel is spoken to with: netlink messages and sockets, files that never appear half written.
//!
//! No policy, no text for people. Everything but `bpf` and `tun` is safe code on top of nix.

#[allow(unsafe_code, reason = "nix has no bpf(2)")]
pub mod bpf;
pub mod file;
pub mod netlink;
pub mod proc;
#[allow(unsafe_code, reason = "nix has no ioctl of /dev/net/tun")]
pub mod tun;
