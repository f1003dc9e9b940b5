//! The only place with `unsafe`: small wrappers around calls that the crates do not wrap.
#![allow(unsafe_code)]

mod event;
pub mod io;

pub use event::Event;
