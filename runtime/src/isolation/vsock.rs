//! The sockets of a machine that has one to the host: a directory in the container's own.
//!
//! In `ROOT/ID/vsock`, which its owner alone reaches, `sock` listens for programs of the host that want a port of the
//! machine's, and `sock_PORT` is looked for when somebody inside connects to PORT. The monitor sees the directory as a
//! mount of its own, of which it can name nothing else.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};

use crate::error::{Context, Result};
use crate::plan::mounts::{MountOp, What};
use crate::state::Entry;
use crate::sys::fs::openat2;
use crate::sys::mount::{MountAttr, attr};
use crate::sys::socket;

/// The directory in the container's.
pub const DIR: &str = "vsock";
/// The listening socket; the others' names begin with it.
pub const NAME: &str = "sock";
/// Connections that wait for the machine.
const WAITING: i32 = 16;

/// What the monitor gets.
#[derive(Debug)]
pub struct Sockets {
    /// The listening socket.
    pub listener: OwnedFd,
    /// The directory, as a mount of nothing else.
    pub directory: OwnedFd,
}

/// Makes the directory in `entry`, whose path is `path`, and listens there; the mount is for the monitor's plan.
pub(crate) fn prepare(entry: &Entry, path: &Path) -> Result<(MountOp, OwnedFd)> {
    let doing = || "making the directory of the machine's sockets";
    // The monitor may be another user, whom its mount leads here. Nobody else gets through the directory above.
    let mode = Mode::from_bits_truncate(0o711);
    mkdirat(entry, DIR, mode).doing(doing)?;
    fchmodat(entry, DIR, mode, FchmodatFlags::FollowSymlink).doing(doing)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let dir = openat2(entry, DIR, flags, 0, libc::RESOLVE_BENEATH).doing(doing)?;
    let listener = socket::listen_stream_at(&dir, NAME, WAITING).doing(doing)?;
    let mount = MountOp {
        destination: PathBuf::from("/").join(DIR),
        what: What::Bind { source: path.join(DIR), recursive: false },
        attr: MountAttr { set: attr::NOSUID | attr::NODEV | attr::NOEXEC, ..MountAttr::default() },
        attr_all: MountAttr::default(),
        propagation: Vec::new(),
        idmap: None,
        exact: false,
    };
    Ok((mount, listener))
}
