//! Files of a cgroup, through its directory's descriptor.
//!
//! Reading without allocation where it can be, writing with one write(2), and the errors'
//! explanations. It owns no policy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::{Context, Error, Result};

/// `cgroup.events` in one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Events {
    pub populated: bool,
    pub frozen: bool,
}

pub(super) fn open(dir: impl AsFd, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    openat(dir.as_fd(), name, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Reads a file from its beginning; kernel files give all they have, in as many reads as it takes.
pub(super) fn read_from_start(file: impl AsFd) -> nix::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0u8; 4096];
    loop {
        match nix::sys::uio::pread(file.as_fd(), &mut chunk, text.len() as i64) {
            // A short read is the end: seq_file fills the buffer while it has lines. Files longer
            // than the buffer come in several full reads.
            Ok(0) => break,
            Ok(n) => {
                text.extend_from_slice(&chunk[..n]);
                if n < chunk.len() / 2 {
                    break;
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    String::from_utf8(text).map_err(|_| Errno::EILSEQ)
}

pub(super) fn read(dir: impl AsFd, name: &str) -> nix::Result<String> {
    read_from_start(open(dir, name, OFlag::O_RDONLY)?)
}

pub(super) fn write(dir: impl AsFd, name: &str, text: &str) -> nix::Result<()> {
    let file = open(dir, name, OFlag::O_WRONLY)?;
    // A write of nothing never reaches the file's handler; an empty line does (`cpuset.cpus` without a list).
    let text = if text.is_empty() { "\n" } else { text };
    loop {
        match nix::unistd::write(&file, text.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The number in a file with one; `max` is the greatest.
pub(super) fn read_number(dir: impl AsFd, name: &str) -> nix::Result<u64> {
    match read(dir, name)?.trim() {
        "max" => Ok(u64::MAX),
        text => text.parse().map_err(|_| Errno::EINVAL),
    }
}

/// The value behind `key` in a file of lines `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

pub(super) fn parse_events(text: &str) -> Events {
    Events { populated: keyed(text, "populated") == Some(1), frozen: keyed(text, "frozen") == Some(1) }
}

pub(super) fn events(dir: impl AsFd) -> nix::Result<Events> {
    read(dir, "cgroup.events").map(|text| parse_events(&text))
}

/// The cgroup2 mount at `mount`, checked to be one.
pub(super) fn open_mount(mount: &Path) -> Result<OwnedFd> {
    let fd = nix::fcntl::open(mount, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .doing(|| format!("opening {}", mount.display()))?;
    let kind = nix::sys::statfs::fstatfs(&fd).doing(|| format!("looking at {}", mount.display()))?;
    if kind.filesystem_type() != nix::sys::statfs::CGROUP2_SUPER_MAGIC {
        return Err(Error::unsupported(format!("{} is not a cgroup v2 mount", mount.display())).hint(
            "locule needs a host with cgroup v2 alone (boot with systemd.unified_cgroup_hierarchy=1), \
             or --cgroup-manager=disabled",
        ));
    }
    Ok(fd)
}

/// A path below the mount as openat wants it.
pub(super) fn relative(path: &Path) -> &Path {
    match path.strip_prefix("/") {
        Ok(inner) if inner.as_os_str().is_empty() => Path::new("."),
        Ok(inner) => inner,
        Err(_) => path,
    }
}

pub(super) fn open_dir(root: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    openat(root, relative(path), flags, Mode::empty())
}
