//! The network of a container, handed to its machine: done at the start, when all interfaces are there.
//!
//! In a process of its own, as one that has joined the container's namespaces does not come back from all of them.

use std::os::fd::OwnedFd;

use super::hypervisor;
use crate::error::{Context, Error, Kind, Result};
use crate::process::channel::{Channel, Message};
use crate::sys::clone::{self, Cloned, clone3};
use crate::sys::process;

/// Takes over the interfaces in the network namespace of process `pid`, which `pidfd` pins.
pub(crate) fn take_over(pid: i32, pidfd: &OwnedFd) -> Result<Message> {
    let act = "taking over the container's network";
    let (ours, theirs) = Channel::pair()?;
    match clone3(0, None).doing(|| act)? {
        Cloned::Child => {
            process::close_for_good(std::os::fd::AsFd::as_fd(&ours));
            let taken = enter(pid, pidfd).and_then(|()| hypervisor()?.take_over());
            match taken.and_then(|(text, fds)| theirs.send(&Message::TakenOver(text, fds))) {
                Ok(()) => process::exit_now(0),
                Err(err) => theirs.give_up(err),
            }
        }
        Cloned::Parent(child, child_fd) => {
            drop(theirs);
            let word = ours.recv_of(&child_fd);
            let _ = clone::wait(child);
            match word? {
                Some(taken @ Message::TakenOver(..)) => Ok(taken),
                Some(Message::Failed(err)) => Err(err.context(act)),
                _ => Err(Error::new(Kind::System, format!("{act}: the process for it died"))),
            }
        }
    }
}

fn enter(pid: i32, pidfd: &OwnedFd) -> Result<()> {
    let identity = |whose: &str, kind: &str| std::fs::read_link(format!("/proc/{whose}/ns/{kind}")).ok();
    let own = identity("self", "user");
    let mut flags = crate::plan::namespaces::NETWORK;
    if own.is_some() && identity(&pid.to_string(), "user") != own {
        // Without it a user has no right to the network; with it root has all that is needed.
        flags |= crate::plan::namespaces::USER;
    }
    clone::setns(pidfd, flags).doing(|| "joining the container's network namespace")
}
