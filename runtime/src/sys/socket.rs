//! UNIX sockets of the runtime: packets with descriptors, and sockets named through a directory descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect,
    recvmsg, sendmsg, socket, socketpair,
};

/// A connected pair of `SOCK_SEQPACKET` sockets, close-on-exec.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends one packet with descriptors; no SIGPIPE.
pub fn send(sock: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(
            sock.as_fd().as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Most descriptors in one packet; the kernel's own limit (`SCM_MAX_FD`).
pub const MOST_FDS: usize = 253;

/// Receives one packet: bytes put into `buf`, and the descriptors that came along (close-on-exec).
///
/// Zero bytes mean that the peer is gone.
pub fn recv(sock: impl AsFd, buf: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST_FDS]);
    loop {
        let mut iov = [IoSliceMut::new(buf)];
        let msg = match recvmsg::<()>(
            sock.as_fd().as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut fds = Vec::new();
        for control in msg.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel installed these for us just now; nothing else owns them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        return Ok((msg.bytes, fds));
    }
}

/// The address of `name` in the directory `dir`, in a form that fits sun_path whatever the depth; it holds while `dir` is
/// open.
pub fn through(dir: BorrowedFd<'_>, name: &str) -> nix::Result<UnixAddr> {
    UnixAddr::new(&PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())))
}

/// A listening `SOCK_SEQPACKET` socket at `name` in `dir`.
pub fn listen_at(dir: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let sock = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    nix::sys::socket::bind(sock.as_raw_fd(), &through(dir.as_fd(), name)?)?;
    nix::sys::socket::listen(&sock, nix::sys::socket::Backlog::new(4)?)?;
    Ok(sock)
}

/// A listening `SOCK_STREAM` socket at `name` in `dir`, with room for `waiting` connections.
pub fn listen_stream_at(dir: impl AsFd, name: &str, waiting: i32) -> nix::Result<OwnedFd> {
    let sock = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    nix::sys::socket::bind(sock.as_raw_fd(), &through(dir.as_fd(), name)?)?;
    nix::sys::socket::listen(&sock, nix::sys::socket::Backlog::new(waiting)?)?;
    Ok(sock)
}

/// Connects to the `SOCK_SEQPACKET` socket `name` in `dir`.
pub fn connect_at(dir: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let sock = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(sock.as_raw_fd(), &through(dir.as_fd(), name)?)?;
    Ok(sock)
}

/// A `SOCK_DGRAM` socket without a name; neither end of it waits.
pub fn datagrams() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Datagram, flags, None)
}

/// A `SOCK_DGRAM` socket named `name` in `dir`.
pub fn datagrams_at(dir: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let sock = datagrams()?;
    nix::sys::socket::bind(sock.as_raw_fd(), &through(dir.as_fd(), name)?)?;
    Ok(sock)
}

/// The next datagram's bytes put into `buf`, cut where it is full; `None` when there is none.
///
/// Descriptors that came along are closed by the kernel: there is no room for them.
pub fn next_datagram(sock: impl AsFd, buf: &mut [u8]) -> nix::Result<Option<usize>> {
    loop {
        match nix::sys::socket::recv(sock.as_fd().as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => return Ok(Some(length)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends one datagram with descriptors to `address`; `EAGAIN` where that would have to wait.
pub fn send_to(sock: impl AsFd, address: &UnixAddr, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg(sock.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, Some(address)).map(drop)
}

/// Gives a `SOCK_DGRAM` socket one peer, whose lack of room poll(2) then knows of; another takes its place.
pub fn connect_datagrams(sock: impl AsFd, address: &UnixAddr) -> nix::Result<()> {
    connect(sock.as_fd().as_raw_fd(), address)
}

/// Accepts one connection, close-on-exec.
pub fn accept(sock: impl AsFd) -> nix::Result<OwnedFd> {
    loop {
        match nix::sys::socket::accept4(sock.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            // SAFETY: a fresh descriptor that nothing else owns.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Connects to the `SOCK_STREAM` socket at `path`, which may be longer than sun_path.
pub fn connect_stream(path: &std::path::Path) -> nix::Result<OwnedFd> {
    let sock = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(Errno::EINVAL)?;
    let dir = super::fs::openat2(
        nix::fcntl::AT_FDCWD,
        parent,
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY,
        0,
        0,
    )?;
    connect(sock.as_raw_fd(), &through(dir.as_fd(), name)?)?;
    Ok(sock)
}
