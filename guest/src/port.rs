//! The virtio console's port that is the channel.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use locule_channel::PORT;
use locule_runtime::error::{Context, Error, Kind, Result};
use locule_runtime::sys::fs::openat2;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::uevent::Uevents;

/// How long the kernel may take to find the console's ports, which it does beside starting us.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the kernel lists them.
const CLASS: &str = "/sys/class/virtio-ports";

/// Opens the channel's port, once it is there and the host has opened its end.
pub fn open() -> Result<OwnedFd> {
    // Listens before it looks, so that none is missed.
    let uevents = Uevents::listen()?;
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(node) = find() {
            let doing = || format!("opening the channel's port {}", node.display());
            let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let port = openat2(AT_FDCWD, &node, flags, 0, 0).doing(doing)?;
            await_host(&port)?;
            return Ok(port);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(Kind::System, format!("the machine has no console port named {PORT}"))
                .hint("it was not started by locule"));
        }
        uevents.wait(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX))?;
    }
}

/// The port's device node.
fn find() -> Option<PathBuf> {
    std::fs::read_dir(CLASS).ok()?.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
        let node = PathBuf::from("/dev").join(entry.file_name());
        (name.trim_end() == PORT && node.exists()).then_some(node)
    })
}

/// Until the host has opened its end the port reads as if it had ended, and poll(2) says so at once
/// every time. Edges tell when that changes.
fn await_host(port: &OwnedFd) -> Result<()> {
    let doing = || "waiting for the host's end of the channel";
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(doing)?;
    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    epoll.add(port, EpollEvent::new(edges, 0)).doing(doing)?;
    loop {
        let mut fds = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).doing(doing)?;
        if !fds[0].revents().unwrap_or(PollFlags::empty()).contains(PollFlags::POLLHUP) {
            return Ok(());
        }
        match epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {}
            other => drop(other.doing(doing)?),
        }
    }
}
