//! The caller's terminal, joined to the workload's: bytes both ways, raw mode, size.
//!
//! Owns the pty's master and the caller's terminal settings, which are put back on every way out.

use std::io::{IsTerminal, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Context, Result};
use crate::sys::tty;

/// The caller's terminal joined to a pty.
#[derive(Debug)]
pub struct Relay {
    master: OwnedFd,
    /// Kept open: with every other end closed (a workload that became a daemon) the master would
    /// report a hang-up for ever, and poll(2) would not wait any more.
    _peer: Option<OwnedFd>,
    saved: Option<Termios>,
    /// Whether the caller's stdin still has something to say.
    input: bool,
    /// What the workload has not read yet.
    pending: Vec<u8>,
}

impl Relay {
    /// Joins stdin and stdout to the pty of `master`.
    pub fn new(master: OwnedFd) -> Result<Relay> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing(|| "setting up the terminal")?;
        let mut saved = None;
        if stdin().is_terminal() {
            let before = tcgetattr(stdin()).doing(|| "reading the terminal's settings")?;
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            // As runc: lines are ended here, once, and not by the workload's own terminal.
            raw.output_flags.insert(OutputFlags::OPOST);
            tcsetattr(stdin(), SetArg::TCSANOW, &raw).doing(|| "changing the terminal's settings")?;
            saved = Some(before);
        }
        let peer = tty::open_peer(&master).ok();
        let relay = Relay { master, _peer: peer, saved, input: true, pending: Vec::new() };
        relay.resize();
        Ok(relay)
    }

    /// Gives the pty the size of the caller's terminal.
    pub fn resize(&self) {
        if let Ok((rows, columns)) = tty::size(stdin())
            && (rows != 0 || columns != 0)
        {
            let _ = tty::set_size(&self.master, rows, columns);
        }
    }

    /// Master first, then the caller's stdin while it is open.
    pub fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let mut events = PollFlags::POLLIN;
        if !self.pending.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        let mut fds = vec![PollFd::new(self.master.as_fd(), events)];
        if self.input && self.pending.is_empty() {
            fds.push(PollFd::new(STDIN.as_fd(), PollFlags::POLLIN));
        }
        fds
    }

    /// Moves what is there; `ready` is in the order of [`Relay::poll_fds`].
    pub fn pump(&mut self, ready: &[bool]) -> Result<()> {
        if ready.first() == Some(&true) {
            self.flush();
            self.read_master();
        }
        if ready.get(1) == Some(&true) {
            let mut chunk = [0u8; 4096];
            match nix::unistd::read(stdin(), &mut chunk) {
                Ok(0) | Err(Errno::EIO) => {
                    self.input = false;
                    // End of input for the workload: its line discipline's end-of-file character.
                    self.pending.push(4);
                }
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(errno).doing(|| "reading the terminal"),
            }
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        while !self.pending.is_empty() {
            match nix::unistd::write(&self.master, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Copies what the workload wrote; `false` when there is nothing more.
    fn read_master(&mut self) -> bool {
        let mut chunk = [0u8; 8192];
        match nix::unistd::read(&self.master, &mut chunk) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                let mut rest = &chunk[..n];
                while !rest.is_empty() {
                    match nix::unistd::write(stdout(), rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(Errno::EINTR | Errno::EAGAIN) => {}
                        Err(_) => return false,
                    }
                }
                true
            }
        }
    }

    /// Copies what is left after the workload's end.
    pub fn drain(&mut self) {
        while self.read_master() {}
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, saved);
        }
    }
}

/// The standard input, for borrowing beyond one expression.
static STDIN: std::sync::LazyLock<std::io::Stdin> = std::sync::LazyLock::new(stdin);
