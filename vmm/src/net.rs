//! Network interfaces of the guest.

use std::os::fd::OwnedFd;

/// One network interface.
#[derive(Debug)]
pub struct Config {
    /// A tap device with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`; it can be attached later.
    pub tap: Option<OwnedFd>,
    /// The address that the guest's interface has.
    pub mac: [u8; 6],
    /// The largest packet in bytes, without the Ethernet header.
    pub mtu: u16,
}
