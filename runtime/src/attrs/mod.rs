//! What a process or a container is besides its files: ids, capabilities, limits, labels, devices of the net.
//!
//! Each module turns one field of the spec into checked data (`plan`) and that data into system
//! calls (`apply`). Nothing here prints, forks into a container or decides an order between modules.

pub mod caps;
pub mod idmap;
pub mod keyring;
pub mod lsm;
pub mod memory_policy;
pub mod netdev;
pub mod oom;
pub mod rdt;
pub mod rlimits;
pub mod sched;
pub mod sysctl;
pub mod timens;
pub mod user;

/// Things worth telling the user that do not stop the operation.
pub type Warnings = Vec<String>;
