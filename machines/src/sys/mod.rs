//! The only unsafe code of the library: one module a kernel area, no policy, no text.
#![allow(unsafe_code, reason = "this is where the system calls are")]

pub mod files;
pub mod guard;
pub mod loops;
pub mod quota;
