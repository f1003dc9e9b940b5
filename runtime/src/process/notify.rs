//! sd_notify(3) for a container: a socket inside, whose words reach the caller's service manager.
//!
//! Owns the socket's directory in the state entry and the list of words that pass. Never lets a
//! container name a process, hand a descriptor over, or widen who may speak; and costs nothing where
//! the caller has no `NOTIFY_SOCKET`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Context, Error, Result};
use crate::plan::Plan;
use crate::plan::mounts::{MountOp, What};
use crate::state::Entry;
use crate::sys::fs::openat2;
use crate::sys::mount::{MountAttr, attr};
use crate::sys::socket;

/// What names the socket to whoever may speak.
pub const VARIABLE: &str = "NOTIFY_SOCKET";
/// The directory in the state entry, which is what the container gets: a socket of its own would
/// have to exist before anybody listens.
const DIR: &str = "notify";
/// The socket's name in it.
pub const NAME: &str = "notify.sock";
/// Where it is inside, as with runc.
pub const PLACE: &str = "/run/notify";

/// systemd's own limit (`NOTIFY_BUFFER_MAX`).
pub const LONGEST: usize = 4096;
/// Messages taken at once, so that a container that talks without end keeps nobody from its signals.
const AT_ONCE: usize = 64;
/// How long the manager may leave a message of ours lying.
const PATIENCE: Duration = Duration::from_secs(5);

/// A word and whether a value fits it.
type Word = (&'static [u8], fn(&[u8]) -> bool);

/// What may be said, and which values make sense (sd_notify(3)).
const WORDS: [Word; 9] = [
    (b"READY", one),
    (b"RELOADING", one),
    (b"STOPPING", one),
    (b"WATCHDOG", |value| one(value) || value == b"trigger"),
    (b"STATUS", |_| true),
    (b"ERRNO", number),
    (b"BUSERROR", |_| true),
    (b"MONOTONIC_USEC", number),
    (b"EXTEND_TIMEOUT_USEC", number),
];

fn one(value: &[u8]) -> bool {
    value == b"1"
}

fn number(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

/// The caller's service manager, if it wants to be told.
pub fn wanted() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|address| !address.is_empty())
}

fn manager() -> Result<Option<UnixAddr>> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let address = match text.as_bytes() {
        [] => return Ok(None),
        [b'/', ..] => UnixAddr::new(Path::new(&text)),
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        _ => {
            return Err(Error::unsupported(format!("{VARIABLE}={}", text.display()))
                .hint("a path or an abstract name that begins with @ is known; unset it to do without"));
        }
    };
    address.map(Some).doing(|| format!("reading {VARIABLE}={}", text.display()))
}

/// Makes the directory in `entry`, whose path is `path`, and plans its mount and the variable inside.
/// `None` where the document brings a socket of its own, as under podman.
pub fn prepare(entry: &Entry, path: &Path, plan: &mut Plan) -> Result<Option<MountOp>> {
    manager()?;
    if plan.process.var(VARIABLE).is_some() {
        return Ok(None);
    }
    let doing = || "making the directory of the notification socket";
    let mode = Mode::from_bits_truncate(0o755);
    mkdirat(entry, DIR, mode).doing(doing)?;
    fchmodat(entry, DIR, mode, FchmodatFlags::FollowSymlink).doing(doing)?;
    plan.process.set_var(VARIABLE, &format!("{PLACE}/{NAME}"));
    let set = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    Ok(Some(MountOp {
        destination: PathBuf::from(PLACE),
        what: What::Bind { source: path.join(DIR), recursive: false },
        attr: MountAttr { set, ..MountAttr::default() },
        attr_all: MountAttr::default(),
        propagation: Vec::new(),
        idmap: None,
        exact: false,
    }))
}

/// The way from the container to the manager.
#[derive(Debug)]
pub struct Notify {
    inside: OwnedFd,
    outside: OwnedFd,
    manager: UnixAddr,
}

impl Notify {
    /// Listens for the container of `entry`; `None` where nobody wants to be told, or where the
    /// container was made without a directory for the socket.
    pub fn listen(entry: &Entry) -> Result<Option<Notify>> {
        let Some(manager) = manager()? else { return Ok(None) };
        let doing = || "making the notification socket";
        let dir = match openat2(
            entry,
            DIR,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
            0,
            libc::RESOLVE_BENEATH,
        ) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other.doing(doing)?,
        };
        match unlinkat(&dir, NAME, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        let inside = socket::datagrams_at(&dir, NAME).doing(doing)?;
        // Any user inside may speak; who that is outside is of no interest.
        let mode = Mode::from_bits_truncate(0o666);
        fchmodat(&dir, NAME, mode, FchmodatFlags::FollowSymlink).doing(doing)?;
        let outside = socket::datagrams().doing(doing)?;
        Ok(Some(Notify { inside, outside, manager }))
    }

    /// Passes on what the container has said by now.
    pub fn pump(&self) -> Result<()> {
        self.forward(None).map(drop)
    }

    /// Passes on what the container says until it is ready, and then tells the manager that `pid`
    /// is the main process; or until `pidfd`, its init, ends.
    pub fn see_ready(&self, pid: i32, pidfd: &OwnedFd) -> Result<()> {
        loop {
            let mut fds =
                [PollFd::new(self.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.doing(|| "waiting for the container to be ready")?,
            };
            let ended = fds[1].any() == Some(true);
            // What was said right before the end counts too.
            if self.forward(Some(pid))? {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Passes messages on; with `main` only up to the one that says ready, which then names `main`.
    fn forward(&self, main: Option<i32>) -> Result<bool> {
        let mut bytes = [0u8; LONGEST + 1];
        for _ in 0..AT_ONCE {
            let Some(length) =
                socket::next_datagram(&self.inside, &mut bytes).doing(|| "reading a notification")?
            else {
                return Ok(false);
            };
            let mut message = if length > LONGEST { Vec::new() } else { allowed(&bytes[..length]) };
            if message.is_empty() {
                continue;
            }
            let ready = message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
            if let (true, Some(pid)) = (ready, main) {
                // In one message: the manager must not see the one without the other.
                message.extend_from_slice(format!("MAINPID={pid}\n").as_bytes());
                self.tell(&message, &[])?;
                return Ok(true);
            }
            self.tell(&message, &[])?;
        }
        Ok(false)
    }

    fn tell(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let doing = || format!("telling the service manager at {}", self.manager);
        loop {
            match socket::send_to(&self.outside, &self.manager, message, fds) {
                Err(Errno::EAGAIN) => {
                    // Without a peer it always looks writable.
                    socket::connect_datagrams(&self.outside, &self.manager).doing(doing)?;
                    let mut fds = [PollFd::new(self.outside.as_fd(), PollFlags::POLLOUT)];
                    let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
                    if poll(&mut fds, limit).doing(doing)? == 0 {
                        return Err(Error::sys(Errno::EAGAIN, doing()).hint("it does not read its messages"));
                    }
                }
                other => return other.doing(doing),
            }
        }
    }

    /// Waits until the manager has read what was sent: of a process that is gone by then it could
    /// not tell to which unit it belonged (sd_notify_barrier(3)).
    fn barrier(&self) -> Result<()> {
        let (read, write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC).doing(|| "waiting for the service manager")?;
        self.tell(b"BARRIER=1", &[write.as_fd()])?;
        drop(write);
        let limit = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        // Managers that do not know the word are not waited for any longer.
        poll(&mut [PollFd::new(read.as_fd(), PollFlags::POLLIN)], limit)
            .map(drop)
            .doing(|| "waiting for the service manager")
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }
}

/// The lines of a message that may pass: words by list, each with a value that makes sense for it.
///
/// `BARRIER=1` needs none: its descriptor is closed by being read, when all before it was passed on.
pub fn allowed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in message.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
        let (word, value) = (&line[..at], &line[at + 1..]);
        if WORDS.iter().any(|(known, fits)| *known == word && fits(value)) && !value.contains(&0) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for_without_end() {
        let dir = std::env::temp_dir().join(format!("locule-manager-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join(NAME);
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let notify = Notify {
            inside: socket::datagrams().unwrap(),
            outside: socket::datagrams().unwrap(),
            manager: UnixAddr::new(&path).unwrap(),
        };
        let err = std::iter::repeat_with(|| notify.tell(b"STATUS=x", &[])).find_map(Result::err).unwrap();
        assert_eq!(err.errno(), Some(Errno::EAGAIN));
        // It goes on as soon as there is room.
        manager.recv(&mut [0; 64]).unwrap();
        notify.tell(b"STATUS=y", &[]).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_known_words_pass() {
        for (message, passed) in [
            ("READY=1", "READY=1\n"),
            ("READY=1\nSTATUS=up and running\n", "READY=1\nSTATUS=up and running\n"),
            ("MAINPID=1\nSTATUS=x\nNOTIFYACCESS=all\nFDSTORE=1\nFDNAME=a", "STATUS=x\n"),
            ("RELOADING=1\nMONOTONIC_USEC=12", "RELOADING=1\nMONOTONIC_USEC=12\n"),
            ("WATCHDOG=1\nWATCHDOG=trigger\nWATCHDOG=0\nWATCHDOG_USEC=1", "WATCHDOG=1\nWATCHDOG=trigger\n"),
            ("READY=0\nREADY=\nREADY\nERRNO=-1\nERRNO=2\nEXTEND_TIMEOUT_USEC=x", "ERRNO=2\n"),
            ("STATUS=a=b", "STATUS=a=b\n"),
            ("STATUS=a\0b", ""),
            ("BARRIER=1", ""),
            ("X_OWN=1", ""),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(allowed(message.as_bytes())).unwrap(), passed, "{message:?}");
        }
    }
}
