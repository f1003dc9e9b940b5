//! A console of a machine: the caller's terminal joined to it, by the keeper's socket.
//!
//! Owns the caller's terminal settings and the keys that detach (Ctrl-p Ctrl-q, and Esc then a dot). Waits where the
//! machine is not kept yet; shows the last output where nothing runs any more.

use std::io::{IsTerminal, Write, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::{process, socket, tty};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::protocol::{self, LONGEST, packet};
use super::ring;
use crate::{Context, Error, Kind, Machine, Result, watch};

/// How a console is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    /// Look, do not type.
    pub watch: bool,
    /// Without the last output.
    pub without_past: bool,
    /// Wait for a machine that is not started, instead of showing its last output.
    pub wait: bool,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The caller detached.
    Detached,
    /// Nobody keeps the machine any more.
    Over,
    /// Nothing ran; the last output was shown.
    NotRunning,
}

/// Connects to the keeper's socket in the runtime directory `run`; `None` where nobody listens.
pub fn connect(run: &Path) -> Result<Option<OwnedFd>> {
    let doing = || format!("connecting to {}", run.join(protocol::SOCKET).display());
    let dir = match openat2(AT_FDCWD, run, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0) {
        Err(Errno::ENOENT) => return Ok(None),
        other => other.doing(doing)?,
    };
    match socket::connect_at(&dir, protocol::SOCKET) {
        Ok(sock) => Ok(Some(sock)),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        Err(errno) => Err(errno).doing(doing),
    }
}

/// Joins the caller's standard input and output to the console of `machine`.
pub fn attach(machine: &Machine, how: Use) -> Result<Left> {
    let sock = match connect(machine.run())? {
        Some(sock) => sock,
        None if how.wait => await_keeper(machine)?,
        None => {
            if !how.without_past {
                let past = ring::last_output(machine)?;
                stdout()
                    .write_all(&past)
                    .and_then(|()| stdout().flush())
                    .doing(|| "writing the last output")?;
            }
            return Ok(Left::NotRunning);
        }
    };
    let flags = if how.without_past { protocol::WITHOUT_PAST } else { 0 };
    socket::send(&sock, &packet(protocol::ATTACH, &[flags]), &[]).doing(|| "attaching to the console")?;
    Console::new(sock, how.watch)?.serve()
}

/// Waits until somebody keeps the machine.
fn await_keeper(machine: &Machine) -> Result<OwnedFd> {
    let doing = || format!("waiting for {} to start", machine.name());
    std::fs::create_dir_all(machine.run()).doing(doing)?;
    let inotify = watch::new(InitFlags::empty(), doing)?;
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(machine.run(), flags).doing(doing)?;
    loop {
        if let Some(sock) = connect(machine.run())? {
            return Ok(sock);
        }
        match inotify.read_events() {
            Err(Errno::EINTR) => {}
            other => drop(other.doing(doing)?),
        }
    }
}

struct Console {
    sock: OwnedFd,
    watch: bool,
    input: bool,
    keys: Keys,
    saved: Option<Termios>,
}

impl Console {
    fn new(sock: OwnedFd, watch: bool) -> Result<Console> {
        let mut saved = None;
        if stdin().is_terminal() {
            let before = tcgetattr(stdin()).doing(|| "reading the terminal's settings")?;
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(stdin(), SetArg::TCSANOW, &raw).doing(|| "changing the terminal's settings")?;
            saved = Some(before);
        }
        Ok(Console { sock, watch, input: true, keys: Keys::default(), saved })
    }

    fn serve(&mut self) -> Result<Left> {
        process::block_signals();
        let signals = process::signalfd().doing(|| "listening for signals")?;
        self.resize();
        let input = stdin();
        loop {
            let mut fds = vec![
                PollFd::new(self.sock.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            if self.input {
                fds.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.doing(|| "waiting for the console")?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
            drop(fds);
            if ready[0] && !self.hear()? {
                return Ok(Left::Over);
            }
            while let Some(signal) = process::next_signal(&signals).doing(|| "reading a signal")? {
                match signal {
                    libc::SIGWINCH => self.resize(),
                    libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT => return Ok(Left::Detached),
                    _ => {}
                }
            }
            if ready.get(2) == Some(&true) && !self.type_on()? {
                return Ok(Left::Detached);
            }
        }
    }

    fn resize(&self) {
        if let (false, Ok((rows, columns))) = (self.watch, tty::size(stdin())) {
            let size = [rows.to_le_bytes(), columns.to_le_bytes()].concat();
            let _ = socket::send(&self.sock, &packet(protocol::SIZE, &size), &[]);
        }
    }

    /// `false` when the keeper is gone.
    fn hear(&mut self) -> Result<bool> {
        let mut bytes = [0; LONGEST];
        let length = match socket::recv(&self.sock, &mut bytes) {
            Ok((0, _)) | Err(Errno::ECONNRESET) => return Ok(false),
            other => other.doing(|| "reading from the console")?.0,
        };
        let rest = &bytes[1..length];
        match bytes[0] {
            protocol::OUTPUT => {
                stdout()
                    .write_all(rest)
                    .and_then(|()| stdout().flush())
                    .doing(|| "writing to standard output")?;
            }
            protocol::ENDED => {
                let text = String::from_utf8_lossy(rest);
                let _ = write!(std::io::stderr(), "\r\n[ended: {text}]\r\n");
            }
            protocol::REFUSED => {
                return Err(Error::new(
                    Kind::State,
                    format!("attaching to the console: {}", String::from_utf8_lossy(rest)),
                ));
            }
            _ => {}
        }
        Ok(true)
    }

    /// `false` when the caller detaches.
    fn type_on(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        let length = match nix::unistd::read(stdin(), &mut bytes) {
            Err(Errno::EINTR | Errno::EAGAIN) => return Ok(true),
            // A terminal that hung up.
            Err(Errno::EIO) => 0,
            other => other.doing(|| "reading the terminal")?,
        };
        if length == 0 {
            // Its end is no wish to leave: a script may go on listening.
            self.input = false;
            return Ok(self.saved.is_none());
        }
        let (typed, detach) = self.keys.sift(&bytes[..length]);
        if !self.watch && !typed.is_empty() {
            match socket::send(&self.sock, &packet(protocol::INPUT, &typed), &[]) {
                // What it said last is still to be read.
                Ok(()) | Err(Errno::EPIPE) => {}
                Err(errno) => return Err(errno).doing(|| "typing into the console"),
            }
        }
        Ok(!detach)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, saved);
        }
    }
}

/// The keys that detach, and what of them was pressed.
#[derive(Debug, Default)]
struct Keys {
    held: Option<u8>,
}

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;
const ESC: u8 = 0x1b;

impl Keys {
    /// What goes to the machine, and whether the caller wants to leave.
    ///
    /// The first key of a pair waits for the next one: Esc alone reaches the machine with the key after it.
    fn sift(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            match (self.held.take(), *byte) {
                (Some(CTRL_P), CTRL_Q) | (Some(ESC), b'.') => return (out, true),
                (held, byte) => {
                    out.extend(held);
                    match byte {
                        CTRL_P | ESC => self.held = Some(byte),
                        _ => out.push(byte),
                    }
                }
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_of_keys_detach() {
        let sift = |pieces: &[&[u8]]| {
            let mut keys = Keys::default();
            let mut all = Vec::new();
            for piece in pieces {
                let (out, detach) = keys.sift(piece);
                all.extend(out);
                if detach {
                    return (all, true);
                }
            }
            (all, false)
        };
        assert_eq!(sift(&[b"ab\x10\x11c"]), (b"ab".to_vec(), true));
        assert_eq!(sift(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(sift(&[b"a\x1b", b"."]), (b"a".to_vec(), true));
        assert_eq!(sift(&[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        // Neither an arrow key nor the shell's Ctrl-p is lost.
        assert_eq!(sift(&[b"\x1b[A", b"\x10x"]), (b"\x1b[A\x10x".to_vec(), false));
        assert_eq!(sift(&[b"\x1b\x1bx"]), (b"\x1b\x1bx".to_vec(), false));
    }
}
