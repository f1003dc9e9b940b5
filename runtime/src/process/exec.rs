//! `exec`: one more process in a running container.
//!
//! One clone where the caller has the right to join the pid namespace from outside, a step between
//! where that right exists only inside the container's user namespace.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::unistd::{Gid, Uid, setresgid, setresuid, setsid};

use super::channel::{Channel, Message};
use super::run::attend;
use super::seal::Seal;
use super::workload::{Workload, own_root, place_fds};
use super::{console, outside};
use crate::attrs::{caps, keyring, memory_policy, rlimits, sched};
use crate::container::Container;
use crate::contract::NOT_RUNNING;
use crate::error::{Context, Error, Kind, Result};
use crate::isolation::{self, Standing};
use crate::plan::ProcessPlan;
use crate::plan::namespaces::{self, MOUNT, PID, USER};
use crate::procfs::{Base, Proc};
use crate::report::Status;
use crate::rootfs::Root;
use crate::seccomp;
use crate::spec;
use crate::sys::clone::{self, Cloned, Exit, clone3, pidfd_open};
use crate::sys::fs::openat2;
use crate::sys::{process, socket};

/// What `exec` was asked for.
#[derive(Debug)]
pub struct ExecRequest {
    /// The process, complete.
    pub process: spec::Process,
    /// Return once it runs.
    pub detach: bool,
    /// Gets its pid, without a newline.
    pub pid_file: Option<PathBuf>,
    /// UNIX socket that gets a pidfd of it.
    pub pidfd_socket: Option<PathBuf>,
    /// UNIX socket that gets the master of its terminal.
    pub console_socket: Option<PathBuf>,
    /// Descriptors that it inherits, numbered from 3 on.
    pub preserved: Vec<OwnedFd>,
    /// Enter a paused container all the same; the process then waits with the others.
    pub ignore_paused: bool,
    /// A cgroup below the container's.
    pub cgroup: Option<String>,
    /// The sealed copy that this process runs from.
    pub seal: Seal,
}

/// How `exec` went.
#[derive(Debug)]
pub struct Executed {
    /// The process's pid, in the caller's pid namespace.
    pub pid: i32,
    /// How the process ended; `None` when detached.
    pub exit: Option<Exit>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// What the clone needs to know.
struct Joining<'a> {
    init: &'a OwnedFd,
    flags: u64,
    /// The process, where a virtual machine runs it.
    inside: Option<&'a spec::Process>,
    /// The container's root, where its mount namespace is not its own.
    root: Option<OwnedFd>,
    plan: &'a ProcessPlan,
    container: &'a Container,
    seccomp: Option<&'a seccomp::Compiled>,
    personality: Option<sched::Personality>,
    memory_policy: Option<&'a memory_policy::MemoryPolicy>,
    preserved: &'a [OwnedFd],
    console_socket: Option<&'a OwnedFd>,
    channel: &'a Channel,
    seal: &'a Seal,
}

/// Runs one more process in `container`.
pub fn exec(container: &Container, mut request: ExecRequest) -> Result<Executed> {
    let seal = std::mem::take(&mut request.seal);
    let id = &container.state().id;
    match container.status()? {
        Status::Running | Status::Created => {}
        Status::Paused if request.ignore_paused => {}
        Status::Paused => {
            return Err(Error::new(Kind::State, format!("cannot exec in a paused container: {id:?}"))
                .hint("resume it, or use --ignore-paused"));
        }
        Status::Creating | Status::Stopped => {
            return Err(Error::new(Kind::State, format!("cannot exec in a stopped container: {id:?}")));
        }
    }
    let spec = container.spec()?;
    let mut warnings = Vec::new();
    let mut plan = ProcessPlan::new(&request.process, &mut warnings)?;
    outside::pass_on_sockets(&mut plan);
    match (plan.terminal, &request.console_socket) {
        (true, None) if request.detach => {
            return Err(Error::invalid("a detached process with a terminal needs --console-socket"));
        }
        (false, Some(_)) => {
            return Err(Error::invalid("a console socket is given, but no terminal is asked for"));
        }
        _ => {}
    }
    if container.is_vm() {
        for (given, word) in
            [(!request.preserved.is_empty(), "--preserve-fds"), (request.cgroup.is_some(), "--cgroup")]
        {
            if given {
                return Err(Error::unsupported(format!("exec {word} does not reach into a virtual machine")));
            }
        }
        if container.status()? == Status::Paused {
            return Err(Error::new(Kind::State, format!("cannot exec in a paused virtual machine: {id:?}"))
                .hint("resume it first"));
        }
    }
    let linux = spec.linux();
    let filter = linux.seccomp.as_ref().map(seccomp::compile).transpose()?;
    let personality = sched::plan_personality(linux.personality.as_ref())?.0;
    let memory_policy = memory_policy::plan(linux.memory_policy.as_ref())?;
    let joined = namespaces::plan(linux)?;
    let mut flags =
        namespaces::KINDS.iter().map(|(_, flag, _)| flag).filter(|flag| joined.has(**flag)).sum::<u64>();
    if container.is_vm() {
        // They are the monitor's: the process is made inside, by another one of these.
        flags = 0;
    }
    let console_socket = request
        .console_socket
        .as_ref()
        .map(|path| {
            socket::connect_stream(path)
                .doing(|| format!("connecting to the console socket {}", path.display()))
        })
        .transpose()?;

    let (init_pid, init) = container.init()?;
    let cgroup = container.cgroup()?;
    if cgroup.is_none() && request.cgroup.is_some() {
        return Err(Error::invalid("--cgroup: the container has no cgroup"));
    }
    let entrance = || {
        let inner = request.cgroup.as_deref().map(std::path::Path::new);
        cgroup.as_ref().map(|cgroup| cgroup.exec_fd(inner, init_pid)).transpose()
    };
    let entered = entrance()?;
    if !request.detach {
        process::block_signals();
    }
    let (ours, theirs) = Channel::pair()?;
    let joining = Joining {
        init: &init,
        flags,
        inside: container.is_vm().then_some(&request.process),
        root: if !joined.makes(MOUNT) { Some(root_of(init_pid, &init)?) } else { None },
        plan: &plan,
        container,
        seccomp: filter.as_ref(),
        personality,
        memory_policy: memory_policy.as_ref(),
        preserved: &request.preserved,
        console_socket: console_socket.as_ref(),
        channel: &theirs,
        seal: &seal,
    };
    if let Some(cpus) = &plan.affinity.initial {
        cpus.apply(0)?;
    }
    let (pid, pidfd) = match spawn(&joining, entered.as_ref().map(AsFd::as_fd), &ours) {
        // Its init shared out controllers between the look and the clone: it has moved by now.
        Err(err) if err.errno() == Some(Errno::EBUSY) && request.cgroup.is_none() => {
            spawn(&joining, entrance()?.as_ref().map(AsFd::as_fd), &ours)?
        }
        spawned => spawned?,
    };
    drop(theirs);
    let set_from_outside = (flags & USER != 0).then_some(&plan);
    let kill = || {
        let _ = clone::pidfd_signal(&pidfd, libc::SIGKILL);
        let _ = clone::wait(pid);
    };
    let outcome = see_through(
        &request,
        seal,
        &ours,
        (pid, &pidfd),
        set_from_outside,
        container,
        linux.seccomp.as_ref(),
    );
    let master = match outcome {
        Ok(master) => master,
        Err(err) => {
            kill();
            return Err(err);
        }
    };
    if request.detach {
        return Ok(Executed { pid, exit: None, warnings });
    }
    // It stays for as long as the workload, and has nothing to do but to pass things on.
    let exit = caps::keep_kill_alone()
        .and_then(|()| attend(pid, &pidfd, master, None))
        .inspect_err(|_| kill())
        .map(Some)?;
    Ok(Executed { pid, exit, warnings })
}

/// Opens the root of process `pid`, which `pidfd` pins.
fn root_of(pid: i32, pidfd: &OwnedFd) -> Result<OwnedFd> {
    let doing = || "opening the container's root";
    let root = openat2(AT_FDCWD, format!("/proc/{pid}/root"), OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)
        .doing(doing)?;
    // Alive still, so the number meant that process.
    clone::pidfd_signal(pidfd, 0).doing(doing)?;
    Ok(root)
}

/// Serves the new process until it is executed; `set_from_outside` is its plan where a user
/// namespace takes the right to raise limits away. Returns the terminal's master, if it is ours to serve.
fn see_through(
    request: &ExecRequest,
    seal: Seal,
    ours: &Channel,
    (pid, pidfd): (i32, &OwnedFd),
    set_from_outside: Option<&ProcessPlan>,
    container: &Container,
    profile: Option<&spec::Seccomp>,
) -> Result<Option<OwnedFd>> {
    if let Some(plan) = set_from_outside {
        rlimits::apply(&plan.rlimits, pid).map_err(|err| ours.reason(err))?;
        ours.tell(&Message::Go)?;
    }
    let mut master = None;
    loop {
        match ours.recv()? {
            Some(Message::Filter(fd)) => {
                let Some(path) = profile.and_then(|profile| profile.listener_path.as_ref()) else {
                    return Err(Error::invalid("linux.seccomp: NOTIFY without listenerPath"));
                };
                let metadata = profile.and_then(|p| p.listener_metadata.as_deref()).unwrap_or_default();
                let init = container.state().init.as_ref().map_or(0, |init| init.pid);
                outside::send_filter(
                    path,
                    metadata,
                    (container.state(), container.status()?, init),
                    pid,
                    &fd,
                )?;
            }
            Some(Message::Master(fd)) => master = Some(fd),
            Some(Message::Ready) => break,
            Some(Message::Failed(err)) => return Err(err),
            Some(other) => {
                return Err(Error::new(Kind::System, format!("unexpected word from the process: {other:?}")));
            }
            None => {
                return Err(Error::new(Kind::System, "the process died while it was entering the container"));
            }
        }
    }
    // The process is about to execute: what waits for the kernel here, waits beside that.
    drop(seal);
    outside::tell_pid(request.pid_file.as_deref(), request.pidfd_socket.as_deref(), pid, pidfd)?;
    match ours.recv()? {
        Some(Message::Failed(err)) => Err(err),
        _ => Ok(master),
    }
}

fn spawn(
    joining: &Joining<'_>,
    cgroup: Option<std::os::fd::BorrowedFd<'_>>,
    ours: &Channel,
) -> Result<(i32, OwnedFd)> {
    let doing = || "cloning a process for the container";
    let pid_flag = joining.flags & PID;
    let joined = if pid_flag == 0 { Ok(()) } else { clone::setns(joining.init, pid_flag) };
    match joined {
        Ok(()) => match clone3(0, cgroup).map_err(|errno| enter_error(errno, doing()))? {
            Cloned::Child => {
                process::close_for_good(ours.as_fd());
                main(joining, joining.flags & !PID)
            }
            Cloned::Parent(pid, pidfd) => Ok((pid, pidfd)),
        },
        // The right to join it is in the container's user namespace.
        Err(Errno::EPERM) if joining.flags & USER != 0 => {
            match clone3(0, cgroup).map_err(|errno| enter_error(errno, doing()))? {
                Cloned::Child => {
                    process::close_for_good(ours.as_fd());
                    step_between(joining)
                }
                Cloned::Parent(pid, pidfd) => {
                    let word = ours.recv_of(&pidfd);
                    clone::wait(pid).doing(|| "waiting for the step between")?;
                    match word? {
                        Some(Message::Init(pid)) => {
                            Ok((pid, pidfd_open(pid).doing(|| "opening a pidfd of the process")?))
                        }
                        Some(Message::Failed(err)) => Err(err),
                        _ => Err(Error::new(Kind::System, "the step between ended early")),
                    }
                }
            }
        }
        Err(errno) => Err(errno).doing(|| "joining the container's pid namespace"),
    }
}

/// The last acts with the rights outside.
fn hide(joining: &Joining<'_>) -> Result<()> {
    if let (true, Some(score)) = (joining.flags & USER != 0, joining.plan.oom_score) {
        // The file of a hidden process is root's.
        score.apply(&Proc::new(), Base::Own)?;
    }
    // Before anything is joined: the container's root could else take hold of us (CVE-2016-9962).
    process::set_undumpable().doing(|| "hiding the process from the container")
}

fn join_error(errno: Errno) -> Error {
    let err = Error::sys(errno, "joining the container's namespaces");
    match errno {
        Errno::EPERM if !nix::unistd::geteuid().is_root() => {
            err.hint("a user can enter the own containers alone, and only once they are started")
        }
        _ => err,
    }
}

fn enter_error(errno: Errno, doing: &str) -> Error {
    let err = Error::sys(errno, doing);
    match errno {
        Errno::ENODEV | Errno::ENOENT => err.with_kind(Kind::NotRunning).hint(NOT_RUNNING),
        Errno::EAGAIN => err.hint("the container's limit of processes is reached"),
        Errno::EBUSY => Error::sys(errno, "adding pid of the new process to cgroups of the container").hint(
            "that one shares out controllers, and so takes no processes: name one below it with --cgroup",
        ),
        Errno::EACCES => {
            err.hint("the caller's cgroup lies outside of what is delegated to this user: call from within")
        }
        _ => err,
    }
}

fn step_between(joining: &Joining<'_>) -> ! {
    let result = hide(joining)
        .and_then(|()| clone::setns(joining.init, joining.flags & !MOUNT).map_err(join_error))
        .and_then(|()| match clone3(libc::CLONE_PARENT as u64, None).doing(|| "cloning the process")? {
            Cloned::Child => main(joining, joining.flags & MOUNT),
            Cloned::Parent(pid, _) => joining.channel.send(&Message::Init(pid)),
        });
    match result {
        Ok(()) => process::exit_now(0),
        Err(err) => joining.channel.give_up(err),
    }
}

/// Runs in the clone: joins the rest and becomes the workload, or tells why not and ends.
fn main(joining: &Joining<'_>, left: u64) -> ! {
    if let Some(process) = joining.inside {
        joining.seal.close_copy();
        let standing = Standing {
            container: joining.container,
            process,
            console_socket: joining.console_socket,
            channel: joining.channel,
        };
        match isolation::hypervisor() {
            Ok(hypervisor) => hypervisor.stand(&standing),
            Err(err) => joining.channel.give_up(err),
        }
    }
    let Err(err) = set_up(joining, left);
    joining.channel.give_up(err)
}

fn set_up(joining: &Joining<'_>, left: u64) -> Result<std::convert::Infallible> {
    let Joining { plan, channel, container, .. } = joining;
    joining.seal.close_copy();
    process::set_parent_death_signal(libc::SIGKILL).doing(|| "tying the process to its creator")?;
    process::reset_signals();
    // It is the caller's, and none of the container's business.
    process::forget_environment();
    let in_user_namespace = joining.flags & USER != 0;
    if left & USER != 0 || !in_user_namespace {
        // Else the step between has done it.
        hide(joining)?;
    }
    if in_user_namespace {
        channel.await_word(|word| matches!(word, Message::Go))?;
    }
    if left != 0 {
        clone::setns(joining.init, left).map_err(join_error)?;
    }
    if let Some(root) = &joining.root {
        nix::unistd::fchdir(root)
            .and_then(|()| nix::unistd::chroot("."))
            .doing(|| "entering the container's root")?;
    }
    if in_user_namespace {
        let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
        let _ = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
        process::set_parent_death_signal(libc::SIGKILL).doing(|| "tying the process to its creator")?;
    }
    let proc = Proc::new();
    setsid().doing(|| "starting a session")?;
    if !container.state().no_new_keyring {
        keyring::plan(&container.state().id, plan.labels.selinux())?.join(&proc)?;
    }
    match &plan.affinity.last {
        Some(cpus) => cpus.apply(0)?,
        None if plan.affinity.initial.is_none() => sched::reset_affinity(0)?,
        None => {}
    }
    if plan.terminal {
        let server = match joining.console_socket {
            Some(sock) => console::Server::Socket(sock.as_fd()),
            None => console::Server::Creator(channel),
        };
        let root = Root::new(own_root()?);
        let peer = console::open(&root, plan.console_size, server)?;
        console::take(&peer, plan.user.uid)?;
    }
    place_fds(joining.preserved)?;
    let workload = Workload {
        process: plan,
        seccomp: joining.seccomp,
        personality: joining.personality,
        memory_policy: joining.memory_policy,
        limited_outside: in_user_namespace,
        preserve_fds: joining.preserved.len() as u32,
        proc: &proc,
        channel,
        gate: None,
    };
    // It closes what is owned above, so that no failure may lead back there.
    let Err(err) = go_on(&workload);
    channel.give_up(err)
}

/// The workload's attributes and the program.
fn go_on(workload: &Workload<'_>) -> Result<std::convert::Infallible> {
    let (program, env) = workload.prepare()?;
    process::set_parent_death_signal(0).doing(|| "untying the process from its creator")?;
    workload.channel.send(&Message::Ready)?;
    Err(workload.execute(&program, &env, || Ok(())))
}
