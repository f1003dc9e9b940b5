//! `vm`: what belongs to virtual machines alone.

pub mod kernel_build;
pub mod kernel_ls;
pub mod kernel_use;
