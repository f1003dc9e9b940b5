//! The kernel's word that a device has come or gone (`NETLINK_KOBJECT_UEVENT`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use locule_runtime::error::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The kernel's own multicast group; the other one is udev's.
const KERNEL: u32 = 1;

/// A listener.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Listens from now on.
    pub fn listen() -> Result<Uevents> {
        let doing = || "listening for the kernel's device events";
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let sock = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).doing(doing)?;
        bind(sock.as_raw_fd(), &NetlinkAddr::new(0, KERNEL)).doing(doing)?;
        Ok(Uevents(sock))
    }

    /// Waits for the next one, for at most `limit`; `false` when there was none. What it says does not
    /// matter: whoever waits looks again.
    pub fn wait(&self, limit: PollTimeout) -> Result<bool> {
        let doing = || "waiting for a device";
        match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], limit) {
            Ok(0) => return Ok(false),
            Err(Errno::EINTR) => {}
            other => drop(other.doing(doing)?),
        }
        let mut buffer = [0u8; 4096];
        while recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        Ok(true)
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
