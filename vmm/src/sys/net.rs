//! Settings of a tap device.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Has packets come and go with a virtio header of `header` bytes, and large or without checksum as `offloads`
/// (`TUN_F_…`) allows.
pub fn set_up_tap(tap: BorrowedFd, header: i32, offloads: u32) -> io::Result<()> {
    // SAFETY: the call reads one int.
    if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const header) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the argument is a number.
    match unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(offloads)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes `tun`, an open `/dev/net/tun`, the tap device `name`, as [`set_up_tap`] wants it.
pub fn name_tap(tun: BorrowedFd, name: &str) -> io::Result<()> {
    // SAFETY: all zero is an empty request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the call reads and writes one request.
    match unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
