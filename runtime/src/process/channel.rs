//! The fork protocol: what the creator and the container's init say to each other.
//!
//! One `SOCK_SEQPACKET` pair, one packet a message, a tag byte first. Both sides close on exec, so
//! that end-of-file after [`Message::Ready`] means that the workload runs, and before it that the
//! other side died.
//!
//! ```text
//! creator                                   init (or the step between)
//!    | -- clone3 --------------------------->|
//!    |<------------------------- Init(pid) --|  only from a step between, which then ends
//!    | -- Go ------------------------------->|  id maps, cgroup, devices of the net are in place
//!    | -- Network(fd) ---------------------->|  the network namespace, made beside init's mounts
//!    |<--------------------- MapIds(at, fd) -|  a mount whose ids only the creator has the right to map
//!    | -- Go ------------------------------->|
//!    |<------------------------ RunHooks(fd)-|  mounts are made; prestart and createRuntime
//!    | -- HooksDone ------------------------>|
//!    |<------------------------- Filter(fd) -|  notification descriptor of the filter
//!    |<------------------------- Master(fd) -|  terminal, when the creator itself serves it
//!    |<------------------------------ Ready -|  nothing is left but execve
//!    | -- TakenOver(text, fds) ------------->|  of a virtual machine alone: its network
//!    | -- Proceed -------------------------->|  limits hold, state is recorded: to the gate, or execute
//!    |<------------------- end of file ------|  executed
//!    |<--------------------------- Failed(e)-|  instead of any of the above
//! ```
//!
//! At the gate the same happens again between `start` and init: `start` connects, init runs the
//! startContainer hooks, and either end-of-file or `Failed` follows.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::socket;

/// A message of the fork protocol.
#[derive(Debug)]
pub enum Message {
    /// Pid of the real init, as the sender sees it.
    Init(i32),
    /// What had to be done from outside is done.
    Go,
    /// The mounts are made: run the hooks of the runtime's namespaces.
    RunHooks,
    /// They succeeded.
    HooksDone,
    /// The detached source of the mount with this number in the plan, whose ids are to be mapped.
    MapIds(u32, OwnedFd),
    /// A network namespace to join.
    Network(OwnedFd),
    /// What a virtual machine is told of the interfaces that were taken over for it, and their descriptors.
    TakenOver(Vec<u8>, Vec<OwnedFd>),
    /// The notification descriptor of the seccomp filter.
    Filter(OwnedFd),
    /// The master of the workload's terminal.
    Master(OwnedFd),
    /// All is set up.
    Ready,
    /// Limits hold and state is recorded: go on, to the gate or to execve(2).
    Proceed,
    /// Something the user should know.
    Warning(String),
    /// It failed, and the sender is about to exit.
    Failed(Error),
}

/// One end of the pair.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Room for the longest error.
const LARGEST: usize = 8 * 1024;

impl Channel {
    /// A connected pair.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (a, b) = socket::pair().doing(|| "making the channel to the container's init")?;
        Ok((Channel(a), Channel(b)))
    }

    /// Wraps a connected socket.
    pub fn over(sock: OwnedFd) -> Channel {
        Channel(sock)
    }

    /// Sends one message.
    pub fn send(&self, message: &Message) -> Result<()> {
        let mut bytes = Vec::new();
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        match message {
            Message::Init(pid) => {
                bytes.push(b'I');
                bytes.extend_from_slice(&pid.to_ne_bytes());
            }
            Message::Go => bytes.push(b'G'),
            Message::MapIds(at, fd) => {
                bytes.push(b'U');
                bytes.extend_from_slice(&at.to_ne_bytes());
                fds.push(fd.as_fd());
            }
            Message::RunHooks => bytes.push(b'H'),
            Message::HooksDone => bytes.push(b'D'),
            Message::Filter(fd) => {
                bytes.push(b'F');
                fds.push(fd.as_fd());
            }
            Message::Master(fd) => {
                bytes.push(b'M');
                fds.push(fd.as_fd());
            }
            Message::Ready => bytes.push(b'R'),
            Message::Proceed => bytes.push(b'P'),
            Message::Network(fd) => {
                bytes.push(b'N');
                fds.push(fd.as_fd());
            }
            Message::TakenOver(text, taken) => {
                bytes.push(b'T');
                bytes.extend_from_slice(text);
                if bytes.len() > LARGEST {
                    return Err(Error::unsupported(
                        "the container's network has too many addresses and routes",
                    ));
                }
                fds.extend(taken.iter().map(AsFd::as_fd));
            }
            Message::Warning(text) => {
                bytes.push(b'W');
                bytes.extend_from_slice(text.as_bytes());
            }
            Message::Failed(err) => {
                bytes.push(b'E');
                serde_json::to_writer(&mut bytes, err).doing(|| "encoding an error")?;
                if bytes.len() > LARGEST {
                    // Only a name of thousands of bytes makes an error that long; its kind counts most.
                    let short =
                        Error::new(err.kind(), err.to_string().chars().take(1000).collect::<String>());
                    bytes.truncate(1);
                    serde_json::to_writer(&mut bytes, &short).doing(|| "encoding an error")?;
                }
            }
        }
        bytes.truncate(LARGEST);
        socket::send(&self.0, &bytes, &fds).doing(|| "talking to the other side of the fork")
    }

    /// Receives one message; `None` when the other side is gone.
    pub fn recv(&self) -> Result<Option<Message>> {
        let mut bytes = [0u8; LARGEST];
        let (n, mut fds) = match socket::recv(&self.0, &mut bytes) {
            // It closed with words of ours unread; what it said before still waits.
            Err(Errno::ECONNRESET) => return self.recv(),
            other => other.doing(|| "listening to the other side of the fork")?,
        };
        let Some((tag, rest)) = bytes[..n].split_first() else { return Ok(None) };
        let garbled = || Error::new(Kind::System, "the other side of the fork sent something garbled");
        if *tag == b'T' {
            return Ok(Some(Message::TakenOver(rest.to_vec(), fds)));
        }
        Ok(Some(match (tag, fds.pop()) {
            (b'I', _) => Message::Init(i32::from_ne_bytes(rest.try_into().map_err(|_| garbled())?)),
            (b'G', _) => Message::Go,
            (b'U', Some(fd)) => {
                Message::MapIds(u32::from_ne_bytes(rest.try_into().map_err(|_| garbled())?), fd)
            }
            (b'H', _) => Message::RunHooks,
            (b'D', _) => Message::HooksDone,
            (b'F', Some(fd)) => Message::Filter(fd),
            (b'M', Some(fd)) => Message::Master(fd),
            (b'R', _) => Message::Ready,
            (b'P', _) => Message::Proceed,
            (b'N', Some(fd)) => Message::Network(fd),
            (b'W', _) => Message::Warning(String::from_utf8_lossy(rest).into_owned()),
            (b'E', _) => Message::Failed(serde_json::from_slice(rest).map_err(|_| garbled())?),
            _ => return Err(garbled()),
        }))
    }

    /// Receives one message from the process of `pidfd` while this one holds the other end as well,
    /// so that no end-of-file tells of a death: `None` when it ended without a word.
    pub fn recv_of(&self, pidfd: &OwnedFd) -> Result<Option<Message>> {
        let mut fds =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        while let Err(errno) = poll(&mut fds, PollTimeout::NONE) {
            if errno != Errno::EINTR {
                return Err(errno).doing(|| "waiting for the other side of the fork");
            }
        }
        // The end is looked at first: what was said right before it is there by now.
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        let said = poll(&mut fds, PollTimeout::ZERO).doing(|| "listening to the other side of the fork")?;
        if said == 0 { Ok(None) } else { self.recv() }
    }

    /// Sends one message to a side that may have failed meanwhile: then its reason is the error.
    ///
    /// A side that died without a word is left for the next [`Channel::recv`] to find.
    pub fn tell(&self, message: &Message) -> Result<()> {
        match self.send(message) {
            Err(err) if matches!(err.errno(), Some(Errno::EPIPE | Errno::ECONNRESET)) => {
                match self.reason(Error::new(Kind::NotRunning, "")) {
                    silent if silent.kind() == Kind::NotRunning => Ok(()),
                    reason => Err(reason),
                }
            }
            other => other,
        }
    }

    /// Why the other side failed, if that was said already, else `err`: what goes wrong on this side
    /// because of it says less.
    pub fn reason(&self, err: Error) -> Error {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        while let Ok(1..) = poll(&mut fds, PollTimeout::ZERO) {
            match self.recv() {
                Ok(Some(Message::Failed(reason))) => return reason,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        err
    }

    /// Tells why this process fails, and ends it.
    pub fn give_up(&self, err: Error) -> ! {
        let _ = self.send(&Message::Failed(err));
        crate::sys::process::exit_now(1)
    }

    /// Waits for the creator's go-ahead; its death ends this process quietly.
    pub fn await_word(&self, fits: fn(&Message) -> bool) -> Result<Message> {
        match self.recv()? {
            Some(message) if fits(&message) => Ok(message),
            Some(other) => {
                Err(Error::new(Kind::System, format!("unexpected word from the creator: {other:?}")))
            }
            None => crate::sys::process::exit_now(1),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_outlives_its_sender() {
        let (a, b) = Channel::pair().unwrap();
        b.send(&Message::Go).unwrap();
        a.send(&Message::Warning("w".into())).unwrap();
        a.send(&Message::Failed(Error::invalid("the reason"))).unwrap();
        // `Go` stays unread, which the kernel reports before what waits.
        drop(a);
        let err = b.send(&Message::Go).unwrap_err();
        assert_eq!(b.reason(err).to_string(), "the reason");
        assert_eq!(b.reason(Error::invalid("other")).to_string(), "other");
        assert!(b.recv().unwrap().is_none());
    }

    #[test]
    fn a_death_is_seen_by_a_side_that_holds_both_ends() {
        let (a, b) = Channel::pair().unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pidfd = crate::sys::clone::pidfd_open(child.id() as i32).unwrap();
        a.send(&Message::Init(7)).unwrap();
        assert!(matches!(b.recv_of(&pidfd).unwrap(), Some(Message::Init(7))));
        child.kill().unwrap();
        assert!(b.recv_of(&pidfd).unwrap().is_none());
        a.send(&Message::Go).unwrap();
        assert!(
            matches!(b.recv_of(&pidfd).unwrap(), Some(Message::Go)),
            "what was said before the end counts"
        );
        child.wait().unwrap();
    }

    #[test]
    fn errors_cross_whole() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::Failed(Error::sys(Errno::ENOSPC, "writing x").hint("free some"))).unwrap();
        a.send(&Message::Init(42)).unwrap();
        drop(a);
        match b.recv().unwrap() {
            Some(Message::Failed(err)) => {
                assert_eq!(err.to_string(), "writing x: no space left on device (ENOSPC): free some");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(b.recv().unwrap(), Some(Message::Init(42))));
        assert!(b.recv().unwrap().is_none());
    }
}
