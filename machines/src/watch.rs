//! Watches of directories, for those who wait for a change in one.
//!
//! Owns what is said when the host gives no more of them.

use nix::errno::Errno;
use nix::sys::inotify::{InitFlags, Inotify};

use crate::{Error, Result};

/// A watch of nothing yet, for whoever is `doing` something that waits.
pub fn new(flags: InitFlags, doing: impl FnOnce() -> String) -> Result<Inotify> {
    Inotify::init(flags | InitFlags::IN_CLOEXEC).map_err(|errno| {
        let err = Error::sys(errno, doing());
        match errno {
            // All machines' count as those of their maker, and a systemd has some ten.
            Errno::EMFILE => {
                err.hint("raise fs.inotify.max_user_instances: sysctl fs.inotify.max_user_instances=8192")
            }
            _ => err,
        }
    })
}
