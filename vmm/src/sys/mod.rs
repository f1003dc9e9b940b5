//! The only place with `unsafe`: small wrappers around calls that the crates do not wrap.
#![allow(unsafe_code)]

mod event;
pub mod io;
mod iovec;
mod kvm;
mod map;
mod net;
mod posted;
mod random;
mod thread;

pub use event::Event;
pub use iovec::{pread, pwrite, write};
pub use kvm::{Slot, add_slot, adopt_kvm, kicked_by, supported_hyperv};
pub use map::{HUGE, Mapping, Window, discard, map_file};
pub use net::{name_tap, set_up_tap};
pub use posted::{Posted, Write};
pub use random::random;
pub use thread::{KICK, block_signals, kick, tid};
