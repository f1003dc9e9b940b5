//! Kernel files: what is in them, and how they come into the guest's memory.

mod config;
mod elf;
mod initramfs;
mod unpack;

pub use config::config;
pub use elf::{Loaded, load, pvh_entry};
pub use initramfs::initramfs;
pub use unpack::extract;
