//! The host's end of the channel.
//!
//! It always reads, so that the guest, which may stop reading while it cannot write, is never waited for in a
//! circle. What waits to be sent is bounded by those who put it there: they stop while the link [is full](Link::is_full).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use locule_channel::{Decoder, Frame, Side};
use locule_runtime::error::{Context, Error, Kind, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// With so many bytes waiting nothing is read from anybody that would make more of them.
const ENOUGH: usize = 256 * 1024;

/// The channel.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
    ended: bool,
}

/// The machine's end is not the session's to explain.
fn gone() -> Error {
    Error::new(Kind::NotRunning, "the virtual machine ended")
}

impl Link {
    /// Takes over the channel's descriptor.
    pub fn new(fd: OwnedFd) -> Result<Link> {
        let doing = || "setting up the channel to the guest";
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).doing(doing)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).doing(doing)?;
        Ok(Link { fd, decoder: Decoder::new(Side::Guest), out: Vec::new(), sent: 0, ended: false })
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: &Frame) -> Result<()> {
        frame.encode(&mut self.out).map_err(|violation| {
            Error::unsupported(format!("asking the guest: {violation}")).hint("the document is too long")
        })
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

    /// Whether the guest closed it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Writes what can be written.
    pub fn flush(&mut self) {
        while self.has_output() {
            let rest = self.out.get(self.sent..).unwrap_or_default();
            match nix::sys::socket::send(
                std::os::fd::AsRawFd::as_raw_fd(&self.fd),
                rest,
                nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
            ) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(written) => self.sent += written,
                Err(Errno::EINTR) => {}
                // What it has said before is still to be read, where its end is seen.
                Err(_) => {
                    self.sent = self.out.len();
                }
            }
        }
        if self.sent == self.out.len() {
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

    /// The next whole frame; a guest that breaks the protocol is not listened to any more.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        self.decoder.next().map_err(|violation| {
            let _ = self.send(&Frame::Refused { reason: violation.to_string() });
            self.flush();
            breach(violation)
        })
    }

    /// An error if the guest closed it.
    pub fn check(&self) -> Result<()> {
        if self.ended { Err(gone()) } else { Ok(()) }
    }
}

/// What the guest did wrong.
pub fn breach(violation: impl std::fmt::Display) -> Error {
    Error::new(Kind::System, format!("the guest: {violation}"))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
