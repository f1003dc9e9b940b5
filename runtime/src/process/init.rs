//! The container's init, from its first instruction to execve(2).
//!
//! Runs in the process that clone3(2) made; owns nothing of the creator's but copies. Every failure
//! goes to the creator as one error, and the process ends.

use std::cell::Cell;
use std::convert::Infallible as Never;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::unistd::{Gid, Uid, setresgid, setresuid, setsid};

use super::binds::{self, Prepared};
use super::channel::{Channel, Message};
use super::seal::Seal;
use super::workload::{Workload, place_fds};
use super::{console, hooks, root};
use crate::attrs::{netdev, sched, sysctl};
use crate::error::{Context, Result};
use crate::isolation::Monitor;
use crate::plan::Plan;
use crate::plan::namespaces::{CGROUP, MOUNT, NETWORK, PID, USER};
use crate::procfs::{Base, Proc};
use crate::spec::Spec;
use crate::sys::clone::{self, Cloned, clone3};
use crate::sys::fs::openat2;
use crate::sys::{process, socket};

/// What init takes over from the creator across the clone.
pub struct Handover<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What was opened outside; `None` leaves it to init.
    pub prepared: Option<&'a Prepared>,
    /// Namespaces to join, opened outside, as `plan.namespaces.join`.
    pub joins: &'a [(u64, OwnedFd)],
    /// The creator.
    pub channel: &'a Channel,
    /// Whether to wait for the creator's `Go` before anything that needs ids, cgroup or network.
    pub waits: bool,
    /// Whether the creator makes the network namespace beside init's mounts.
    pub network_beside: bool,
    /// The start gate, for `create`.
    pub gate: Option<&'a OwnedFd>,
    /// The engine's console socket.
    pub console_socket: Option<BorrowedFd<'a>>,
    /// Descriptors that the caller hands over, to be numbered from 3 on.
    pub preserved: &'a [OwnedFd],
    /// The sealed copy's mount, of which init drops its copy.
    pub seal: &'a Seal,
    /// What makes this the monitor of a virtual machine; init takes it.
    pub machine: Cell<Option<Inside>>,
    /// State JSON for the hooks that run inside, without the pid, which differs there.
    pub hook_state: &'a (dyn Fn(i32, &str) -> Vec<u8> + 'a),
}

/// What init needs to be the monitor of a virtual machine.
#[derive(Debug)]
pub struct Inside {
    /// The machine to be.
    pub monitor: Box<dyn Monitor>,
    /// The document of the container inside.
    pub document: Spec,
    /// The socket on which later calls are heard, in a machine of its own.
    pub control: Option<OwnedFd>,
    /// Whether one more mount follows those of the document, the directory of the socket for notifications.
    pub notify: bool,
    /// The socket for programs that want a port of the machine's; the directory it lies in is the last mount then.
    pub listener: Option<OwnedFd>,
}

/// Runs in the clone: becomes the workload, or tells why not and ends.
pub fn main(handover: &Handover<'_>) -> ! {
    let Err(err) = set_up(handover);
    handover.channel.give_up(err)
}

/// The step between creator and init, where joining and making namespaces needs two clones.
///
/// Joins first, with the rights outside, and again what was refused once the user namespace is
/// joined; then clones the real init as a child of the creator (`CLONE_PARENT`), still with the
/// caller's ids.
pub fn step_between(handover: &Handover<'_>, flags: u64) -> ! {
    let result = join_in_between(handover).and_then(|()| {
        match clone3(flags | libc::CLONE_PARENT as u64, None).doing(|| "cloning the container's init")? {
            Cloned::Child => main(handover),
            Cloned::Parent(pid, _) => handover.channel.send(&Message::Init(pid)),
        }
    });
    match result {
        Ok(()) => process::exit_now(0),
        Err(err) => handover.channel.give_up(err),
    }
}

fn join_in_between(handover: &Handover<'_>) -> Result<()> {
    let plan = handover.plan;
    if let (true, Some(score)) = (plan.limits_from_outside(), plan.process.oom_score) {
        // Inherited by init. Nobody could write it later on behalf of a user.
        score.apply(&Proc::new(), Base::Own)?;
    }
    // An undumpable process's files are root's, but this one is written by a user as well.
    let offsets =
        plan.time_offsets.as_ref().map(|offsets| offsets.open(&Proc::new(), Base::Own)).transpose()?;
    if !handover.joins.is_empty() {
        process::set_undumpable().doing(|| "hiding init from what it joins")?;
    }
    let mut refused = Vec::new();
    for (flag, fd) in handover.joins.iter().filter(|(flag, _)| *flag != USER) {
        if clone::setns(fd, *flag).is_err() {
            refused.push((flag, fd));
        }
    }
    if let Some((flag, fd)) = handover.joins.iter().find(|(flag, _)| *flag == USER) {
        clone::setns(fd, *flag).doing(|| "joining the user namespace")?;
    }
    for (flag, fd) in refused {
        clone::setns(fd, *flag).doing(|| format!("joining the {} namespace", name_of(*flag)))?;
    }
    if let (Some(offsets), Some(file)) = (&plan.time_offsets, offsets) {
        if plan.new_user_namespace() {
            // It must own the time namespace, to whose offsets a user has no other right.
            clone::unshare(USER).doing(|| "making the user namespace")?;
        }
        clone::unshare(clone::CLONE_NEWTIME).doing(|| "making the time namespace")?;
        offsets.write(&file)?;
    }
    Ok(())
}

fn name_of(flag: u64) -> &'static str {
    crate::plan::namespaces::KINDS
        .iter()
        .find(|(_, kind, _)| *kind == flag)
        .map_or("unknown", |(word, ..)| word)
}

/// Root inside the user namespace, if the maps have one.
fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    // EINVAL: 0 is not mapped; what follows then has the rights of the user namespace alone.
    match setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid)) {
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => return Err(errno).doing(|| "becoming root in the user namespace"),
    }
    let _ = nix::unistd::setgroups(&[]);
    // A change of ids clears it.
    process::set_parent_death_signal(libc::SIGKILL).doing(|| "tying init to its creator")
}

fn set_up(handover: &Handover<'_>) -> Result<Never> {
    let Handover { plan, channel, .. } = handover;
    handover.seal.close_copy();
    process::set_parent_death_signal(libc::SIGKILL).doing(|| "tying init to its creator")?;
    process::reset_signals();
    // It is the caller's, and init may wait at the gate for long.
    process::forget_environment();
    if !plan.new_user_namespace() {
        // Before anything is joined (CVE-2016-9962). With a user namespace to come the creator must
        // still write the maps, which an undumpable process's files would not let it if not root.
        process::set_undumpable().doing(|| "hiding init from the container")?;
    }
    let stepped = plan.needs_step_between();
    if !stepped {
        for (flag, fd) in handover.joins.iter().filter(|(flag, _)| *flag != PID) {
            clone::setns(fd, *flag).doing(|| format!("joining the {} namespace", name_of(*flag)))?;
        }
    }
    let opened_here;
    let prepared = match handover.prepared {
        Some(prepared) => prepared,
        None => {
            opened_here = binds::prepare_inside(plan)?;
            &opened_here
        }
    };
    if handover.waits {
        channel.await_word(|word| matches!(word, Message::Go))?;
    }
    // It is where its cpuset holds, or will: the kernel never gives more than that.
    sched::reset_affinity(0)?;
    if plan.new_user_namespace() {
        process::set_undumpable().doing(|| "hiding init from the container")?;
    }
    if plan.new_user_namespace() || plan.joins_user_namespace() {
        become_root()?;
    }
    if plan.namespaces.makes(CGROUP) {
        // Only now is this process where the namespace's root shall be.
        clone::unshare(CGROUP).doing(|| "making the cgroup namespace")?;
    }
    let proc = Proc::new();
    if plan.writes_proc() {
        // Before the root changes: without the right to mount one, the host's own serves.
        proc.root().doing(|| "opening procfs")?;
    }
    setsid().doing(|| "starting a session")?;
    if let Some(keyring) = &plan.keyring {
        for warning in keyring.create(&proc, plan.new_user_namespace())? {
            channel.send(&Message::Warning(warning))?;
        }
    }
    if plan.namespaces.makes(NETWORK) && !handover.network_beside {
        netdev::loopback_up()?;
    }

    if let Some(inside) = handover.machine.take() {
        return super::monitor::become_monitor(handover, inside, prepared, &proc);
    }
    // One that is not the container's own, the runtime's or a joined one, is not changed: the root is
    // built in a copy of it.
    let inherited = if plan.namespaces.makes(MOUNT) { None } else { Some(leave_mount_namespace(handover)?) };
    let map_outside = |at: usize, mount: &OwnedFd| {
        let mount = mount.try_clone().doing(|| "copying a descriptor")?;
        channel.send(&Message::MapIds(at as u32, mount))?;
        channel.await_word(|word| matches!(word, Message::Go)).map(drop)
    };
    let root = root::build(plan, prepared, &mut || join_network(handover), &map_outside)?;
    let terminal = open_terminal(handover, &root)?;
    if let Some(peer) = &terminal {
        console::mount_console(&root, peer)?;
    }
    if !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty() {
        channel.send(&Message::RunHooks)?;
        channel.await_word(|word| matches!(word, Message::HooksDone))?;
    }
    // As runc: the working directory of these is the root to be.
    nix::unistd::fchdir(root.as_fd()).doing(|| "changing to the container's root")?;
    hooks::run("createContainer", &plan.hooks.create_container, &inside_state(handover, "creating"))?;
    root::restrict(&root, plan, prepared)?;
    root::enter(&root, plan, inherited.as_ref())?;
    drop((root, inherited));

    if let Some(name) = &plan.hostname {
        nix::unistd::sethostname(name).doing(|| format!("setting the host name {name:?}"))?;
    }
    if let Some(name) = &plan.domainname {
        crate::sys::process::set_domain_name(name).doing(|| format!("setting the domain name {name:?}"))?;
    }
    if !plan.sysctls.is_empty() {
        sysctl::apply(&plan.sysctls, &proc)?;
    }
    if let Some(terminal) = &terminal {
        console::take(terminal, plan.process.user.uid)?;
    }
    place_fds(handover.preserved)?;
    let workload = Workload {
        process: &plan.process,
        seccomp: plan.seccomp.as_ref(),
        personality: plan.personality,
        memory_policy: plan.memory_policy.as_ref(),
        limited_outside: plan.limits_from_outside(),
        preserve_fds: handover.preserved.len() as u32,
        proc: &proc,
        channel,
        gate: handover.gate,
    };
    // It closes what is owned above, so that no failure may lead back there.
    let Err(err) = go_on(handover, &workload);
    channel.give_up(err)
}

/// The workload's attributes, the creator's consent, the gate, the program.
fn go_on(handover: &Handover<'_>, workload: &Workload<'_>) -> Result<Never> {
    let Handover { plan, channel, .. } = handover;
    let (program, env) = workload.prepare()?;
    // Before the last word, since the creator may end right after its answer; until that answer
    // end-of-file tells of its death.
    process::set_parent_death_signal(0).doing(|| "untying init from its creator")?;
    channel.send(&Message::Ready)?;
    channel.await_word(|word| matches!(word, Message::Proceed))?;
    let go = || {
        let hooks = || match &plan.hooks.start_container[..] {
            [] => Ok(()),
            hooks => hooks::run_start_container(hooks, &inside_state(handover, "created"), &env),
        };
        Err(workload.execute(&program, &env, hooks))
    };
    match handover.gate {
        Some(gate) => wait_at_gate(gate, handover.preserved.len() as u32, go),
        None => go(),
    }
}

/// For a container that keeps the runtime's mount namespace (config-linux.md, Namespaces: a type that
/// is not listed is inherited): its root is built in a private one all the same, so that the host
/// sees none of its mounts. Returns the namespace to come back to.
fn leave_mount_namespace(handover: &Handover<'_>) -> Result<OwnedFd> {
    let doing = || "leaving the mount namespace";
    let own = match handover.joins.iter().find(|(flag, _)| *flag == MOUNT) {
        Some((_, joined)) => joined.try_clone().doing(doing)?,
        None => openat2(AT_FDCWD, "/proc/self/ns/mnt", OFlag::O_RDONLY, 0, 0).doing(doing)?,
    };
    clone::unshare(MOUNT).doing(doing)?;
    Ok(own)
}

/// Waits for `start`, and answers it with the failure if there is one.
///
/// The creator is gone by now. A connection that closes without a word was a `start` that died
/// before it said go: the gate is gone with it, and so is the container.
fn wait_at_gate(gate: &OwnedFd, preserved: u32, go: impl FnOnce() -> Result<Never>) -> Result<Never> {
    // The creator sees end-of-file at once, however long this process waits here.
    process::close_all_but(3 + preserved, &[gate.as_fd()]).doing(|| "closing the runtime's descriptors")?;
    // The first process of a pid namespace ignores what it does not handle: a container that was not started yet
    // can be told to end all the same. execve(2) puts them back.
    process::end_on(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]);
    let starter = Channel::over(socket::accept(gate).doing(|| "waiting for start")?);
    process::reset_signals();
    starter.await_word(|word| matches!(word, Message::Proceed))?;
    let Err(err) = go();
    starter.give_up(err)
}

/// Joins the network namespace that the creator has made meanwhile.
pub(super) fn join_network(handover: &Handover<'_>) -> Result<()> {
    if !handover.network_beside {
        return Ok(());
    }
    match handover.channel.await_word(|word| matches!(word, Message::Network(_)))? {
        Message::Network(fd) => clone::setns(&fd, NETWORK).doing(|| "joining the network namespace"),
        _ => Ok(()),
    }
}

pub(super) fn inside_state(handover: &Handover<'_>, status: &str) -> Vec<u8> {
    (handover.hook_state)(nix::unistd::getpid().as_raw(), status)
}

pub(super) fn open_terminal(handover: &Handover<'_>, root: &crate::rootfs::Root) -> Result<Option<OwnedFd>> {
    if !handover.plan.process.terminal {
        return Ok(None);
    }
    let server = match handover.console_socket {
        Some(sock) => console::Server::Socket(sock),
        None => console::Server::Creator(handover.channel),
    };
    console::open(root, handover.plan.process.console_size, server).map(Some)
}
