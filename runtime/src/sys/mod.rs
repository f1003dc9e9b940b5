//! Thin, safe wrappers over system calls that `nix` does not have, one module a kernel area.
//!
//! The only place of the crate with `unsafe`: owned or borrowed descriptors in and out, an
//! `Errno` on failure, no policy and no text.

#![allow(unsafe_code)]

pub mod fs;
pub mod seccomp;
