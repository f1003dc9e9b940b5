//! Virtio: what a device is, and its queues.

pub mod device;

pub use device::{Activation, Device, Interrupt, Ring, Watcher};
