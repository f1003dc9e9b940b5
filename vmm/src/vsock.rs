//! Sockets between host and guest.

use std::os::fd::OwnedFd;

/// The guest's vsock device.
#[derive(Debug)]
pub struct Config {
    /// The guest's context id, 3 or above.
    pub cid: u32,
    /// The folder of the unix sockets: a connection of the guest to port N of the host goes to the socket `N`
    /// in it; `listen` in it takes connections of the host (`CONNECT N` and a newline first).
    pub folder: OwnedFd,
}
