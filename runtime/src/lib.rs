//! locule-runtime: the life of one OCI container.
//!
//! `spec` is read, `plan` checks it and turns it into data, `process` walks the plan, `state`
//! remembers. Nothing here prints, parses a command line or knows of images, networks or machines.

pub mod attrs;
pub mod cgroup;
pub mod check;
pub mod container;
pub mod contract;
pub mod error;
pub mod isolation;
pub mod mountinfo;
pub mod plan;
pub mod process;
pub mod procfs;
pub mod report;
pub mod rootfs;
pub mod seccomp;
pub mod signals;
pub mod spec;
pub mod state;
pub mod sys;
pub mod time;
pub mod warn;
pub mod watch;

pub use check::{Findings, check};
pub use container::{Container, delete};
pub use error::{Error, Kind, Result};
pub use isolation::Isolation;
pub use process::create::{CreateRequest, create};
pub use process::exec::ExecRequest;
pub use process::outside::adopt_fds;
pub use process::run::{RunRequest, run};
pub use report::{Report, Status};
pub use state::Store;
pub use watch::{Notice, Watch};
