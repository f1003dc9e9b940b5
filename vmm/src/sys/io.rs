//! Reading and writing of descriptors that are shared with others, without waiting.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

/// What is asked of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Reading.
    Read,
    /// Writing.
    Write,
}

/// So much can be written to what poll(2) says is writable, in bytes: less than `PIPE_BUF`, for terminals.
const SAFE: usize = 256;

fn ready(fd: impl AsFd, events: PollFlags) -> nix::Result<()> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    match poll(&mut fds, PollTimeout::ZERO)? {
        0 => Err(Errno::EAGAIN),
        _ => Ok(()),
    }
}

/// Reads once; `EAGAIN` instead of waiting.
pub fn read_now(fd: impl AsFd, buffer: &mut [u8], socket: bool) -> nix::Result<usize> {
    if socket {
        return recv(fd.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT);
    }
    let slices = [IoSliceMut::new(buffer)];
    // SAFETY: `IoSliceMut` has the layout of an iovec, and the buffer it points to is live and writable.
    let read = Errno::result(unsafe {
        libc::preadv2(fd.as_fd().as_raw_fd(), slices.as_ptr().cast(), 1, -1, libc::RWF_NOWAIT)
    });
    match read {
        Ok(length) => Ok(length as usize),
        Err(Errno::EOPNOTSUPP | Errno::ESPIPE | Errno::EINVAL) => {
            ready(&fd, PollFlags::POLLIN)?;
            nix::unistd::read(fd, buffer)
        }
        Err(errno) => Err(errno),
    }
}

/// Writes once; `EAGAIN` instead of waiting.
pub fn write_now(fd: impl AsFd, bytes: &[u8], socket: bool) -> nix::Result<usize> {
    if socket {
        return send(fd.as_fd().as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
    let slices = [IoSlice::new(bytes)];
    // SAFETY: `IoSlice` has the layout of an iovec, and the buffer it points to is live.
    let written = Errno::result(unsafe {
        libc::pwritev2(fd.as_fd().as_raw_fd(), slices.as_ptr().cast(), 1, -1, libc::RWF_NOWAIT)
    });
    match written {
        Ok(length) => Ok(length as usize),
        Err(Errno::EOPNOTSUPP | Errno::ESPIPE | Errno::EINVAL) => {
            ready(&fd, PollFlags::POLLOUT)?;
            nix::unistd::write(fd, bytes.get(..SAFE).unwrap_or(bytes))
        }
        Err(errno) => Err(errno),
    }
}
