//! The crate's only unsafe code: system calls that have no safe wrapper elsewhere.
//!
//! One module a kernel area; owned descriptors in and out. No policy, no text.
#![allow(unsafe_code, reason = "this is where the system calls are")]

pub mod creds;
pub mod fs;
pub mod mount;
pub mod userns;
