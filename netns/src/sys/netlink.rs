//! Netlink messages with checked lengths, and blocking sockets to send them on.
//!
//! Serves rtnetlink and nf_tables alike; knows neither link types nor rules. Never truncates:
//! a length that does not fit its field poisons the message (CVE-2021-43784).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto,
    setsockopt, socket, sockopt,
};

const HEADER: usize = 16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
/// Marks an attribute that holds attributes.
pub const NESTED: u16 = 0x8000;
/// `NLM_F_CREATE | NLM_F_EXCL`.
pub const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// `NLM_F_CREATE | NLM_F_REPLACE`.
pub const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// Attributes under construction.
#[derive(Debug, Clone, Default)]
pub struct Attrs {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Attrs {
    /// No attributes yet.
    pub fn new() -> Self {
        Attrs::default()
    }

    /// Adds an attribute with its value as it is.
    #[must_use]
    pub fn put(mut self, kind: u16, value: &[u8]) -> Self {
        match u16::try_from(value.len() + 4) {
            Ok(length) => {
                self.bytes.extend_from_slice(&length.to_ne_bytes());
                self.bytes.extend_from_slice(&kind.to_ne_bytes());
                self.bytes.extend_from_slice(value);
                self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
            }
            Err(_) => self.overflow = true,
        }
        self
    }

    /// Adds a NUL-terminated text.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Adds a number in the host's order, as rtnetlink has them.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network order, as nf_tables has them.
    #[must_use]
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds attributes within an attribute.
    #[must_use]
    pub fn nest(mut self, kind: u16, inner: Attrs) -> Self {
        self.overflow |= inner.overflow;
        self.put(kind | NESTED, &inner.bytes)
    }

    /// Adds attributes behind a fixed header within an attribute (the peer of a veth pair).
    #[must_use]
    pub fn nest_behind(mut self, kind: u16, header: &[u8], inner: Attrs) -> Self {
        self.overflow |= inner.overflow;
        self.put(kind | NESTED, &[header, &inner.bytes].concat())
    }

    /// Their bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How long they are by now.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A request: header, fixed body, attributes.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Request {
    /// A request of `kind` with `flags` (`NLM_F_*`), the kind's fixed body and attributes.
    pub fn new(kind: u16, flags: u16, body: &[u8], attrs: Attrs) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + body.len() + attrs.len());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(&attrs.bytes);
        Request { bytes, overflow: attrs.overflow }
    }

    fn seal_into(self, sequence: u32, flags: u16, out: &mut Vec<u8>) -> nix::Result<()> {
        if self.overflow {
            return Err(Errno::EMSGSIZE);
        }
        let at = out.len();
        let length = u32::try_from(self.bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        out.extend_from_slice(&self.bytes);
        out[at..at + 4].copy_from_slice(&length.to_ne_bytes());
        out[at + 6..at + 8].copy_from_slice(&flags.to_ne_bytes());
        out[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(())
    }
}

/// A message of the kernel, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: u16,
    /// Fixed body and attributes.
    pub payload: Vec<u8>,
}

impl Message {
    /// The attributes behind a fixed body of `skip` bytes.
    pub fn attrs(&self, skip: usize) -> Walk<'_> {
        walk(self.payload.get(skip..).unwrap_or_default())
    }
}

/// Walks the attributes in `bytes`.
pub fn walk(bytes: &[u8]) -> Walk<'_> {
    Walk { bytes }
}

/// Walks attributes; stops at the first one whose length does not fit.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.bytes, 0)?);
        let kind = u16_at(self.bytes, 2)? & 0x3fff;
        let value = self.bytes.get(4..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The u16 in host order at `at`, if the slice is that long.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The u32 in host order at `at`, if the slice is that long.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The text of an attribute, up to its NUL.
pub fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Which request of several failed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Its place among those that were sent; `None` when it was no single one.
    pub at: Option<usize>,
    /// Why.
    pub errno: Errno,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal { at: None, errno }
    }
}

/// A netlink socket, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket for links, addresses and routes of the caller's network namespace.
    pub fn route() -> nix::Result<Self> {
        Socket::open(SockProtocol::NetlinkRoute)
    }

    /// A socket for nf_tables of the caller's network namespace.
    pub fn netfilter() -> nix::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        // A transaction is one send, and a thousand published ports are a large one.
        let _ = setsockopt(&socket.fd, sockopt::SndBufForce, &(8 << 20));
        let _ = setsockopt(&socket.fd, sockopt::RcvBufForce, &(8 << 20));
        Ok(socket)
    }

    /// A socket that is told of changes of links (RTMGRP_LINK).
    pub fn links() -> nix::Result<Self> {
        let socket = Socket::route()?;
        bind(socket.fd.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
        Ok(socket)
    }

    /// Waits until something was said, or `patience` ends; drops what was said.
    pub fn wait(&mut self, patience: Duration) -> nix::Result<()> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, patience) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            // More than the socket holds is no less of a change.
            Ok(_) => match self.receive() {
                Err(Errno::ENOBUFS) => Ok(()),
                other => other.map(drop),
            },
            Err(errno) => Err(errno),
        }
    }

    fn open(protocol: SockProtocol) -> nix::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Socket { fd, sequence: 0, buffer: vec![0; 64 * 1024] })
    }

    /// A route socket in the network namespace `ns`; the caller is moved there and back, which needs
    /// CAP_SYS_ADMIN over both and changes the calling thread only.
    ///
    /// When the way back fails the caller is left inside, and must end.
    pub fn route_in(ns: impl AsFd, home: impl AsFd) -> nix::Result<Self> {
        setns(&ns, CloneFlags::CLONE_NEWNET)?;
        let socket = Socket::route();
        // Back home first, whatever became of the socket.
        setns(&home, CloneFlags::CLONE_NEWNET)?;
        socket
    }

    /// Sends a request and waits for the kernel's acknowledgement.
    pub fn call(&mut self, request: Request) -> nix::Result<()> {
        self.call_all(vec![request]).map_err(|refusal| refusal.errno)
    }

    /// Sends requests in one go and waits for all acknowledgements; tells the first that failed.
    pub fn call_all(&mut self, requests: Vec<Request>) -> Result<(), Refusal> {
        let count = requests.len();
        if count == 0 {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.seal_into(self.sequence, libc::NLM_F_ACK as u16, &mut bytes)?;
        }
        self.transmit(&bytes)?;
        let mut refused = None;
        let mut answered = 0;
        while answered < count {
            for (sequence, _, message) in self.receive()? {
                let at = sequence.wrapping_sub(first) as usize;
                if at >= count || message.kind != ERROR {
                    continue;
                }
                answered += 1;
                if let (Err(errno), None) = (errno_of(&message), refused) {
                    refused = Some(Refusal { at: Some(at), errno });
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends a transaction of nf_tables: all of it holds afterwards, or nothing.
    pub fn transact(&mut self, begin: Request, requests: Vec<Request>, end: Request) -> Result<(), Refusal> {
        let count = requests.len();
        if count == 0 {
            return Ok(());
        }
        let mut bytes = Vec::new();
        let begin_at = self.next();
        begin.seal_into(begin_at, 0, &mut bytes)?;
        let first = self.sequence.wrapping_add(1);
        for (number, request) in requests.into_iter().enumerate() {
            // One acknowledgement tells that all went well; what fails is answered in any case.
            let flags = if number + 1 == count { libc::NLM_F_ACK as u16 } else { 0 };
            let sequence = self.next();
            request.seal_into(sequence, flags, &mut bytes)?;
        }
        let end_at = self.next();
        end.seal_into(end_at, 0, &mut bytes)?;
        self.transmit(&bytes)?;
        let mut refused: Option<Refusal> = None;
        loop {
            for (sequence, _, message) in self.receive()? {
                if message.kind != ERROR {
                    continue;
                }
                let at = sequence.wrapping_sub(first) as usize;
                if sequence == begin_at || sequence == end_at {
                    // The transaction as a whole failed: nothing else will be answered.
                    errno_of(&message)?;
                } else if at < count {
                    if let (Err(errno), None) = (errno_of(&message), refused) {
                        refused = Some(Refusal { at: Some(at), errno });
                    }
                    if at + 1 == count {
                        return refused.map_or(Ok(()), Err);
                    }
                }
            }
        }
    }

    /// Sends a request and returns the kernel's single answer.
    pub fn get(&mut self, request: Request) -> nix::Result<Message> {
        let sequence = self.send(request, 0)?;
        loop {
            for (answered, _, message) in self.receive()? {
                match message.kind {
                    _ if answered != sequence => {}
                    ERROR => errno_of(&message)?,
                    _ => return Ok(message),
                }
            }
        }
    }

    /// Sends a request for a listing and returns all of it; starts again when it changed meanwhile.
    pub fn dump(&mut self, request: &Request) -> nix::Result<Vec<Message>> {
        for _ in 0..64 {
            let sequence = self.send(request.clone(), libc::NLM_F_DUMP as u16)?;
            match self.collect(sequence) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
        Err(Errno::EAGAIN)
    }

    fn collect(&mut self, sequence: u32) -> nix::Result<Vec<Message>> {
        let mut messages = Vec::new();
        let mut interrupted = false;
        loop {
            for (answered, flags, message) in self.receive()? {
                if answered != sequence {
                    continue;
                }
                interrupted |= flags & FLAG_DUMP_INTERRUPTED != 0;
                match message.kind {
                    ERROR => {
                        errno_of(&message)?;
                        return Ok(messages);
                    }
                    DONE if interrupted => return Err(Errno::EINTR),
                    DONE => return Ok(messages),
                    _ => messages.push(message),
                }
            }
        }
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&mut self, request: Request, flags: u16) -> nix::Result<u32> {
        let sequence = self.next();
        let mut bytes = Vec::new();
        request.seal_into(sequence, flags, &mut bytes)?;
        self.transmit(&bytes)?;
        Ok(sequence)
    }

    fn transmit(&self, bytes: &[u8]) -> nix::Result<()> {
        loop {
            match sendto(self.fd.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Ok(sent) if sent != bytes.len() => return Err(Errno::EIO),
                result => return result.map(drop),
            }
        }
    }

    /// One datagram of the kernel, taken apart; what other processes send here is dropped.
    fn receive(&mut self) -> nix::Result<Vec<(u32, u16, Message)>> {
        loop {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok((_, from)) if from.is_none_or(|from| from.pid() != 0) => {}
                Ok((length, _)) => {
                    let mut rest = self.buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
                    let mut messages = Vec::new();
                    while rest.len() >= HEADER {
                        let length = u32_at(rest, 0).ok_or(Errno::EBADMSG)? as usize;
                        let kind = u16_at(rest, 4).ok_or(Errno::EBADMSG)?;
                        let flags = u16_at(rest, 6).ok_or(Errno::EBADMSG)?;
                        let sequence = u32_at(rest, 8).ok_or(Errno::EBADMSG)?;
                        let payload = rest.get(HEADER..length).ok_or(Errno::EBADMSG)?.to_vec();
                        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                        messages.push((sequence, flags, Message { kind, payload }));
                    }
                    return Ok(messages);
                }
            }
        }
    }
}

fn errno_of(message: &Message) -> nix::Result<()> {
    match u32_at(&message.payload, 0).ok_or(Errno::EBADMSG)? as i32 {
        0 => Ok(()),
        code => Err(Errno::from_raw(-code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_nested_and_found_again() {
        let attrs = Attrs::new().text(3, "eth0").nest(18, Attrs::new().u32(1, 7).be32(2, 7));
        let request = Request::new(16, 0, &[1, 2, 3], attrs);
        let mut bytes = Vec::new();
        request.seal_into(9, 4, &mut bytes).unwrap();
        assert_eq!(u32_at(&bytes, 0), Some(bytes.len() as u32));
        assert_eq!(u16_at(&bytes, 6), Some(5), "NLM_F_REQUEST is always there");
        assert_eq!(u32_at(&bytes, 8), Some(9));
        let message = Message { kind: 16, payload: bytes[HEADER..].to_vec() };
        let attrs: Vec<_> = message.attrs(4).collect();
        assert_eq!(attrs[0], (3, b"eth0\0".as_slice()));
        let inner: Vec<_> = walk(attrs[1].1).collect();
        assert_eq!(inner, [(1, 7u32.to_ne_bytes().as_slice()), (2, 7u32.to_be_bytes().as_slice())]);
    }

    #[test]
    fn what_does_not_fit_is_never_sent_truncated() {
        let long = Attrs::new().put(1, &vec![0; 65_532]);
        for attrs in [long.clone(), Attrs::new().nest(2, long)] {
            let sealed = Request::new(16, 0, &[], attrs).seal_into(1, 0, &mut Vec::new());
            assert_eq!(sealed, Err(Errno::EMSGSIZE));
        }
    }

    #[test]
    fn a_lying_length_ends_the_walk() {
        assert_eq!(walk(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(walk(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(walk(&[]).count(), 0);
    }
}
