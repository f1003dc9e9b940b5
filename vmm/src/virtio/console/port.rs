//! A port's end on the host: a socket, a pipe, a terminal or a file, never waited for.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{SFlag, fstat};

use crate::virtio::device::Watcher;
use crate::{Doing as _, Result};

/// Bytes of a request that are moved at once. Linux' driver sends at most a page.
pub const MOST: usize = 64 << 10;
/// A pipe that is ready takes as much without waiting (`PIPE_BUF`).
const PIPE: usize = 4096;

/// What the host's end gave.
pub enum Taken {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    Closed,
}

/// A port.
pub struct Port {
    end: Option<OwnedFd>,
    socket: bool,
    /// Somebody in the guest has it open.
    pub open: bool,
    /// The driver has no room for input now.
    pub starved: bool,
    /// The host's end gave its last byte.
    closed: bool,
    /// What the host's end did not take yet.
    backlog: Vec<u8>,
    /// What is waited for; none before the first time.
    watched: Option<u32>,
}

impl Port {
    /// A port that ends in `end`; without it, text is lost and nothing comes.
    pub fn new(end: Option<OwnedFd>) -> Result<Port> {
        let kind = end.as_ref().map(fstat).transpose().doing("opening a console's port")?;
        let socket = kind.is_some_and(|kind| kind.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits());
        Ok(Port {
            end,
            socket,
            open: false,
            starved: false,
            closed: false,
            backlog: Vec::new(),
            watched: None,
        })
    }

    /// Adds to what is to be written.
    pub fn put(&mut self, bytes: Vec<u8>) {
        if self.end.is_some() {
            self.backlog = bytes;
        }
    }

    /// Writes what waits; true if nothing waits any more.
    pub fn flush(&mut self) -> bool {
        while let Some(end) = self.end.as_ref().filter(|_| !self.backlog.is_empty()) {
            let written = if self.socket {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(std::os::fd::AsRawFd::as_raw_fd(end), &self.backlog, flags)
            } else {
                let mut room = [PollFd::new(end.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut room, PollTimeout::ZERO) {
                    Ok(0) => Err(Errno::EAGAIN),
                    _ => nix::unistd::write(end, &self.backlog[..self.backlog.len().min(PIPE)]),
                }
            };
            match written {
                Ok(count) => {
                    self.backlog.drain(..count);
                }
                Err(Errno::EAGAIN) => return false,
                Err(Errno::EINTR) => {}
                // Nobody reads any more: what the guest still writes is lost.
                Err(_) => self.backlog.clear(),
            }
        }
        true
    }

    /// There can be input.
    pub fn readable(&self) -> bool {
        self.end.is_some() && !self.closed
    }

    /// Takes at most `most` bytes of input.
    pub fn take(&mut self, most: usize) -> Taken {
        let Some(end) = &self.end else { return Taken::Nothing };
        let mut bytes = vec![0; most.min(MOST)];
        let count = if self.socket {
            recv(std::os::fd::AsRawFd::as_raw_fd(end), &mut bytes, MsgFlags::MSG_DONTWAIT)
        } else {
            let mut ready = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::ZERO) {
                Ok(0) => Err(Errno::EAGAIN),
                _ => nix::unistd::read(end, &mut bytes),
            }
        };
        match count {
            Err(Errno::EAGAIN | Errno::EINTR) => Taken::Nothing,
            Ok(count) if count > 0 => {
                bytes.truncate(count);
                Taken::Bytes(bytes)
            }
            _ => {
                self.closed = true;
                Taken::Closed
            }
        }
    }

    /// Has the host's end watched for what can be done with it now.
    pub fn watch(&mut self, watcher: &Watcher, token: u64) -> Result<()> {
        let Some(end) = &self.end else { return Ok(()) };
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLIN, self.open && !self.starved && !self.closed);
        wanted.set(EpollFlags::EPOLLOUT, !self.backlog.is_empty());
        let bits = wanted.bits() as u32;
        if self.watched.unwrap_or(0) == bits {
            return Ok(());
        }
        // An end of which nothing is wanted is left alone: hang-ups are told even to those who wait for nothing.
        if bits == 0 {
            watcher.remove(end.as_fd())?;
            self.watched = None;
            return Ok(());
        }
        let result = match self.watched {
            None => watcher.add(end.as_fd(), bits, token),
            Some(_) => watcher.change(end.as_fd(), bits, token),
        };
        match result {
            Ok(()) => {
                self.watched = Some(bits);
                Ok(())
            }
            // Files are always ready, and have no input for us.
            Err(crate::Error::System { source, .. }) if is_file(&source) => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for nothing any more; the guest gave the device up.
    pub fn forget(&mut self, watcher: &Watcher) {
        if let Some(end) = self.end.as_ref().filter(|_| self.watched.is_some()) {
            let _ = watcher.remove(end.as_fd());
        }
        self.watched = None;
        self.open = false;
        self.starved = false;
    }
}

fn is_file(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}
