//! Records for journald by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram, a field a line.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use locule_runtime::sys::socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::UnixAddr;

use super::Stream;
use crate::{Context, Result};

const SOCKET: &str = "/run/systemd/journal/socket";

#[derive(Debug)]
pub(super) struct Journal {
    sock: OwnedFd,
    address: UnixAddr,
    /// The fields that are the same in each record: those that conmon writes, which `podman logs` and others read.
    fields: Vec<u8>,
}

impl Journal {
    pub(super) fn open(name: &str) -> Result<Journal> {
        let doing = || format!("opening {SOCKET}");
        std::fs::metadata(SOCKET)
            .doing(doing)
            .map_err(|err| err.hint("journald does not run here: set log.driver to \"file\""))?;
        Journal::on(socket::datagrams().doing(doing)?, name).doing(doing)
    }

    /// On a socket of datagrams.
    pub(super) fn on(sock: OwnedFd, name: &str) -> std::io::Result<Journal> {
        let address = UnixAddr::new(Path::new(SOCKET))?;
        let mut fields = Vec::new();
        for field in
            ["CONTAINER_NAME", "CONTAINER_ID", "CONTAINER_ID_FULL", "CONTAINER_TAG", "SYSLOG_IDENTIFIER"]
        {
            fields.extend_from_slice(format!("{field}={name}\n").as_bytes());
        }
        Ok(Journal { sock, address, fields })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }

    pub(super) fn send(&mut self, stream: Stream, text: &[u8], whole: bool) -> std::io::Result<()> {
        let record = record(&self.fields, stream, text, whole);
        loop {
            match socket::send_to(&self.sock, &self.address, &record, &[]) {
                // What cannot be written yet is not read on: the machine waits, no line is lost.
                Err(Errno::EAGAIN) => {
                    poll(&mut [PollFd::new(self.sock.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                }
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

fn record(fields: &[u8], stream: Stream, text: &[u8], whole: bool) -> Vec<u8> {
    let mut out = fields.to_vec();
    out.extend_from_slice(match stream {
        Stream::Stdout => b"PRIORITY=6\n",
        Stream::Stderr => b"PRIORITY=3\n",
    });
    if !whole {
        out.extend_from_slice(b"CONTAINER_PARTIAL_MESSAGE=true\n");
    }
    // The binary form, as a line may hold any byte.
    out.extend_from_slice(b"MESSAGE\n");
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_the_protocol_says() {
        let made = record(b"A=b\n", Stream::Stderr, b"x=\x00y", false);
        assert_eq!(
            made,
            b"A=b\nPRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n\x04\0\0\0\0\0\0\0x=\0y\n"
        );
        assert!(!record(b"", Stream::Stdout, b"", true).windows(7).any(|part| part == b"PARTIAL"));
    }
}
