//! A small rtnetlink client: requests with checked lengths, acknowledged calls, dumps, one ioctl.
//!
//! Owns one `AF_NETLINK` socket. Blocking, single-threaded, no cache; it knows no link types
//! and holds no policy. Every length that comes from outside is checked before it is used.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::fs::openat2;

const HEADER: usize = 16;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;

/// A request under construction: header, fixed body, attributes.
///
/// A length that does not fit its 16-bit field poisons the request, so that it is never sent
/// truncated (CVE-2021-43784).
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Request {
    /// A request of `kind` (`RTM_*`) with `flags` (`NLM_F_*`) and the kind's fixed body.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        let mut request = Request { bytes, overflow: false };
        request.pad();
        request
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        match u16::try_from(value.len() + 4) {
            Ok(length) => {
                self.bytes.extend_from_slice(&length.to_ne_bytes());
                self.bytes.extend_from_slice(&kind.to_ne_bytes());
                self.bytes.extend_from_slice(value);
                self.pad();
            }
            Err(_) => self.overflow = true,
        }
        self
    }

    /// Adds a NUL-terminated text attribute.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn seal(mut self, sequence: u32, flags: u16) -> nix::Result<Vec<u8>> {
        if self.overflow {
            return Err(Errno::EMSGSIZE);
        }
        let length = u32::try_from(self.bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(self.bytes)
    }
}

/// A message of the kernel, without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `RTM_*`.
    pub kind: u16,
    /// Fixed body and attributes.
    pub payload: Vec<u8>,
}

impl Message {
    /// The attributes behind a fixed body of `skip` bytes.
    pub fn attrs(&self, skip: usize) -> Attrs<'_> {
        Attrs { bytes: self.payload.get(skip..).unwrap_or_default() }
    }
}

/// Walks attributes; stops at the first one whose length does not fit.
#[derive(Debug, Clone)]
pub struct Attrs<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.bytes, 0)?);
        // The top bits only say "nested" and "network byte order".
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

/// An rtnetlink socket, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket in the caller's network namespace.
    pub fn open() -> nix::Result<Self> {
        // SAFETY: takes integers only.
        let fd = Errno::result(unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
        })?;
        // SAFETY: a fresh descriptor that nothing else owns.
        Ok(Socket { fd: unsafe { OwnedFd::from_raw_fd(fd) }, sequence: 0 })
    }

    /// A socket in the network namespace `ns`; the caller is moved there and back, which needs
    /// CAP_SYS_ADMIN over both and changes the calling thread only.
    ///
    /// When the way back fails the caller is left inside, and should end.
    pub fn open_in(ns: impl AsFd, home: impl AsFd) -> nix::Result<Self> {
        setns(&ns, CloneFlags::CLONE_NEWNET)?;
        let socket = Socket::open();
        // Back home first, whatever became of the socket.
        setns(&home, CloneFlags::CLONE_NEWNET)?;
        socket
    }

    /// Sends a request and waits for the kernel's acknowledgement.
    pub fn call(&mut self, request: Request) -> nix::Result<()> {
        self.send(request, libc::NLM_F_ACK as u16)?;
        self.collect(true).map(drop)
    }

    /// Sends a request and returns the kernel's single answer.
    pub fn get(&mut self, request: Request) -> nix::Result<Message> {
        self.send(request, 0)?;
        self.collect(true)?.pop().ok_or(Errno::ENODATA)
    }

    /// Sends a request for a listing and returns all of it; starts again when it changed meanwhile.
    pub fn dump(&mut self, request: &Request) -> nix::Result<Vec<Message>> {
        for _ in 0..16 {
            self.send(request.clone(), libc::NLM_F_DUMP as u16)?;
            match self.collect(false) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
        Err(Errno::EAGAIN)
    }

    fn send(&mut self, request: Request, flags: u16) -> nix::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.seal(self.sequence, flags)?;
        // SAFETY: all-zero is the kernel's address, plain integers.
        let mut kernel: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        kernel.nl_family = libc::AF_NETLINK as u16;
        loop {
            // SAFETY: buffer and address are live and their lengths are their own.
            let ret = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw const kernel).cast(),
                    size_of::<libc::sockaddr_nl>() as u32,
                )
            };
            match Errno::result(ret) {
                Err(Errno::EINTR) => {}
                Ok(sent) if sent as usize != bytes.len() => return Err(Errno::EIO),
                result => return result.map(drop),
            }
        }
    }

    /// Reads until the answer is complete: an acknowledgement, a single message, or the end of a dump.
    fn collect(&mut self, single: bool) -> nix::Result<Vec<Message>> {
        let mut messages = Vec::new();
        let mut interrupted = false;
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let length = self.receive(&mut buffer)?;
            let mut rest = buffer.get(..length).ok_or(Errno::EMSGSIZE)?;
            while rest.len() >= HEADER {
                let length = u32_at(rest, 0).ok_or(Errno::EBADMSG)? as usize;
                let kind = u16_at(rest, 4).ok_or(Errno::EBADMSG)?;
                let flags = u16_at(rest, 6).ok_or(Errno::EBADMSG)?;
                let sequence = u32_at(rest, 8).ok_or(Errno::EBADMSG)?;
                let payload = rest.get(HEADER..length).ok_or(Errno::EBADMSG)?;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                if sequence != self.sequence {
                    continue;
                }
                interrupted |= flags & FLAG_DUMP_INTERRUPTED != 0;
                match kind {
                    ERROR => {
                        let code = u32_at(payload, 0).ok_or(Errno::EBADMSG)? as i32;
                        return if code == 0 { Ok(messages) } else { Err(Errno::from_raw(-code)) };
                    }
                    DONE if interrupted => return Err(Errno::EINTR),
                    DONE => return Ok(messages),
                    _ => messages.push(Message { kind, payload: payload.to_vec() }),
                }
                if single && flags & libc::NLM_F_MULTI as u16 == 0 {
                    return Ok(messages);
                }
            }
        }
    }

    /// One datagram from the kernel; others' are dropped, as any process may send to this socket.
    fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        loop {
            // SAFETY: all-zero is a valid address to be overwritten.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut from_length = size_of::<libc::sockaddr_nl>() as u32;
            // SAFETY: buffer, address and length are live; the kernel writes within their sizes.
            let ret = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_TRUNC,
                    (&raw mut from).cast(),
                    &raw mut from_length,
                )
            };
            match Errno::result(ret) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok(_) if from.nl_pid != 0 => {}
                Ok(length) if length as usize > buffer.len() => return Err(Errno::EMSGSIZE),
                Ok(length) => return Ok(length as usize),
            }
        }
    }
}

/// A descriptor of the caller's own network namespace, through a descriptor of a procfs root.
pub fn own_namespace(proc_root: impl AsFd) -> nix::Result<OwnedFd> {
    openat2(proc_root, "thread-self/ns/net", nix::fcntl::OFlag::O_RDONLY, 0, 0)
}

/// Sets the interface `name` of the caller's network namespace up, by ioctl: one socket, one call.
///
/// Flags that SIOCSIFFLAGS may change and that are not given are cleared, so this is for `lo`,
/// which has none of them.
pub fn set_up(name: &str) -> nix::Result<()> {
    // SAFETY: plain integers and arrays; all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // Any socket carries interface ioctls, and a unix one is the cheapest to make.
    // SAFETY: takes integers only.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a fresh descriptor that nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the kernel reads one ifreq.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let request = Request::new(16, 0, &[1, 2, 3]).text(3, "eth0").attr(28, &7u32.to_ne_bytes());
        let bytes = request.seal(9, 4).unwrap();
        assert_eq!(u32_at(&bytes, 0), Some(bytes.len() as u32));
        assert_eq!(u16_at(&bytes, 6), Some(5), "NLM_F_REQUEST is always there");
        assert_eq!(u32_at(&bytes, 8), Some(9));
        let message = Message { kind: 16, payload: bytes[HEADER..].to_vec() };
        let attrs: Vec<_> = message.attrs(4).collect();
        assert_eq!(attrs, [(3, b"eth0\0".as_slice()), (28, 7u32.to_ne_bytes().as_slice())]);
    }

    #[test]
    fn an_attribute_beyond_16_bits_is_refused() {
        let request = Request::new(16, 0, &[]).attr(1, &vec![0; 65_532]);
        assert_eq!(request.seal(1, 0), Err(Errno::EMSGSIZE));
        assert!(Request::new(16, 0, &[]).attr(1, &vec![0; 65_531]).seal(1, 0).is_ok());
    }

    #[test]
    fn a_broken_attribute_ends_the_walk() {
        for payload in [vec![3, 0, 1, 0], vec![200, 0, 1, 0, 9], vec![4, 0], vec![0, 0, 0, 0]] {
            assert_eq!(Message { kind: 0, payload }.attrs(0).count(), 0);
        }
        assert_eq!(Message { kind: 0, payload: vec![1] }.attrs(64).count(), 0);
    }
}
