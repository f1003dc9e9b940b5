//! /dev/net/tun: interfaces whose frames a program reads and writes.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;

/// `struct ifreq` as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// A tap interface called `name` in the caller's network namespace, whose frames come with a header of virtio-net
/// (12 bytes) and nothing else. It goes when the descriptor is closed.
pub fn tap(name: &str) -> nix::Result<OwnedFd> {
    const IFF_VNET_HDR: libc::c_int = 0x4000;
    let header: libc::c_int = 12;
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI | IFF_VNET_HDR) as libc::c_short,
        rest: [0; 22],
    };
    if name.len() >= request.name.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))?;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which is live and of the kernel's size.
    Errno::result(unsafe {
        libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request)
    })?;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    Errno::result(unsafe {
        libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ as libc::Ioctl, &raw const header)
    })?;
    Ok(file.into())
}
