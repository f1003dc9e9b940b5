//! The channel's descriptor: what is to be sent, and what was received.
//!
//! Never waits, and never fails: a channel that breaks has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use locule_channel::{Decoder, Frame, Side, Violation};
use locule_runtime::error::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// With so many bytes waiting to be sent nothing is read that would make more of them.
const ENOUGH: usize = 256 * 1024;

/// The agent's end of the channel.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
    deaf: bool,
    ended: bool,
}

impl Link {
    /// Takes over the channel's descriptor.
    pub fn new(fd: OwnedFd) -> Result<Link> {
        let doing = || "setting up the channel";
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).doing(doing)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).doing(doing)?;
        fcntl(&fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).doing(doing)?;
        let decoder = Decoder::new(Side::Host);
        Ok(Link { fd, decoder, out: Vec::new(), sent: 0, deaf: false, ended: false })
    }

    /// Queues a frame; refused is only one that is too long.
    pub fn send(&mut self, frame: &Frame) -> std::result::Result<(), Violation> {
        frame.encode(&mut self.out)
    }

    /// Where frames may be put directly.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether there is so much to send that no more should be made.
    pub fn is_full(&self) -> bool {
        self.out.len() - self.sent >= ENOUGH
    }

    /// Whether there is something to send.
    pub fn has_output(&self) -> bool {
        self.sent < self.out.len() && !self.ended
    }

    /// Whether to read: not while the host does not take what it asked for, nor after a breach.
    pub fn listens(&self) -> bool {
        !self.deaf && !self.ended && !self.is_full()
    }

    /// Whether the host is gone.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes note that the host is gone.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Says why nothing more is read, and reads nothing more.
    pub fn refuse(&mut self, violation: &Violation) {
        eprintln!("locule-guest: {violation}");
        let _ = self.send(&Frame::Refused { reason: violation.to_string() });
        self.deaf = true;
    }

    /// Writes what can be written.
    pub fn flush(&mut self) {
        while self.has_output() {
            match nix::unistd::write(&self.fd, self.out.get(self.sent..).unwrap_or_default()) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(written) => self.sent += written,
                Err(Errno::EINTR) => {}
                Err(_) => self.ended = true,
            }
        }
        if self.sent == self.out.len() || self.ended {
            self.out.clear();
            self.sent = 0;
        } else if self.sent >= ENOUGH {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Reads once what has arrived.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        match nix::unistd::read(&self.fd, buffer) {
            Ok(0) => self.ended = true,
            Ok(length) => self.decoder.feed(buffer.get(..length).unwrap_or_default()),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.ended = true,
        }
    }

    /// The next whole frame; a breach is told to the host here.
    pub fn next(&mut self) -> Option<Frame> {
        if self.deaf {
            return None;
        }
        match self.decoder.next() {
            Ok(frame) => frame,
            Err(violation) => {
                self.refuse(&violation);
                None
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
