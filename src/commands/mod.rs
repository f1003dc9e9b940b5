//! The verbs, one file each: the words of the command line turned into one call of the library.
//!
//! Each file owns its declaration (`VERB`) and the reading of its options. None prints an
//! error, exits or touches the kernel.

pub mod boot;
pub mod check;
pub mod checkpoint;
pub mod completion;
pub mod console;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod generator;
pub mod help;
pub mod image;
pub mod keeper;
pub mod kill;
pub mod list;
pub mod logs;
pub mod machine;
pub mod network;
pub mod openvz;
pub mod pause;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
pub mod snapshot;
pub mod spec;
pub mod start;
pub mod state;
pub mod stats;
pub mod top;
pub mod update;
pub mod vm;
