//! The file server: a tree of descriptors that the guest mounts by virtio-fs.
//!
//! ```text
//!  guest                          monitor
//!  FUSE request --> queue --> device --> Worker (one a thread) --> *at(descriptor, one name)
//!                                          |
//!                                        Server: nodes (O_PATH descriptors), handles (open files)
//! ```
//!
//! Everything begins at a descriptor that was opened before the monitor was jailed, or given to it later by
//! [`Shares`]. A request names a node, by a number that the guest was given, and at most one name in it; that name
//! is opened by `openat2(2)` beneath the node's descriptor and no link is followed, so no request can reach what is
//! not below a descriptor of the [`Tree`], whoever moves directories and links about meanwhile. A descriptor is
//! opened anew, for reading or writing, through `/proc/self/fd`, itself a descriptor, and only if it is a regular
//! file or directory.
//!
//! Locks (`flock`, `fcntl`) are the guest's own: its processes see them, the host's do not.

mod abi;
mod device;
mod handles;
mod nodes;
mod ops;
mod request;
mod server;
mod shares;
mod sys;
mod tree;
mod worker;

pub use device::device;
pub use server::Server;
pub use shares::Shares;
pub use tree::{Access, Cache, Tree};
pub use worker::Worker;
