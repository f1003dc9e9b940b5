//! sd_notify(3) out of a virtual machine: the guest listens in place of the host's socket, which virtio-fs shows but
//! cannot connect to, and the monitor speaks in place of the workload.
//!
//! Whoever listens on the host (the runtime itself, a machine's keeper, an engine's monitor) does so as for any
//! container, in a directory that the monitor gets as a mount of its own. Owns what both documents have of it, and the
//! monitor's end ([`Way`]). What comes from the guest passes the list of words first, like what comes from a container.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::UnixAddr;

use super::split::is_of_host;
use crate::error::{Context, Result};
use crate::plan::Plan;
use crate::process::notify::{NAME, PLACE, VARIABLE, allowed};
use crate::rootfs::clean;
use crate::spec::{Mount, Spec};
use crate::sys::socket;

/// The directory where the guest listens, outside of the container.
pub const INSIDE: &str = "/run/locule/notify";

/// Which of the plan's mounts leads to a socket that the document names, as podman's and a keeper's do.
pub(crate) fn mount_of(plan: &Plan) -> Option<usize> {
    let rootfs = clean(&plan.rootfs);
    let named = plan.process.var(VARIABLE) == Some(format!("{PLACE}/{NAME}").as_bytes());
    plan.mounts
        .iter()
        .rposition(|op| op.destination == Path::new(PLACE) && is_of_host(op, &rootfs))
        .filter(|_| named)
}

/// Has the container inside told of a socket that its document does not name.
pub(crate) fn add(document: &mut Spec) {
    document.mounts.push(Mount {
        destination: PLACE.into(),
        kind: Some("bind".into()),
        source: Some(INSIDE.into()),
        options: ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).to_vec(),
        ..Mount::default()
    });
    if let Some(process) = &mut document.process {
        process.env.push(format!("{VARIABLE}={PLACE}/{NAME}"));
    }
}

/// The way of the monitor to whoever listens.
#[derive(Debug)]
pub struct Way {
    sock: OwnedFd,
    address: UnixAddr,
    /// What the address begins with.
    _directory: OwnedFd,
    /// What may be sent, and what nothing was left of.
    waiting: VecDeque<Vec<u8>>,
    /// The listener has no room, and poll(2) tells when it has.
    full: bool,
}

impl Way {
    /// The way to the socket in `directory`, where nobody needs to listen yet.
    pub fn new(directory: OwnedFd) -> Result<Way> {
        let doing = || "making a socket for notifications";
        Ok(Way {
            sock: socket::datagrams().doing(doing)?,
            address: socket::through(directory.as_fd(), NAME).doing(doing)?,
            _directory: directory,
            waiting: VecDeque::new(),
            full: false,
        })
    }

    /// Takes in a message.
    pub fn take(&mut self, message: &[u8]) {
        self.waiting.push_back(allowed(message));
    }

    /// How many messages it holds.
    pub fn held(&self) -> usize {
        self.waiting.len()
    }

    /// Sends what the listener has room for; the number of messages that are done with.
    pub fn push(&mut self) -> usize {
        let before = self.held();
        self.full = false;
        while let Some(message) = self.waiting.front() {
            if !message.is_empty()
                && socket::send_to(&self.sock, &self.address, message, &[]) == Err(Errno::EAGAIN)
                && socket::connect_datagrams(&self.sock, &self.address).is_ok()
            {
                self.full = true;
                break;
            }
            // Sent, or for nobody: a workload that is alone is not told either.
            self.waiting.pop_front();
        }
        before - self.held()
    }

    /// What becomes writable when there is room again.
    pub fn awaited(&self) -> Option<BorrowedFd<'_>> {
        self.full.then(|| self.sock.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::path::PathBuf;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn way(name: &str) -> (Dir, Way) {
        let dir = Dir(std::env::temp_dir().join(format!("locule-{name}-{}", std::process::id())));
        std::fs::create_dir(&dir.0).unwrap();
        let way = Way::new(File::open(&dir.0).unwrap().into()).unwrap();
        (dir, way)
    }

    fn heard(listener: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 8192];
        match listener.recv(&mut bytes) {
            Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(err) => {
                assert_eq!(err.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }

    fn listen(dir: &Dir) -> UnixDatagram {
        let path = dir.0.join(NAME);
        let _ = std::fs::remove_file(&path);
        let listener = UnixDatagram::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    #[test]
    fn what_nobody_hears_is_gone_and_what_may_not_pass_is_not_sent() {
        let (dir, mut way) = way("way-words");
        way.take(b"READY=1");
        assert_eq!((way.push(), way.held()), (1, 0));
        let first = listen(&dir);
        for message in [&b"MAINPID=1\nFDSTORE=1"[..], b"READY=1\nMAINPID=1\nSTATUS=up", b"\xff\0"] {
            way.take(message);
        }
        assert_eq!(way.push(), 3);
        assert_eq!((heard(&first).as_deref(), heard(&first)), (Some("READY=1\nSTATUS=up\n"), None));
        // A listener in another's place, as after the death of a keeper.
        let second = listen(&dir);
        way.take(b"STOPPING=1");
        assert_eq!(way.push(), 1);
        assert_eq!((heard(&first), heard(&second).as_deref()), (None, Some("STOPPING=1\n")));
    }

    #[test]
    fn a_listener_without_room_is_waited_for_and_nothing_is_lost() {
        let (dir, mut way) = way("way-room");
        let mut listener = listen(&dir);
        let mut said = 0;
        while way.awaited().is_none() {
            way.take(format!("STATUS={said}").as_bytes());
            said += 1;
            way.push();
        }
        let writable = |way: &Way| {
            let mut fds = [PollFd::new(way.awaited().unwrap(), PollFlags::POLLOUT)];
            poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
        };
        assert!(way.held() == 1 && !writable(&way));
        for number in 0..said - 1 {
            assert_eq!(heard(&listener), Some(format!("STATUS={number}\n")));
        }
        assert!(writable(&way));
        assert_eq!((way.push(), way.awaited().is_none()), (1, true));
        assert_eq!(heard(&listener), Some(format!("STATUS={}\n", said - 1)));
        // One that goes away while it is waited for is not waited for any longer.
        while way.awaited().is_none() {
            way.take(b"STATUS=x");
            way.push();
        }
        listener = UnixDatagram::unbound().unwrap();
        assert!(writable(&way));
        assert_eq!((way.push(), way.held()), (1, 0));
        drop(listener);
    }
}
