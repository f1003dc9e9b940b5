//! OCI images: from a registry, an archive, packages or the host, to a root file system.
//!
//! Owns references, the verified store, unpacking, archives and the mounting of root file systems.
//! Never prints, knows nothing of containers or machines, and starts threads only while it
//! fetches or unpacks.

pub mod build;
pub mod compress;
pub mod digest;
pub mod error;
pub mod export;
pub mod host;
pub mod import;
pub mod manifest;
pub mod pack;
pub mod reference;
pub mod registry;
pub mod rootfs;
pub mod rootless;
pub mod store;
pub mod sys;
pub mod time;
pub mod unpack;

pub use digest::Digest;
pub use error::{Error, Kind, Result};
pub use reference::Reference;
pub use store::Store;
