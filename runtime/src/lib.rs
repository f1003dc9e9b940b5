//! locule-runtime: the life of one OCI container.
//!
//! `spec` is read, `plan` checks it and turns it into data, `process` walks the plan, `state`
//! remembers. Nothing here prints, parses a command line or knows of images, networks or machines.

mod api_stub;
pub mod error;
pub mod spec;
pub mod sys;

pub use api_stub::*;
pub use error::{Error, Kind, Result};
