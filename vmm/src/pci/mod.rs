//! The PCI root of the machine: functions on one bus, their configuration and their memory.

pub mod config;
pub mod message;
pub mod root;
