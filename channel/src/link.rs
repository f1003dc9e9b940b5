//! One end of the channel as a descriptor: what is to be sent, and what was received.
//!
//! The crate's only input and output. Never waits. What waits to be sent is bounded by those who put it there: they
//! stop while the link [is full](Link::is_full).

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{MsgFlags, send};

use crate::{Decoder, Frame, Side, Violation};

/// With so many bytes waiting to be sent nothing is read that would make more of them.
const ENOUGH: usize = 256 * 1024;

/// One end of the channel.
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
    /// Takes over the channel's descriptor, a stream socket or a port; `peer` is who is at its other end.
    pub fn new(fd: OwnedFd, peer: Side) -> nix::Result<Link> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(Link { fd, decoder: Decoder::new(peer), out: Vec::new(), sent: 0, deaf: false, ended: false })
    }

    /// Queues a frame; refused is only one that is too long.
    pub fn send(&mut self, frame: &Frame) -> Result<(), Violation> {
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

    /// Whether to read, for a side that may wait: not while the peer does not take what it asked for, nor after a breach.
    pub fn listens(&self) -> bool {
        !self.deaf && !self.ended && !self.is_full()
    }

    /// Whether the peer is gone.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Takes note that the peer is gone.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Tells the peer why nothing more is read, and reads nothing more.
    pub fn refuse(&mut self, violation: &Violation) {
        let _ = self.send(&Frame::Refused { reason: violation.to_string() });
        self.deaf = true;
    }

    /// Writes what can be written.
    pub fn flush(&mut self) {
        while self.has_output() {
            match self.write() {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(written) => self.sent += written,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    // What the peer has said before is still to be read, where its end is seen.
                    self.sent = self.out.len();
                    self.ended |= self.deaf;
                }
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

    /// Writes once, without a signal where nobody reads.
    fn write(&self) -> nix::Result<usize> {
        let rest = self.out.get(self.sent..).unwrap_or_default();
        match send(self.fd.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::ENOTSOCK) => nix::unistd::write(&self.fd, rest),
            other => other,
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

    /// The next whole frame. A breach is told to the peer here, once; it is not listened to any more.
    pub fn receive(&mut self) -> Result<Option<Frame>, Violation> {
        if self.deaf {
            return Ok(None);
        }
        self.decoder.next().inspect_err(|violation| {
            self.refuse(violation);
            self.flush();
        })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Link, Link) {
        let (a, b) = UnixStream::pair().unwrap();
        (Link::new(a.into(), Side::Guest).unwrap(), Link::new(b.into(), Side::Host).unwrap())
    }

    #[test]
    fn frames_cross_and_an_end_is_seen_after_them() {
        let (mut host, mut guest) = pair();
        host.send(&Frame::Start { session: 0 }).unwrap();
        host.flush();
        drop(host);
        let mut buffer = [0; 4096];
        guest.fill(&mut buffer);
        assert!(matches!(guest.receive().unwrap(), Some(Frame::Start { session: 0 })));
        // Nobody takes this any more, and that alone does not hide what is still to be read.
        guest.send(&Frame::Flushed { session: 0 }).unwrap();
        guest.flush();
        assert!(!guest.has_output() && !guest.has_ended());
        guest.fill(&mut buffer);
        assert!(guest.has_ended() && guest.receive().unwrap().is_none());
    }

    #[test]
    fn a_breach_is_told_once_and_ends_the_listening() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut host = Link::new(ours.into(), Side::Guest).unwrap();
        theirs.write_all(&[0xff; 64]).unwrap();
        host.fill(&mut [0; 4096]);
        let violation = host.receive().unwrap_err();
        assert!(!host.listens() && host.receive().unwrap().is_none());
        drop(host);
        let mut told = Vec::new();
        theirs.read_to_end(&mut told).unwrap();
        let mut decoder = Decoder::new(Side::Host);
        decoder.feed(&told);
        let Some(Frame::Refused { reason }) = decoder.next().unwrap() else { panic!("{told:?}") };
        assert_eq!(reason, violation.to_string());
        assert!(decoder.next().unwrap().is_none());
    }

    #[test]
    fn what_waits_is_counted_and_kept_in_order() {
        let (mut host, mut guest) = pair();
        let size = crate::LARGEST_DATA;
        let mut sent = 0u8;
        while !host.is_full() {
            let frame = Frame::Data { session: 1, stream: crate::Stream::Stdin, bytes: vec![sent; size] };
            host.send(&frame).unwrap();
            host.flush();
            sent += 1;
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut seen = 0;
        while seen < sent {
            guest.fill(&mut buffer);
            host.flush();
            while let Some(frame) = guest.receive().unwrap() {
                assert!(matches!(frame, Frame::Data { bytes, .. } if bytes == vec![seen; size]));
                seen += 1;
            }
        }
        assert!(!host.has_output());
    }
}
