//! locule-machines: containers that live for years, made from an image and kept by their definition.
//!
//! `Home` is the way in: make, find, start, stop and remove machines. A machine is a directory with `machine.toml`
//! and its data beside it; everything else is files of the runtime directory and the kernel. Nothing here prints or
//! parses a command line; no process stays but a machine's keeper.

pub mod boot;
pub mod bundle;
mod claims;
pub mod copies;
pub mod definition;
mod error;
pub mod events;
mod file;
pub mod generator;
mod group;
pub mod home;
pub mod host;
pub mod keeper;
pub mod life;
pub mod limits;
pub mod listing;
pub mod lock;
pub mod openvz;
pub mod repair;
mod root;
pub mod set;
pub mod state;
pub mod stats;
pub mod storage;
pub mod sys;
pub mod visible;
mod watch;
mod wiring;

pub use definition::Definition;
pub use error::lift;
pub use home::{Home, Machine};
pub use locule_runtime::error::{Context, Error, Kind, Result};
