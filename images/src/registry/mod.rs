//! Registries: images over the network.
//!
//! Owns everything that opens a socket. Starts threads only while a pull or a push lasts.

pub mod auth;
pub mod client;
pub mod config;
pub mod dns;
pub mod policy;
pub mod pull;
pub mod push;
pub mod sigstore;

/// Who is told how far a pull or a push is.
pub trait Progress: Sync {
    /// So many layers, and bytes that are to be moved.
    fn begin(&self, layers: usize, bytes: u64);
    /// So many more bytes were moved.
    fn bytes(&self, more: u64);
    /// A layer is done.
    fn layer(&self);
    /// All is done, or failed.
    fn end(&self);
}

/// Nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _layers: usize, _bytes: u64) {}
    fn bytes(&self, _more: u64) {}
    fn layer(&self) {}
    fn end(&self) {}
}
