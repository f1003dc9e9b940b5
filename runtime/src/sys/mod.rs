//! Thin, safe wrappers over system calls that `nix` does not have, one module a kernel area.
//!
//! The only place of the crate with `unsafe`: owned or borrowed descriptors in and out, an
//! `Errno` on failure, no policy and no text.

#![allow(unsafe_code)]

pub mod bpf;
pub mod caps;
pub mod clone;
pub mod fs;
pub mod keyring;
pub mod mount;
pub mod netlink;
pub mod prctl;
pub mod process;
pub mod sched;
pub mod seccomp;
pub mod socket;
pub mod tty;
