//! The init of a container that is a virtual machine: from its namespaces to the monitor's first instruction.
//!
//! Owns the jail's outside: an empty read-only root, and no descriptor but those that the machine is made of. What the
//! monitor then gives up (rights, system calls) is its own affair.

use std::convert::Infallible as Never;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::binds::Prepared;
use super::init::{self, Handover, Inside};
use super::{console, hooks, root};
use crate::error::{Context, Error, Kind, Result};
use crate::isolation::Stage;
use crate::isolation::vsock::Sockets;
use crate::procfs::{Base, Proc};
use crate::sys::process;

/// Becomes the monitor; returns only with the reason why not.
pub(super) fn become_monitor(
    handover: &Handover<'_>,
    inside: Inside,
    prepared: &Prepared,
    proc: &Proc,
) -> Result<Never> {
    let Handover { plan, channel, .. } = handover;
    init::join_network(handover)?;
    let empty = root::build_empty(plan, plan.process.terminal)?;
    let terminal = init::open_terminal(handover, &empty)?;
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        channel.send(&super::channel::Message::RunHooks)?;
        channel.await_word(|word| matches!(word, super::channel::Message::HooksDone))?;
    }
    nix::unistd::fchdir(&prepared.root).doing(|| "changing to the container's root")?;
    hooks::run("createContainer", &plan.hooks.create_container, &init::inside_state(handover, "creating"))?;
    if let (false, Some(score)) = (plan.limits_from_outside(), plan.process.oom_score) {
        score.apply(proc, Base::Own)?;
    }
    root::enter(&empty, plan, None)?;
    if let Some(name) = &plan.hostname {
        nix::unistd::sethostname(name).doing(|| format!("setting the host name {name:?}"))?;
    }
    if let Some(terminal) = &terminal {
        console::take_raw(terminal)?;
    }
    let Inside { monitor, document, control, notify, listener } = inside;
    let doing = || "keeping the machine's descriptors";
    let copy = |fd: &OwnedFd| fd.try_clone().doing(doing);
    let mut mounts: Vec<OwnedFd> =
        prepared.sources.iter().flatten().map(|source| copy(&source.mount)).collect::<Result<_>>()?;
    if mounts.len() != plan.mounts.len() {
        return Err(Error::new(Kind::System, format!("{}: a mount has no source", doing())));
    }
    let sockets = listener.and_then(|listener| mounts.pop().map(|directory| Sockets { listener, directory }));
    let notify = if notify { mounts.pop() } else { None };
    let stage = Stage {
        id: plan.id.clone(),
        document,
        root: copy(&prepared.root)?,
        mounts,
        control,
        notify,
        sockets,
        channel: Some(super::channel::Channel::over(copy_of(channel.as_fd())?)),
        gate: handover.gate.map(copy).transpose()?,
    };
    // From here on nothing that owns another descriptor is used or dropped: this process ends without a return.
    let mut kept: Vec<BorrowedFd<'_>> = monitor.descriptors();
    kept.push(stage.root.as_fd());
    kept.extend(stage.control.as_ref().map(AsFd::as_fd));
    kept.extend(stage.mounts.iter().map(AsFd::as_fd));
    kept.extend(stage.notify.as_ref().map(AsFd::as_fd));
    kept.extend(
        stage.sockets.iter().flat_map(|sockets| [sockets.listener.as_fd(), sockets.directory.as_fd()]),
    );
    kept.extend(stage.channel.as_ref().map(AsFd::as_fd));
    kept.extend(stage.gate.as_ref().map(AsFd::as_fd));
    process::close_all_but(3, &kept).doing(|| "closing the runtime's descriptors")?;
    monitor.run(stage)
}

fn copy_of(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().doing(|| "copying a descriptor")
}
