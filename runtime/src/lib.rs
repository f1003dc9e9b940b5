//! locule-runtime: the life of one OCI container.
//!
//! `spec` is read, `plan` checks it and turns it into data, `process` walks the plan, `state`
//! remembers. Nothing here prints, parses a command line or knows of images, networks or machines.

pub mod error;
pub mod seccomp;
pub mod spec;
pub mod sys;

pub use error::{Error, Kind, Result};
