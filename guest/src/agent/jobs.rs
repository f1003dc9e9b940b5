//! Workers at work: started with a workload's standard descriptors, heard when they are done.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio as Wired};

use locule_channel::document::{Failure, FailureKind};
use locule_runtime::error::{Context, Result};
use locule_runtime::sys::process::inheritable;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::session::Stdio;
use crate::worker::Outcome;

/// A longer outcome is none, in bytes.
const LARGEST: usize = 1 << 20;

/// Out of the way of what the standard library makes for a child.
const FIRST_FREE: i32 = 400;

/// What a worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Makes the container of this number.
    Create(u32),
    /// Lets it go.
    Start(u32),
    /// Runs one more process, of this session.
    Exec(u32),
    /// Kills all in a container and deletes it; nobody waits for an answer where no request asked for it.
    Remove { request: Option<u32>, container: u32 },
}

/// A worker.
#[derive(Debug)]
pub struct Job {
    /// What it does.
    pub act: Act,
    pipe: OwnedFd,
    text: Vec<u8>,
}

impl Job {
    /// Starts a worker for `act` with `words`.
    pub fn start(act: Act, words: &[&str], stdio: Option<Stdio>) -> Result<Job> {
        let doing = || "starting a worker";
        let (pipe, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).doing(doing)?;
        let theirs = inheritable(theirs, FIRST_FREE).doing(doing)?;
        let mut command = Command::new("/proc/self/exe");
        let name = match act {
            Act::Create(_) => "create",
            Act::Start(_) => "start",
            Act::Exec(_) => "exec",
            Act::Remove { .. } => "remove",
        };
        command.arg(name).arg(theirs.as_raw_fd().to_string()).args(words).env_clear().current_dir("/");
        match stdio {
            Some(Stdio::Pipes([stdin, stdout, stderr])) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            Some(Stdio::Terminal(path)) => {
                command.arg(path).stdin(Wired::null()).stdout(Wired::null());
            }
            None => {
                command.stdin(Wired::null()).stdout(Wired::null());
            }
        }
        // Reaped with everything else: this process is everybody's parent.
        command.spawn().doing(doing)?;
        Ok(Job { act, pipe, text: Vec::new() })
    }

    /// The descriptor to poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// How it went, once that was told whole.
    pub fn outcome(&mut self) -> Option<Outcome> {
        let mut chunk = [0u8; 4096];
        // Asked first: a worker may tell all and end between a look at an empty pipe and this.
        let open = self.is_open();
        loop {
            match nix::unistd::read(&self.pipe, &mut chunk) {
                Ok(0) => break,
                Ok(_) if self.text.len() > LARGEST => break,
                Ok(length) => self.text.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => return Some(Err(died())),
            }
        }
        match serde_json::from_slice(&self.text) {
            Ok(outcome) => Some(outcome),
            // It is told in one write, and what is not all there yet has not ended.
            Err(_) if open => None,
            Err(_) => Some(Err(died())),
        }
    }

    /// Whether anybody could still write to the pipe.
    fn is_open(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        !fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
    }
}

fn died() -> Failure {
    Failure {
        kind: FailureKind::System,
        message: "the guest's worker died, most likely for lack of memory in the virtual machine".into(),
    }
}

/// Writes a document for a worker.
pub fn write(path: &str, document: &serde_json::Value) -> Result<()> {
    let doing = || format!("writing {path}");
    let text = serde_json::to_vec(document).doing(doing)?;
    std::fs::write(path, text).doing(doing)
}
