//! Processes: making a container's init and more processes in it, from plan to execve(2).

pub mod binds;
pub mod channel;
pub mod console;
mod copy_up;
pub mod create;
pub mod exec;
pub mod hooks;
mod init;
pub(crate) mod members;
mod monitor;
pub mod notify;
pub mod outside;
mod root;
pub mod run;
pub mod seal;
mod spawn;
mod terminal;
mod userns;
mod workload;
