//! locule-netns: the networks of containers.
//!
//! `networks` is the way in: define a network, attach a network namespace to it, detach it, collect what nobody owns.
//! Everything can be found again from files and from the kernel. Nothing here prints, parses a command line, starts
//! a thread or knows of images and machines; no process runs but a CNI network's plugins.

pub mod address;
pub mod claim;
pub mod classes;
pub mod cni;
pub mod error;
mod fault;
mod gc;
mod host;
pub mod link;
pub mod manage;
pub mod names;
pub mod namespace;
pub mod network;
pub mod networks;
pub mod nft;
mod plan;
pub mod port;
pub mod rate;
pub mod record;
mod shape;
mod sys;
pub mod takeover;
mod wire;

pub use address::{Cidr, Mac};
pub use error::{Error, Result};
pub use gc::Collected;
pub use network::{Kind, Network};
pub use networks::{Attached, Attachment, Networks, Prepared};
pub use record::{Owner, Record, Wired};
