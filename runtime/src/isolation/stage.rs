//! What the monitor finds where it runs, and its words with the creator and with `start`.
//!
//! Owns the order: ready, then the go-ahead, then success or the reason of failure.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::vsock::Sockets;
use crate::error::{Context, Error, Kind, Result};
use crate::process::channel::{Channel, Message};
use crate::spec::Spec;
use crate::sys::{process, socket};

/// What a machine is made of, in the container's init, whose root is empty by now.
#[derive(Debug)]
pub struct Stage {
    /// The container's id.
    pub id: String,
    /// The document of the container inside.
    pub document: Spec,
    /// Its root file system.
    pub root: OwnedFd,
    /// The sources of its bind mounts, by number.
    pub mounts: Vec<OwnedFd>,
    /// The socket on which later calls are heard; absent in another's machine, whose monitor hears them.
    pub control: Option<OwnedFd>,
    /// The directory where whoever hears its notifications listens, if anybody may.
    pub notify: Option<OwnedFd>,
    /// Its sockets to the host, if it wants any.
    pub sockets: Option<Sockets>,
    pub(crate) channel: Option<Channel>,
    pub(crate) gate: Option<OwnedFd>,
}

impl Stage {
    /// Tells the creator that nothing is left that could fail by itself, and waits until all that it does is done.
    pub fn ready(&mut self) -> Result<()> {
        // Before the last word, since the creator may end right after its answer.
        process::set_parent_death_signal(0).doing(|| "untying init from its creator")?;
        let Some(channel) = &self.channel else { return Ok(()) };
        channel.send(&Message::Ready)?;
        if self.gate.is_some() {
            channel.await_word(|word| matches!(word, Message::Proceed))?;
            // End-of-file tells the creator that it may go.
            self.channel = None;
        }
        Ok(())
    }

    /// Becomes readable when [`Stage::accept`] has something to do.
    pub fn start_awaited(&self) -> Option<BorrowedFd<'_>> {
        self.gate.as_ref().map(AsFd::as_fd).or(self.channel.as_ref().map(AsFd::as_fd))
    }

    /// Hears the go-ahead. One that goes away without it ends this process, as the gate is gone with it.
    pub fn accept(&mut self) -> Result<Starter> {
        let channel = match self.gate.take() {
            Some(gate) => Channel::over(socket::accept(&gate).doing(|| "waiting for start")?),
            None => self.channel.take().ok_or_else(|| Error::new(Kind::State, "start is asked for twice"))?,
        };
        let mut networks = None;
        loop {
            match channel.await_word(|word| matches!(word, Message::Proceed | Message::TakenOver(..)))? {
                Message::TakenOver(text, fds) => networks = Some((text, fds)),
                _ => return Ok(Starter { channel, networks }),
            }
        }
    }

    /// Tells the creator something on the way.
    pub(super) fn tell(&self, message: &Message) {
        if let Some(channel) = &self.channel {
            let _ = channel.send(message);
        }
    }

    /// Tells the creator why this fails, and ends this process.
    pub fn give_up(&self, err: Error) -> ! {
        match &self.channel {
            Some(channel) => channel.give_up(err),
            None => process::exit_now(1),
        }
    }
}

/// Who asked for the start, and waits for how it went.
#[derive(Debug)]
pub struct Starter {
    channel: Channel,
    /// What [`Hypervisor::take_over`](super::Hypervisor::take_over) answered.
    pub networks: Option<(Vec<u8>, Vec<OwnedFd>)>,
}

impl Starter {
    /// The workload runs.
    pub fn started(self) {}

    /// It does not, and this process ends.
    pub fn failed(self, err: Error) -> ! {
        self.channel.give_up(err)
    }

    /// Becomes readable when the asker is gone.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
