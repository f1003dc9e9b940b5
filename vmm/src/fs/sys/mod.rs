//! System calls of the file server that `nix` lacks or hides too much of, and views of guest memory.
//!
//! The only place of it with `unsafe`: descriptors in and out, an `Errno` on failure, no policy and no text.

#![allow(unsafe_code)]

pub mod file;
pub mod ids;
pub mod memory;
