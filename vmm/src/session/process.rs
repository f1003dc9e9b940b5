//! One process of the guest, with the descriptors that stand for its standard ones on the host.
//!
//! Owns these, the accounts of their credit, and what the guest has sent but nobody here has taken yet: at most
//! a window a stream. Never waits.

use std::os::fd::{BorrowedFd, OwnedFd};

use std::os::fd::AsFd;

use locule_channel::{Ending, Frame, Incoming, LARGEST_DATA, Link, Outgoing, Stream, Violation, encode_data};

use super::endpoint::{Endpoint, is_later};
use crate::sys::io::Direction;

/// A process.
#[derive(Debug)]
pub struct Process {
    id: u32,
    terminal: bool,
    input: Option<Endpoint>,
    account: Outgoing,
    outputs: Vec<Output>,
    /// How it ended, once the guest has told.
    pub ending: Option<(Ending, bool)>,
    flushed: bool,
    /// Whether it runs: what is read before might be for nobody.
    pub running: bool,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    endpoint: Option<Endpoint>,
    pending: Vec<u8>,
    account: Incoming,
    /// The guest has sent the end of it.
    ended: bool,
    /// The guest was told that nobody takes it.
    closed: bool,
}

impl Process {
    /// A process with these standard descriptors; of a terminal the first one serves both ways.
    pub fn new(id: u32, [stdin, stdout, stderr]: [OwnedFd; 3], terminal: bool) -> Process {
        let output = |stream, fd| Output {
            stream,
            endpoint: Some(Endpoint::new(fd, Direction::Write)),
            pending: Vec::new(),
            account: Incoming::default(),
            ended: false,
            closed: false,
        };
        let mut outputs = vec![output(Stream::Stdout, stdout)];
        if !terminal {
            outputs.push(output(Stream::Stderr, stderr));
        }
        Process {
            id,
            terminal,
            input: Some(Endpoint::new(stdin, Direction::Read)),
            account: Outgoing::default(),
            outputs,
            ending: None,
            flushed: false,
            running: false,
        }
    }

    /// The terminal's size, if it has one that is known.
    pub fn size(&self) -> Option<(u16, u16)> {
        let input = self.input.as_ref().filter(|_| self.terminal)?;
        locule_runtime::sys::tty::size(input).ok().filter(|size| *size != (0, 0))
    }

    /// Whether it has ended and all that it had written by then was passed on.
    pub fn is_done(&self) -> bool {
        self.ending.is_some()
            && self.flushed
            && self.outputs.iter().all(|output| output.endpoint.is_none() || output.pending.is_empty())
    }

    /// Whether nothing of it is to come any more.
    pub fn is_over(&self) -> bool {
        self.is_done() && self.outputs.iter().all(|output| output.ended)
    }

    /// What to wait for: the descriptor, and whether for writing.
    pub fn interests(&self, link_full: bool) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let reads = self.running && !link_full && self.account.room() > 0;
        let input = self.input.as_ref().filter(|_| reads).map(|input| (input.as_fd(), false));
        let outputs = self.outputs.iter().filter(|output| !output.pending.is_empty());
        input.into_iter().chain(
            outputs.filter_map(|output| output.endpoint.as_ref()).map(|endpoint| (endpoint.as_fd(), true)),
        )
    }

    /// Where an output's reader may go away unseen: only poll(2) tells, and only where nothing is to be written.
    pub fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.outputs
            .iter()
            .filter(|output| output.pending.is_empty() && !output.ended)
            .filter_map(|output| output.endpoint.as_ref())
            .filter(|endpoint| endpoint.breaks())
            .map(|endpoint| endpoint.as_fd())
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, link: &mut Link, buffer: &mut [u8]) {
        self.read_input(link, buffer);
        for at in 0..self.outputs.len() {
            self.write_output(at, link);
        }
    }

    fn read_input(&mut self, link: &mut Link, buffer: &mut [u8]) {
        let Some(input) = self.input.as_ref().filter(|_| self.running && !link.is_full()) else { return };
        let most = self.account.room().min(LARGEST_DATA).min(buffer.len());
        let Some(space) = buffer.get_mut(..most).filter(|space| !space.is_empty()) else { return };
        let (session, stream) = (self.id, Stream::Stdin);
        match input.read(space) {
            Ok(length) if length > 0 => {
                self.account.spend(length);
                let bytes = space.get(..length).unwrap_or_default();
                let _ = encode_data(link.buffer(), session, stream, bytes);
            }
            Err(errno) if is_later(errno) => {}
            // The end; of a terminal its hang-up.
            _ if self.terminal && input.is_terminal() => {
                self.input = None;
                self.hang_up(link);
            }
            _ => {
                self.input = None;
                let _ = link.send(&Frame::Eof { session, stream });
            }
        }
    }

    /// Nobody serves the terminal any more, or nobody wants the process: its streams break in the guest.
    pub fn hang_up(&mut self, link: &mut Link) {
        if self.input.take().is_some() && !self.terminal {
            let _ = link.send(&Frame::Eof { session: self.id, stream: Stream::Stdin });
        }
        for output in &mut self.outputs {
            output.close(self.id, link);
        }
    }

    /// Takes in what the process wrote.
    pub fn take(&mut self, stream: Stream, bytes: &[u8], link: &mut Link) -> Result<(), Violation> {
        let Some(at) = self.outputs.iter().position(|output| output.stream == stream) else {
            return Err(Violation::new("data of a stream that a terminal does not have"));
        };
        let Some(output) = self.outputs.get_mut(at) else { return Ok(()) };
        if output.ended {
            return Err(Violation::new("data after the end of its stream"));
        }
        output.account.take(bytes.len())?;
        if output.endpoint.is_some() {
            output.pending.extend_from_slice(bytes);
        }
        self.write_output(at, link);
        Ok(())
    }

    /// The process has closed an output.
    pub fn end(&mut self, stream: Stream) {
        for output in self.outputs.iter_mut().filter(|output| output.stream == stream) {
            output.ended = true;
            if output.pending.is_empty() {
                output.endpoint = None;
            }
        }
    }

    /// The process takes more.
    pub fn grant(&mut self, bytes: u32) -> Result<(), Violation> {
        self.account.grant(bytes)
    }

    /// The process takes no more: whoever writes to it is to see that.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// It has ended.
    pub fn ended(&mut self, ending: Ending, out_of_memory: bool) {
        self.ending = Some((ending, out_of_memory));
        self.input = None;
        for endpoint in self.outputs.iter().filter_map(|output| output.endpoint.as_ref()) {
            endpoint.make_room();
        }
    }

    /// All that it had written has been sent.
    pub fn flushed(&mut self) {
        self.flushed = true;
    }

    fn write_output(&mut self, at: usize, link: &mut Link) {
        let id = self.id;
        let Some(output) = self.outputs.get_mut(at) else { return };
        let Some(endpoint) = &output.endpoint else { return };
        let mut done = 0;
        let broken = loop {
            let rest = output.pending.get(done..).unwrap_or_default();
            if rest.is_empty() {
                // One whose reader has gone is not found out by writing nothing.
                break endpoint.breaks() && !output.ended && endpoint.is_broken();
            }
            match endpoint.write(rest) {
                Ok(written) => done += written,
                Err(errno) if is_later(errno) => break false,
                Err(_) => break true,
            }
        };
        output.pending.drain(..done);
        output.account.passed(done);
        if broken {
            output.close(id, link);
            if self.terminal {
                self.input = None;
            }
        } else if output.ended && output.pending.is_empty() {
            output.endpoint = None;
        } else if let Some(bytes) = output.account.credit() {
            let _ = link.send(&Frame::Credit { session: id, stream: output.stream, bytes });
        }
    }
}

impl Output {
    fn close(&mut self, session: u32, link: &mut Link) {
        self.endpoint = None;
        self.pending = Vec::new();
        if !self.ended && !std::mem::replace(&mut self.closed, true) {
            let _ = link.send(&Frame::Close { session, stream: self.stream });
        }
    }
}
