//! What the container says by sd_notify(3), on its way to the host, which judges it.
//!
//! Owns the socket, which the container has in a directory mounted from here. Never waits: whoever says more than the host
//! has taken waits in its own call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use locule_channel::{Frame, LARGEST_NOTIFICATION, Link, MOST_NOTIFICATIONS, Violation};
use locule_runtime::error::{Context, Result};
use locule_runtime::isolation::notify::INSIDE as DIR;
use locule_runtime::process::notify::NAME;
use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::socket;
use nix::fcntl::{AT_FDCWD, OFlag};

/// Messages under way while the container runs; the others are for its last words.
pub const USUAL: usize = MOST_NOTIFICATIONS / 2;

/// The socket.
#[derive(Debug)]
pub struct Notify {
    sock: OwnedFd,
    /// Messages that the host has not answered yet.
    underway: usize,
}

impl Notify {
    /// Listens from now on.
    pub fn listen() -> Result<Notify> {
        let doing = || format!("making the notification socket in {DIR}");
        // An attempt that failed may have left it.
        let _ = std::fs::remove_dir_all(DIR);
        std::fs::create_dir(DIR).doing(doing)?;
        let dir = openat2(AT_FDCWD, DIR, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
        let sock = socket::datagrams_at(&dir, NAME).doing(doing)?;
        // Any user inside may speak.
        let mode = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(format!("{DIR}/{NAME}"), mode).doing(doing)?;
        Ok(Notify { sock, underway: 0 })
    }

    /// Whether there is room for another message.
    pub fn may_hear(&self) -> bool {
        self.underway < USUAL
    }

    /// Passes on what was said by now, until `most` messages are under way.
    pub fn pass(&mut self, link: &mut Link, most: usize) {
        let mut bytes = [0; LARGEST_NOTIFICATION + 1];
        // Those that are none count, too: there may be no end of them.
        for _ in 0..most {
            if self.underway >= most {
                return;
            }
            let Ok(Some(length)) = socket::next_datagram(&self.sock, &mut bytes) else { return };
            if let Some(message @ [_, ..]) = bytes.get(..length).filter(|_| length <= LARGEST_NOTIFICATION)
                && link.send(&Frame::Notify { message: message.to_vec() }).is_ok()
            {
                self.underway += 1;
            }
        }
    }

    /// The host is done with one message.
    pub fn passed_on(&mut self) -> std::result::Result<(), Violation> {
        self.underway =
            self.underway.checked_sub(1).ok_or_else(|| Violation::new("an answer to no notification"))?;
        Ok(())
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}
