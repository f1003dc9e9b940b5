//! Cloning a container's init: from the creator's namespaces into those of the plan.
//!
//! Owns which namespaces come with the clone and which need a step between. Leaves the creator in its own ones.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, OFlag};

use super::channel::{Channel, Message};
use super::init::{self, Handover};
use crate::attrs::netdev;
use crate::cgroup;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::namespaces::{CGROUP, NETWORK, PID, USER};
use crate::state::Lock;
use crate::sys::clone::{self, CLONE_NEWTIME, Cloned, clone3, pidfd_open};
use crate::sys::fs::openat2;
use crate::sys::process;

/// What this process needs to come back to a namespace of its own; `None` without the right to.
///
/// Root in the user namespace of a rootless engine may leave the host's namespaces, not enter them.
pub(super) fn return_ticket(name: &str, flag: u64) -> Result<Option<OwnedFd>> {
    let own = openat2(AT_FDCWD, format!("/proc/self/ns/{name}"), OFlag::O_RDONLY, 0, 0)
        .doing(|| format!("opening the own {name} namespace"))?;
    match clone::setns(&own, flag) {
        Ok(()) => Ok(Some(own)),
        Err(nix::errno::Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("looking at the own {name} namespace")),
    }
}

/// A new network namespace with its loopback up; this process is back in its own on return.
pub(super) fn make_network(own: &OwnedFd) -> Result<OwnedFd> {
    clone::unshare(NETWORK).doing(|| "making the network namespace")?;
    let made = netdev::loopback_up().and_then(|()| {
        openat2(AT_FDCWD, "/proc/self/ns/net", OFlag::O_RDONLY, 0, 0)
            .doing(|| "opening the network namespace")
    });
    clone::setns(own, NETWORK).doing(|| "returning to the own network namespace")?;
    made
}

/// Clones init, by way of the step between where one is needed.
pub(super) fn spawn(
    handover: &Handover<'_>,
    cgroup: &cgroup::Prepared,
    lock: &mut Option<Lock>,
    ours: &Channel,
) -> Result<(i32, OwnedFd)> {
    let plan = handover.plan;
    // The cgroup namespace is made by init itself, once it is where that namespace's root shall be.
    let mut flags = plan.namespaces.new & !CGROUP;
    if handover.network_beside {
        flags &= !NETWORK;
    }
    if plan.needs_step_between() {
        if plan.time_offsets.is_some() {
            // Made by the step itself, as the offsets come before the first process in there.
            flags &= !(CLONE_NEWTIME | USER);
        }
        return match clone3(0, cgroup.fd()).map_err(|errno| clone_error(errno, plan, 0, cgroup))? {
            Cloned::Child => {
                drop(lock.take());
                process::close_for_good(ours.as_fd());
                init::step_between(handover, flags)
            }
            Cloned::Parent(pid, pidfd) => {
                let word = ours.recv_of(&pidfd);
                let ended = clone::wait(pid).doing(|| "waiting for the step before init")?;
                match word? {
                    Some(Message::Init(pid)) => {
                        Ok((pid, pidfd_open(pid).doing(|| "opening a pidfd of init")?))
                    }
                    Some(Message::Failed(err)) => Err(err),
                    _ => {
                        Err(Error::new(Kind::System, format!("the step before init ended early ({ended:?})")))
                    }
                }
            }
        };
    }
    // Joining a pid namespace is for children to be born: this process comes back at once.
    let joined_pid = handover.joins.iter().find(|(flag, _)| *flag == PID);
    let own_pid = joined_pid
        .map(|_| openat2(AT_FDCWD, "/proc/self/ns/pid", OFlag::O_RDONLY, 0, 0))
        .transpose()
        .doing(|| "opening the own pid namespace")?;
    if let Some((_, fd)) = joined_pid {
        clone::setns(fd, PID).doing(|| "joining the pid namespace")?;
    }
    let cloned = clone3(flags, cgroup.fd());
    if matches!(cloned, Ok(Cloned::Child)) {
        drop(lock.take());
        process::close_for_good(ours.as_fd());
        init::main(handover);
    }
    if let Some(own) = own_pid {
        clone::setns(own, PID).doing(|| "returning to the own pid namespace")?;
    }
    match cloned {
        Ok(Cloned::Parent(pid, pidfd)) => Ok((pid, pidfd)),
        Ok(Cloned::Child) => process::exit_now(1),
        Err(errno) => Err(clone_error(errno, plan, flags, cgroup)),
    }
}

fn clone_error(errno: nix::errno::Errno, plan: &Plan, flags: u64, cgroup: &cgroup::Prepared) -> Error {
    use nix::errno::Errno;
    let err = Error::sys(errno, "cloning the container's init");
    match errno {
        Errno::EPERM if !plan.new_user_namespace() => {
            err.hint("run as root, or add a user namespace (spec --rootless shows how)")
        }
        Errno::EPERM => err.hint("user namespaces are not allowed here: see sysctl user.max_user_namespaces"),
        // What only the cgroup that it is born in can refuse.
        Errno::EBUSY | Errno::EOPNOTSUPP | Errno::ENODEV => cgroup.join_error(errno),
        Errno::ENOSPC => err.hint("too many namespaces: raise the sysctls under user.max_*_namespaces"),
        Errno::EAGAIN => err.hint("the limit of processes is reached"),
        Errno::EACCES => {
            err.hint("the cgroup, or the one above it and the caller's, is not delegated to this user")
        }
        Errno::EINVAL if flags & NETWORK != 0 => {
            err.hint("this kernel lacks a kind of namespace that was asked for")
        }
        _ => err,
    }
}
