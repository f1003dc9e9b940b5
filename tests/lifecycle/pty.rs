//! A terminal of the test's own, and one that came through a console socket.
//!
//! Owns the master; reads it with patience and never waits for its end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use locule_runtime::sys::{socket, tty};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::Termios;

use crate::lane::Bundle;

const PATIENCE: Duration = Duration::from_secs(30);

/// A master and what was read from it.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    peer: Option<OwnedFd>,
    read: String,
}

impl Terminal {
    /// A new pty of that size.
    pub fn new(rows: u16, columns: u16) -> Terminal {
        let pty = nix::pty::openpty(None, None).unwrap();
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        tty::set_size(&pty.slave, rows, columns).unwrap();
        Terminal { master: pty.master.into(), peer: Some(pty.slave), read: String::new() }
    }

    /// The three standard descriptors of a child.
    pub fn stdio(&self) -> Stdio {
        Stdio::from(self.peer.as_ref().unwrap().try_clone().unwrap())
    }

    /// Makes the command's standard descriptors this terminal.
    pub fn attach(&self, command: &mut Command) {
        command.stdin(self.stdio()).stdout(self.stdio()).stderr(self.stdio());
    }

    /// Changes the size; the kernel tells nobody, as no session has this terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        tty::set_size(&self.master, rows, columns).unwrap();
    }

    /// The settings.
    pub fn settings(&self) -> Termios {
        nix::sys::termios::tcgetattr(self.master.as_fd()).unwrap()
    }

    /// Types.
    pub fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `text` came, and returns what came up to and with it.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.read.find(text) {
                let rest = self.read.split_off(at + text.len());
                return std::mem::replace(&mut self.read, rest);
            }
            assert!(Instant::now() < end, "never: {text:?} in {:?}", self.read);
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(500u16)).unwrap() == 0 {
                continue;
            }
            let mut chunk = [0; 4096];
            match self.master.read(&mut chunk) {
                Ok(n) => self.read.push_str(&String::from_utf8_lossy(&chunk[..n])),
                Err(err) => panic!("{err} before {text:?} in {:?}", self.read),
            }
        }
    }

    /// Waits for the hang-up: every other end is closed.
    #[track_caller]
    pub fn hung_up(&mut self) {
        let end = Instant::now() + PATIENCE;
        let mut chunk = [0; 4096];
        while self.master.read(&mut chunk).is_ok() {
            assert!(Instant::now() < end, "no hang-up");
        }
    }
}

/// A console socket, as engines make it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `name` in the bundle's directory.
    pub fn new(bundle: &Bundle, name: &str) -> ConsoleSocket {
        ConsoleSocket::at(bundle.path(name))
    }

    /// Listens at `path`.
    pub fn at(path: PathBuf) -> ConsoleSocket {
        ConsoleSocket { listener: UnixListener::bind(&path).unwrap(), path }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The terminal that was sent.
    #[track_caller]
    pub fn receive(&self) -> Terminal {
        let mut waiting = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut waiting, PollTimeout::from(10_000u16)).unwrap(), 1, "nobody connected");
        let (stream, _) = self.listener.accept().unwrap();
        let mut name = [0; 256];
        let (length, mut fds) = socket::recv(&stream, &mut name).unwrap();
        assert_eq!((fds.len(), length > 0), (1, true), "one descriptor and its name");
        Terminal { master: fds.remove(0).into(), peer: None, read: String::new() }
    }
}
