//! A process of the host that stands for one inside a machine: what it is sent goes there, and it ends as that does.
//!
//! So pids, pid files, waiting, terminals and signals are for engines what they are without a machine. It has no rights
//! and nothing to do but this.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::control::{Answer, Ask, Connection};
use crate::error::{Context, Result};
use crate::sys::{process, tty};

/// What [`Stand::wait`] came back for.
#[derive(Debug)]
pub(super) enum Heard {
    /// An answer of the monitor's that is not the end.
    Answer(Answer),
    /// The descriptor has something.
    Ready,
}

/// The process's descriptors.
#[derive(Debug)]
pub(super) struct Stand {
    connection: Connection,
    signals: OwnedFd,
    terminal: bool,
}

impl Stand {
    /// Stands for what `connection` is about from now on; with `terminal`, standard input is one. All signals are blocked
    /// already.
    pub fn new(connection: Connection, terminal: bool) -> Result<Stand> {
        let signals = process::signalfd().doing(|| "listening for signals")?;
        Ok(Stand { connection, signals, terminal })
    }

    /// Closes everything but `more` and what this needs. What the monitor has of the standard descriptors is enough, but for
    /// a terminal, whose changes of size are told to its session. Nothing that owns another descriptor may be used or
    /// dropped any more: the process ends without a return.
    pub fn close_others(&self, more: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let mut kept = vec![self.connection.as_fd(), self.signals.as_fd()];
        kept.extend_from_slice(more);
        process::close_all_but(if self.terminal { 1 } else { 0 }, &kept)
    }

    /// Asks the monitor.
    pub fn ask(&self, ask: &Ask) -> Result<()> {
        self.connection.ask(ask, &[])
    }

    /// Passes signals on until there is an answer, or `also` has something. The end of the process inside is this one's.
    pub fn wait(&self, also: Option<BorrowedFd<'_>>) -> Heard {
        loop {
            let mut fds = vec![
                PollFd::new(self.connection.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(also.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => process::exit_now(255),
            }
            let has =
                |at: usize| fds.get(at).and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
            self.pass_signals();
            if has(0) {
                match self.connection.answered() {
                    Ok(Some(Answer::Exited(code))) => process::exit_now(code),
                    Ok(Some(Answer::Killed(signal))) => process::end_by(signal),
                    Ok(Some(answer)) => return Heard::Answer(answer),
                    // The machine is gone, and the process with it.
                    Ok(None) | Err(_) => process::end_by(libc::SIGKILL),
                }
            }
            if has(2) {
                return Heard::Ready;
            }
        }
    }

    fn pass_signals(&self) {
        while let Ok(Some(signal)) = process::next_signal(&self.signals) {
            let word = match signal {
                libc::SIGWINCH if self.terminal => match tty::size(std::io::stdin()) {
                    Ok((rows, columns)) => Ask::Resize(rows, columns),
                    Err(_) => continue,
                },
                libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => continue,
                other => Ask::Signal(other),
            };
            let _ = self.connection.ask(&word, &[]);
        }
    }
}
