//! A process that undoes something when its maker is done, or dead.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2, read};

/// Whoever waits for the end of this process.
#[derive(Debug)]
pub struct Guard {
    /// Closed by drop, or by the kernel.
    tell: Option<OwnedFd>,
    child: Pid,
}

impl Guard {
    /// Has `undo` called when this value is dropped, or when this process is killed.
    ///
    /// It runs in a process of its own, a copy of this one: it must be called by a program without threads, and
    /// `undo` must not print.
    pub fn new(undo: impl FnOnce()) -> nix::Result<Guard> {
        let (wait, tell) = pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: the child runs on a copy of the memory, in which no other thread held a lock, and never returns.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Guard { tell: Some(tell), child }),
            ForkResult::Child => {
                drop(tell);
                // A terminal's signals go to all of its processes.
                let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
                let _ = nix::unistd::setsid();
                let mut byte = [0];
                while read(&wait, &mut byte) == Err(Errno::EINTR) {}
                undo();
                // SAFETY: ends the process without running what its maker had put up for its own end.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.tell.take());
        while waitpid(self.child, None) == Err(Errno::EINTR) {}
    }
}
