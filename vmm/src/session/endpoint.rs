//! A descriptor that a caller handed over as a standard one: read and written without waiting, and without
//! changing what the caller shares of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

use crate::sys::io::{Direction, read_now, write_now};
use locule_runtime::sys::fs::openat2;

/// A pipe's size when its reader is slow and its writer's end is to be told, in bytes: what a user may have.
const ROOMY: i32 = 1 << 20;

/// One standard descriptor.
#[derive(Debug)]
pub struct Endpoint {
    fd: OwnedFd,
    kind: SFlag,
    /// Whether it is a terminal's; one that is hung up would not say so any more.
    terminal: bool,
    /// Whether the open file description is this process's own, and never waits.
    own: bool,
}

impl Endpoint {
    /// Takes over `fd`. `O_NONBLOCK` would hold for everybody who shares it, so pipes and terminals are opened anew.
    pub fn new(fd: OwnedFd, direction: Direction) -> Endpoint {
        let kind =
            fstat(&fd).map_or(SFlag::empty(), |stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        let terminal = kind == SFlag::S_IFCHR && nix::unistd::isatty(&fd).unwrap_or(false);
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            use std::os::fd::AsRawFd;
            let access = if direction == Direction::Read { OFlag::O_RDONLY } else { OFlag::O_WRONLY };
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let anew = openat2(AT_FDCWD, path, access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, 0, 0);
            if let Ok(anew) = anew {
                return Endpoint { fd: anew, kind, terminal, own: true };
            }
        }
        Endpoint { fd, kind, terminal, own: false }
    }

    /// Reads what is there; `EAGAIN` when there is nothing.
    pub fn read(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        if self.own || self.kind == SFlag::S_IFREG {
            return nix::unistd::read(&self.fd, buffer);
        }
        read_now(&self.fd, buffer, self.kind == SFlag::S_IFSOCK)
    }

    /// Writes what fits; `EAGAIN` when nothing does.
    pub fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        if self.own || self.kind == SFlag::S_IFREG {
            return nix::unistd::write(&self.fd, bytes);
        }
        write_now(&self.fd, bytes, self.kind == SFlag::S_IFSOCK)
    }

    /// Gives a pipe room for everything that may still come, so that a reader that takes nothing cannot hold up
    /// the word of an end.
    pub fn make_room(&self) {
        if self.kind == SFlag::S_IFIFO {
            let _ = fcntl(&self.fd, FcntlArg::F_SETPIPE_SZ(ROOMY));
        }
    }

    /// Whether its other end can go away.
    pub fn breaks(&self) -> bool {
        self.kind == SFlag::S_IFIFO || self.kind == SFlag::S_IFSOCK || self.is_terminal()
    }

    /// Whether its other end has gone.
    pub fn is_broken(&self) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        fds[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
    }

    /// Whether it is a terminal's.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a failure means that there is nothing to do just now.
pub fn is_later(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EINTR)
}
