//! The lock of a machine: one act at a time on each.
//!
//! Owns the lock file in the machine's runtime directory and the wait for it. Who waits long is told who holds it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::{Context, Machine, Result, watch};

/// How long a caller waits in silence.
const PATIENCE_MS: u16 = 10_000;

static TELL: OnceLock<fn(&str)> = OnceLock::new();

/// Has `tell` called with what the user should know while a call still waits.
pub fn on_wait(tell: fn(&str)) {
    let _ = TELL.set(tell);
}

/// Held: the machine is not changed by anybody else.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] Flock<File>);

impl Machine {
    /// Waits until nobody else changes the machine; `act` is what others are told meanwhile.
    pub fn lock(&self, act: &str) -> Result<Lock> {
        let doing = || format!("locking machine {}", self.name());
        let path = self.run().join("lock");
        make_private(self.run())?;
        let mut file = open(&path).doing(doing)?;
        let mut watch = None;
        let mut told = false;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Its holder has removed the machine with it: another may be made by now.
                Ok(lock) if !is_at(&lock, &path) => {
                    drop(lock);
                    make_private(self.run())?;
                    watch = None;
                    open(&path).doing(doing)?
                }
                Ok(mut lock) => {
                    // For whoever waits; of no other use, so that it may fail.
                    let _ = lock.set_len(0);
                    let _ = write!(lock, "locule {act} (pid {})", std::process::id());
                    return Ok(Lock(lock));
                }
                Err((file, Errno::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(errno).doing(doing),
            };
            let Some(inotify) = &watch else {
                // The holder closes the file when it is done; from here on that is seen, so it is tried once more.
                let made = watch::new(InitFlags::IN_NONBLOCK, doing)?;
                made.add_watch(&path, AddWatchFlags::IN_CLOSE).doing(doing)?;
                watch = Some(made);
                continue;
            };
            let inotify: &Inotify = inotify;
            let limit = if told { PollTimeout::NONE } else { PollTimeout::from(PATIENCE_MS) };
            match poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], limit) {
                Ok(0) => {
                    told = true;
                    if let Some(tell) = TELL.get() {
                        tell(&format!(
                            "waiting for machine {}, which is in use by {}",
                            self.name(),
                            holder(&path)
                        ));
                    }
                }
                Ok(_) => drop(inotify.read_events()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).doing(doing),
            }
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |meta: std::io::Result<fs::Metadata>| {
        use std::os::unix::fs::MetadataExt;
        meta.ok().map(|meta| (meta.dev(), meta.ino()))
    };
    inode(file.metadata()) == inode(fs::metadata(path))
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(200).read_to_string(&mut text));
    match read {
        Ok(_) if !text.is_empty() => text,
        _ => "another process".into(),
    }
}

/// A directory of root's alone, made with those above it.
pub fn make_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing(|| format!("making {}", path.display()))
}
