//! How a first process is asked to end: by its signal, or where that is sysvinit's by the pipe of telinit(8).
//!
//! Owns the form of that request (initreq.h of sysvinit). sysvinit takes SIGPWR for a failing mains: what it does then is
//! up to /etc/inittab, and with Debian's that is nothing. The pipe is the machine's: it is opened inside its root, and
//! nothing but a FIFO that somebody reads is written to.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use locule_runtime::Container;
use locule_runtime::rootfs::Root;
use locule_runtime::sys::clone::pidfd_signal;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::deaf::is_lost;
use crate::{Context, Result};

/// Where sysvinit listens, today and before /run.
const PIPES: [&str; 2] = ["/run/initctl", "/dev/initctl"];
/// `INIT_MAGIC`.
const MAGIC: u32 = 0x0309_1969;
/// `INIT_CMD_RUNLVL`.
const RUNLEVEL: u32 = 1;
/// Seconds that it leaves processes of the runlevel before between SIGTERM and SIGKILL.
const PAUSE: u32 = 3;
/// `sizeof(struct init_request)`.
const LENGTH: usize = 384;

/// Asks the first process of a container to end. False if that was lost on it, and waiting for its end is in vain.
pub fn ask(container: &Container, signal: i32) -> Result<bool> {
    let Ok((pid, pidfd)) = container.init() else { return Ok(true) };
    if signal == libc::SIGPWR && !container.is_vm() && root_of(pid).and_then(|root| by_pipe(&root)).is_some()
    {
        return Ok(true);
    }
    let lost = is_lost(pid, signal, || match pidfd_signal(&pidfd, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("stopping {}", container.id())),
    })?;
    Ok(!lost)
}

fn root_of(pid: i32) -> Option<Root> {
    let path = format!("/proc/{pid}/root");
    let dir = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
    dir.ok().map(|dir| Root::new(OwnedFd::from(dir)))
}

/// Writes a request for runlevel 0; `None` where nobody takes it.
fn by_pipe(root: &Root) -> Option<()> {
    PIPES.iter().find_map(|path| {
        let path = Path::new(path);
        let place = File::from(root.resolve(path, OFlag::O_NOFOLLOW).ok()?);
        if !place.metadata().ok()?.file_type().is_fifo() {
            return None;
        }
        // Without a reader this fails; with one that does not read, so does the write.
        let pipe = root.open(path, OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).ok()?;
        let mut pipe = File::from(pipe);
        pipe.metadata().ok().filter(|meta| meta.file_type().is_fifo())?;
        pipe.write(&request()).ok().filter(|length| *length == LENGTH).map(drop)
    })
}

fn request() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    for (at, word) in [MAGIC, RUNLEVEL, u32::from(b'0'), PAUSE].into_iter().enumerate() {
        bytes[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_request_is_telinits() {
        let bytes = request();
        assert_eq!(bytes[..16], [0x69, 0x19, 0x09, 0x03, 1, 0, 0, 0, 0x30, 0, 0, 0, 3, 0, 0, 0]);
        assert!(bytes[16..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn nothing_but_a_pipe_that_is_read_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let path = dir.path().join("run/initctl");
        let root = Root::new(OwnedFd::from(File::open(dir.path()).unwrap()));
        assert!(by_pipe(&root).is_none(), "there is none");
        std::fs::write(&path, "").unwrap();
        assert!(by_pipe(&root).is_none(), "it is a file");
        assert!(std::fs::read(&path).unwrap().is_empty());
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(by_pipe(&root).is_none(), "nobody reads it");
        let mut reader = File::options().read(true).write(true).open(&path).unwrap();
        assert!(by_pipe(&root).is_some());
        let mut got = [0; LENGTH];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(got, request());
    }
}
