//! `locule-guest` as process 1 of a pid namespace, driven by the monitor's session: all but the virtual machine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod callers;
mod lane;
mod notify;
mod pod;
mod processes;
mod streams;
mod words;
