//! sd_notify(3) between a machine and whoever supervises its keeper.
//!
//! Owns the socket's directory, which the bundle mounts at [`PLACE`] inside. Which words pass is the runtime's to say
//! ([`allowed`]): nothing that a machine says can name a process, hand over a descriptor or change who may speak.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use locule_runtime::process::notify::{LONGEST, NAME, PLACE};
use locule_runtime::process::notify::{VARIABLE, allowed};
use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::socket;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::socket::UnixAddr;

use crate::{Context, Result};

/// The directory in the machine's runtime directory, bind-mounted read-only.
pub const DIR: &str = "notify";

/// What a machine said, as far as it passes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The lines that go on to the service manager.
    pub lines: Vec<u8>,
    /// `READY=1` was among them.
    pub ready: bool,
    /// `WATCHDOG=1` was among them.
    pub watchdog: bool,
}

/// The value of `NOTIFY_SOCKET` inside.
pub fn variable() -> String {
    format!("{VARIABLE}={PLACE}/{NAME}")
}

/// The directory that the bundle mounts, made where missing; it must be there before the container is.
pub fn prepare(run: &Path) -> Result<PathBuf> {
    let dir = run.join(DIR);
    let doing = || format!("making {}", dir.display());
    std::fs::create_dir_all(&dir).doing(doing)?;
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).doing(doing)?;
    Ok(dir)
}

/// Listens for the machine.
pub fn listen(run: &Path) -> Result<OwnedFd> {
    let path = prepare(run)?;
    let doing = || format!("making the notification socket in {}", path.display());
    let _ = std::fs::remove_file(path.join(NAME));
    let dir = openat2(AT_FDCWD, &path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
    let sock = socket::datagrams_at(&dir, NAME).doing(doing)?;
    // Any user inside may speak; who that is outside is of no interest.
    std::fs::set_permissions(path.join(NAME), std::fs::Permissions::from_mode(0o666)).doing(doing)?;
    Ok(sock)
}

/// What of `message` passes.
pub fn sift(message: &[u8]) -> Said {
    let lines = allowed(message);
    let said = |wanted: &[u8]| lines.split(|byte| *byte == b'\n').any(|line| line == wanted);
    Said { ready: said(b"READY=1"), watchdog: said(b"WATCHDOG=1"), lines }
}

/// The service manager of this very process.
#[derive(Debug)]
pub struct Manager {
    address: UnixAddr,
    sock: OwnedFd,
    /// How often it wants to hear from us.
    pub watchdog: Option<std::time::Duration>,
}

impl Manager {
    /// From the environment; `None` where nobody wants to be told.
    pub fn of_environment() -> Result<Option<Manager>> {
        let Some(text) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let doing = || format!("reading {VARIABLE}={}", text.display());
        let address = match text.as_bytes() {
            [] => return Ok(None),
            [b'@', name @ ..] => UnixAddr::new_abstract(name).doing(doing)?,
            _ => UnixAddr::new(Path::new(&text)).doing(doing)?,
        };
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Ok(Some(Manager {
            address,
            sock: socket::datagrams().doing(doing)?,
            watchdog: watchdog.map(std::time::Duration::from_micros),
        }))
    }

    /// Tells it; one that does not read its messages is no reason to stand still.
    pub fn tell(&self, message: &[u8], fds: &[BorrowedFd<'_>]) {
        let _ = socket::send_to(&self.sock, &self.address, message, fds);
    }

    /// Gives it a descriptor to hold while this process is not there.
    pub fn store(&self, name: &str, fd: BorrowedFd<'_>) {
        // FDPOLL=0: systemd drops a terminal that hung up otherwise, before anybody has read it.
        self.tell(format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}\n").as_bytes(), &[fd]);
    }

    /// Takes it back.
    pub fn forget(&self, name: &str) {
        self.tell(format!("FDSTOREREMOVE=1\nFDNAME={name}\n").as_bytes(), &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_words_pass() {
        for (message, passed) in [
            ("READY=1", "READY=1\n"),
            ("READY=1\nSTATUS=up and running\n", "READY=1\nSTATUS=up and running\n"),
            ("MAINPID=1\nSTATUS=x\nNOTIFYACCESS=all\nFDSTORE=1\nFDNAME=a\nFDSTOREREMOVE=1", "STATUS=x\n"),
            ("WATCHDOG=1\nWATCHDOG=trigger\nWATCHDOG=0\nWATCHDOG_USEC=1", "WATCHDOG=1\nWATCHDOG=trigger\n"),
            ("READY=0\nREADY=\nREADY\nERRNO=-1\nERRNO=2\nEXTEND_TIMEOUT_USEC=x", "ERRNO=2\n"),
            ("STATUS=a\0b", ""),
            ("BARRIER=1\nX_OWN=1\n\n=\n", ""),
        ] {
            assert_eq!(String::from_utf8(sift(message.as_bytes()).lines).unwrap(), passed, "{message:?}");
        }
        assert!(sift(b"STATUS=x\nREADY=1").ready);
        assert!(!sift(b"READY=0").ready);
        assert!(sift(b"WATCHDOG=1").watchdog);
        assert!(!sift(b"WATCHDOG=trigger").watchdog);
    }
}
