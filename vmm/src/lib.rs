//! The monitor of a VM container: it makes a virtual machine with KVM, boots a kernel in it without
//! firmware, gives it virtio devices on a PCI root, and tells how it ended.
//!
//! It owns its threads (one a virtual processor, one for the devices' events, those of the file server) and
//! what [`Config`] hands over. It opens nothing by path but `/dev/kvm`, starts no process, and knows nothing
//! of containers. Beside it, [`session`] speaks with the program inside about processes and their streams.

mod cmos;
mod command_line;
pub mod config;
mod error;
pub mod events;
pub mod filter;
pub mod fs;
pub mod kernel;
pub mod memory;
mod monitor;
pub mod pci;
mod ports;
pub mod session;
pub mod starter;
pub mod sys;
mod trace;
mod vcpu;
pub mod virtio;
pub mod x86_64;

pub use config::{Config, Identity};
pub use error::{Doing, Error, Result};
pub use monitor::{Counters, Ending, Exits, Monitor, Running};
pub use virtio::{block, net, vsock};
