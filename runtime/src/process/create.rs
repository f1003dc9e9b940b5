//! `create` and `run`: from a bundle to a container that waits, or to a finished workload.
//!
//! Owns the order: everything is checked and opened before anything is made, what is made is
//! recorded first, and a failure at any step undoes what was done.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::{AT_FDCWD, OFlag};

use super::binds::{self, Prepared};
use super::channel::{Channel, Message};
use super::init::{Handover, Inside};
use super::notify::Notify;
use super::seal::Seal;
use super::spawn::{make_network, return_ticket, spawn};
use super::{hooks, notify, outside};
use crate::attrs::{netdev, rdt, rlimits};
use crate::cgroup::{self, Cgroup, Limits, Location, Manager, Purpose};
use crate::container::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::isolation::refuse::refuse;
use crate::isolation::{self, Isolation, Monitor, Place, split, takeover};
use crate::plan::namespaces::{NETWORK, PID};
use crate::plan::{Choices, Plan};
use crate::procfs::{Base, Proc};
use crate::report::Status;
use crate::spec::{Resources, Spec, StringMap};
use crate::state::{self, Entry, Lock, ProcessId, State, Store};
use crate::sys::clone::{self, pidfd_signal};
use crate::sys::fs::openat2;
use crate::sys::socket;
use crate::warn::warn_all;
use crate::{report, time};

/// How long processes may take to vanish once they were killed.
pub const DEATH: Duration = Duration::from_secs(10);

/// What `create` was asked for.
#[derive(Debug)]
pub struct CreateRequest {
    /// The container's id.
    pub id: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Gets the init's pid, without a newline, before `create` returns.
    pub pid_file: Option<PathBuf>,
    /// UNIX socket that gets a pidfd of init.
    pub pidfd_socket: Option<PathBuf>,
    /// UNIX socket that gets the master of the terminal.
    pub console_socket: Option<PathBuf>,
    /// Descriptors that the workload inherits, numbered from 3 on ([`outside::adopt_fds`]).
    pub preserved: Vec<OwnedFd>,
    /// Move the root instead of pivoting.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Who makes the cgroup.
    pub manager: Manager,
    /// Whether the caller lacks the host root's rights over cgroups.
    pub rootless: bool,
    /// What separates it from the host; absent leaves that to the document's annotation.
    pub isolation: Option<Isolation>,
    /// What is wanted of its virtual machine: annotations that come before the document's.
    pub machine: StringMap,
    /// The sealed copy that this process runs from ([`seal::ensure`](super::seal::ensure)).
    pub seal: Seal,
}

/// How the container goes on once it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It waits for `start`.
    Wait,
    /// The workload runs at once.
    Run,
}

/// A container that was made, as its creator sees it.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// The init's pid.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// The terminal's master, where the creator serves it.
    pub master: Option<OwnedFd>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// The way of its notifications, for one that runs.
    pub notify: Option<Notify>,
}

/// Makes the container and leaves it waiting for `start`.
pub fn create(store: &Store, request: CreateRequest) -> Result<()> {
    make(store, request, Then::Wait, true).map(|created| warn_all(created.warnings))
}

/// Makes the container; `detached` says that nobody here will serve a terminal.
pub fn make(store: &Store, mut request: CreateRequest, then: Then, detached: bool) -> Result<Created> {
    let naming = |err: Error| match err.kind() {
        // The program's own error stands alone: engines read it from the start.
        Kind::CommandNotFound | Kind::NotExecutable | Kind::Exists => err,
        _ => err.context(format_args!("creating {}", request.id)),
    };
    let seal = std::mem::take(&mut request.seal);
    let request = &request;
    let outside = Outside::open(store, request, detached).map_err(naming)?;
    let (entry, lock) = store.claim(&request.id)?;
    let mut attempt = Attempt {
        request,
        seal,
        outside,
        place: store.path().join(&request.id),
        entry,
        lock: Some(lock),
        then,
        cgroup: None,
        pidfd: None,
        rdt: None,
    };
    match attempt.run() {
        Ok(created) => Ok(created),
        Err(err) => {
            attempt.undo(store);
            Err(naming(err))
        }
    }
}

/// The part of a virtual machine that is opened outside.
struct Machine {
    monitor: Box<dyn Monitor>,
    /// The container that has it, where that is another one.
    of: Option<String>,
    document: Spec,
    /// Whether what it says of itself is heard on the host.
    notify: bool,
}

/// Everything that is read, checked and opened before anything is made.
struct Outside {
    machine: Option<Machine>,
    config: Vec<u8>,
    oci_version: String,
    annotations: crate::spec::StringMap,
    plan: Plan,
    limits: Limits,
    extra: cgroup::Extra,
    location: Location,
    prepared: Option<Prepared>,
    joins: Vec<(u64, OwnedFd)>,
    console_socket: Option<OwnedFd>,
}

impl Outside {
    fn open(store: &Store, request: &CreateRequest, detached: bool) -> Result<Outside> {
        state::check_id(&request.id)?;
        let bundle = std::fs::canonicalize(&request.bundle)
            .doing(|| format!("opening the bundle {}", request.bundle.display()))?;
        let path = bundle.join("config.json");
        let config = std::fs::read(&path).doing(|| format!("reading {}", path.display()))?;
        let mut spec =
            Spec::parse(&config).map_err(|err| err.context(format_args!("reading {}", path.display())))?;
        spec.annotations.extend(request.machine.clone());
        let choices = Choices { no_pivot: request.no_pivot, no_new_keyring: request.no_new_keyring };
        let mut plan =
            Plan::new(&request.id, &bundle, &spec, &choices).map_err(|err| err.context(path.display()))?;
        let isolation = Isolation::choose(request.isolation, &spec.annotations)
            .map_err(|err| err.context(path.display()))?;
        let parts = match isolation {
            Isolation::Namespaces if !request.machine.is_empty() => {
                return Err(Error::invalid("--vm-identity and --trace-startup are for a virtual machine")
                    .hint("give --isolation vm as well"));
            }
            Isolation::Namespaces => None,
            Isolation::Vm => {
                let place = isolation::hypervisor()?
                    .place(store, &plan)
                    .map_err(|err| err.context(path.display()))?;
                if let (Some(place), false) = (&place, request.machine.is_empty()) {
                    let text =
                        format!("the virtual machine of {:?}, which it joins, runs already", place.machine);
                    return Err(
                        Error::invalid(text).hint("give --vm-identity and --trace-startup to that one")
                    );
                }
                let whose = if place.is_some() { split::Machine::Anothers } else { split::Machine::Own };
                refuse(&spec, &plan, whose).map_err(|err| err.context(path.display()))?;
                if !request.preserved.is_empty() {
                    return Err(Error::unsupported("--preserve-fds does not reach into a virtual machine"));
                }
                let document = split::inner(&spec, &plan, whose);
                let notify = place.is_none() && isolation::notify::mount_of(&plan).is_some();
                split::outer(&mut plan, whose);
                Some((document, notify, place))
            }
        };
        plan.cannot_return = plan.namespaces.joins(PID) && return_ticket("pid", PID)?.is_none();
        check_terminal(&plan, request, detached)?;
        outside::pass_on_sockets(&mut plan.process);
        let machine = parts.map(|parts| machine(&mut plan, parts)).transpose()?;
        let mut limits = cgroup::plan(&plan.resources, Purpose::Create)
            .map_err(|err| err.context(format_args!("{}: linux.resources", path.display())))?;
        plan.warnings.append(&mut limits.warnings);
        let extra = match request.manager {
            Manager::Systemd { .. } => cgroup::Extra::new(&spec.annotations)?,
            _ => cgroup::Extra::default(),
        };
        let location = Location::resolve(
            &cgroup::Request {
                id: &request.id,
                cgroups_path: plan.cgroups_path.as_deref(),
                manager: request.manager,
                rootless: request.rootless,
            },
            cgroup::own,
        )?;
        let console_socket = request
            .console_socket
            .as_ref()
            .map(|path| {
                socket::connect_stream(path)
                    .doing(|| format!("connecting to the console socket {}", path.display()))
            })
            .transpose()?;
        let joins = open_joins(&plan)?;
        let prepared = binds::prepare(&plan)?;
        Ok(Outside {
            machine,
            config,
            oci_version: spec.oci_version,
            annotations: spec.annotations,
            plan,
            limits,
            extra,
            location,
            prepared,
            joins,
            console_socket,
        })
    }
}

/// Opens what a machine needs of the host, and takes its own limits out of those of the cgroup.
fn machine(plan: &mut Plan, (document, notify, place): (Spec, bool, Option<Place>)) -> Result<Machine> {
    if let Some(Place { machine, monitor }) = place {
        // Its processes are in that machine, and what they use is counted there.
        plan.resources = Resources::default();
        return Ok(Machine { monitor, of: Some(machine), document, notify });
    }
    let hypervisor = isolation::hypervisor()?;
    let monitor = hypervisor.open(&isolation::Wanted {
        id: &plan.id,
        annotations: &document.annotations,
        resources: &plan.resources,
    })?;
    plan.resources = split::outer_resources(&plan.resources, &|limit| hypervisor.allowance(limit));
    Ok(Machine { monitor, of: None, document, notify })
}

fn check_terminal(plan: &Plan, request: &CreateRequest, detached: bool) -> Result<()> {
    match (plan.process.terminal, request.console_socket.is_some()) {
        (true, false) if detached => Err(Error::invalid(
            "process.terminal is set, but nobody would serve the terminal: pass --console-socket",
        )),
        (false, true) => Err(Error::invalid("a console socket is given, but process.terminal is not set")),
        _ => Ok(()),
    }
}

/// Opens the namespaces to join, and checks each to be of its kind.
fn open_joins(plan: &Plan) -> Result<Vec<(u64, OwnedFd)>> {
    plan.namespaces
        .join
        .iter()
        .map(|(flag, path)| {
            let doing = || format!("opening the namespace {}", path.display());
            let fd = openat2(AT_FDCWD, path, OFlag::O_RDONLY, 0, 0).doing(doing)?;
            match crate::sys::fs::namespace_kind(&fd) {
                Ok(kind) if kind == *flag => Ok((*flag, fd)),
                Ok(_) => Err(Error::invalid(format!("{}: it is a namespace of another kind", doing()))),
                Err(_) => Err(Error::invalid(format!("{}: it is not a namespace", doing()))),
            }
        })
        .collect()
}

struct Attempt<'a> {
    request: &'a CreateRequest,
    seal: Seal,
    outside: Outside,
    place: PathBuf,
    entry: Entry,
    lock: Option<Lock>,
    then: Then,
    cgroup: Option<Cgroup>,
    pidfd: Option<(i32, OwnedFd)>,
    rdt: Option<rdt::RdtRecord>,
}

impl Attempt<'_> {
    fn run(&mut self) -> Result<Created> {
        let mut notify = None;
        let in_anothers = self.outside.machine.as_ref().is_some_and(|machine| machine.of.is_some());
        if notify::wanted() && !in_anothers {
            let Outside { plan, prepared, machine, .. } = &mut self.outside;
            if let Some(op) = notify::prepare(&self.entry, &self.place, plan)? {
                if let Some(machine) = machine {
                    isolation::notify::add(&mut machine.document);
                    machine.notify = true;
                }
                binds::add(plan, prepared, op)?;
            }
            if self.then == Then::Run {
                notify = Notify::listen(&self.entry)?;
            }
        }
        let mut listener = None;
        if self.outside.machine.as_ref().is_some_and(|machine| machine.monitor.wants_sockets()) {
            let Outside { plan, prepared, .. } = &mut self.outside;
            let (mount, socket) = isolation::vsock::prepare(&self.entry, &self.place)?;
            binds::add(plan, prepared, mount)?;
            listener = Some(socket);
        }
        let plan = &self.outside.plan;
        cgroup::refuse_in_use(Path::new(cgroup::MOUNT), &self.outside.location)?;
        // One that nobody asked for is recorded once it is made: another's may have that name.
        let optional = self.outside.location.optional;
        let cgroup_record = (!optional).then(|| self.outside.location.record());
        let mut state = State {
            version: state::VERSION,
            id: self.request.id.clone(),
            oci_version: self.outside.oci_version.clone(),
            bundle: plan.bundle.clone(),
            rootfs: plan.rootfs.clone(),
            created: time::rfc3339(SystemTime::now()),
            owner: nix::unistd::geteuid().as_raw(),
            init: None,
            complete: false,
            cgroup: cgroup_record,
            rdt: None,
            poststart: !plan.hooks.poststart.is_empty(),
            poststop: !plan.hooks.poststop.is_empty(),
            own_pid_namespace: plan.new_pid_namespace(),
            no_new_keyring: plan.keyring.is_none(),
            isolation: if self.outside.machine.is_some() { Isolation::Vm } else { Isolation::Namespaces },
            machine: self.outside.machine.as_ref().and_then(|machine| machine.of.clone()),
            annotations: self.outside.annotations.clone(),
        };
        self.entry.save(&state)?;
        let gate = match self.then {
            Then::Wait => {
                Some(socket::listen_at(self.entry.dir(), state::GATE).doing(|| "making the start gate")?)
            }
            Then::Run => None,
        };
        let machine = self
            .outside
            .machine
            .take()
            .map(|machine| {
                let listen = || {
                    socket::listen_at(self.entry.dir(), isolation::control::CONTROL)
                        .doing(|| "making the machine's control socket")
                };
                let control = if in_anothers { None } else { Some(listen()?) };
                Ok::<_, Error>((machine, control))
            })
            .transpose()?;
        let is_vm = machine.is_some();
        let outside = &self.outside;
        let plan = &outside.plan;
        let cgroup =
            cgroup::prepare(Path::new(cgroup::MOUNT), &outside.location, &outside.limits, &outside.extra)?;
        let (ours, theirs) = Channel::pair()?;
        // After a step between, init's first word must not overtake the one that tells its pid.
        let waits = plan.new_user_namespace()
            || plan.needs_step_between()
            || !plan.net_devices.is_empty()
            || plan.rdt.is_some()
            || matches!(self.outside.location.manager, Manager::Systemd { .. });
        let handshakes = self.then == Then::Wait
            || is_vm
            || self.request.pid_file.is_some()
            || plan.has_creating_hooks()
            || outside.prepared.as_ref().is_some_and(|prepared| prepared.maps_later(plan));
        // The dearest namespace; with the others in one clone3 it would come before everything else.
        let may = plan.namespaces.makes(NETWORK) && !waits && !plan.needs_step_between();
        let own_network = if may { return_ticket("net", NETWORK)? } else { None };
        let network_beside = own_network.is_some();
        let hook_state = |pid: i32, status: &str| report::for_hooks(&state, pid, status);
        let handover = Handover {
            plan,
            prepared: self.outside.prepared.as_ref(),
            joins: &self.outside.joins,
            channel: &theirs,
            waits,
            network_beside,
            gate: gate.as_ref(),
            console_socket: self.outside.console_socket.as_ref().map(AsFd::as_fd),
            preserved: &self.request.preserved,
            hook_state: &hook_state,
            seal: &self.seal,
            machine: std::cell::Cell::new(machine.map(|(machine, control)| Inside {
                monitor: machine.monitor,
                document: machine.document,
                control,
                notify: machine.notify,
                listener,
            })),
        };
        let (pid, pidfd) = match spawn(&handover, &cgroup, &mut self.lock, &ours) {
            Ok(spawned) => spawned,
            Err(err) => {
                // A step between that was killed may have made an init that nobody can name.
                cgroup.discard(DEATH);
                return Err(err);
            }
        };
        // The machine's are init's alone by now.
        drop(handover);
        drop(theirs);
        // Nothing may fail before both are where `undo` finds them.
        self.pidfd = Some((pid, pidfd));
        self.cgroup = cgroup.attach(pid)?;
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.claim(&format!("{} {pid} {}", state.id, state.created))?;
        }
        let Some((_, pidfd)) = &self.pidfd else { return Err(self.death()) };

        let proc = Proc::new();
        if plan.new_user_namespace() {
            self.map_ids(pid).map_err(|err| ours.reason(err))?;
            if let (false, Some(score)) = (plan.needs_step_between(), plan.process.oom_score) {
                // Before init hides itself, as then the file is root's.
                score.apply(&proc, Base::Pid(pid)).map_err(|err| ours.reason(err))?;
            }
        }
        if let Some(rdt) = &plan.rdt {
            let resctrl = rdt::open_resctrl()?;
            let record = rdt.record(&resctrl);
            state.rdt = Some(record.clone());
            self.entry.save(&state)?;
            self.rdt = Some(record);
            rdt.create(&resctrl)?;
            rdt.join(&resctrl, pid)?;
        }
        if !plan.net_devices.is_empty() {
            let ns = openat2(AT_FDCWD, format!("/proc/{pid}/ns/net"), OFlag::O_RDONLY, 0, 0)
                .doing(|| "opening the container's network namespace")?;
            netdev::attach(&plan.net_devices, ns, &proc).map_err(|err| ours.reason(err))?;
        }
        if waits {
            ours.tell(&Message::Go)?;
        }
        if let Some(own) = own_network {
            ours.tell(&Message::Network(make_network(&own)?))?;
        }
        // From here on init builds its root while limits and state are written beside it.
        if plan.limits_from_outside() {
            rlimits::apply(&plan.process.rlimits, pid).map_err(|err| ours.reason(err))?;
        }
        if let Some(cgroup) = &self.cgroup {
            // Gone with its last process: that is the reason, not what was to be written.
            cgroup
                .apply(&self.outside.limits)
                .map_err(|err| if cgroup.is_gone() { self.death() } else { err })?;
            if let Some(root) = plan.cgroup_owner() {
                cgroup.chown(root, None)?;
            }
            state.cgroup = Some(cgroup.record().clone());
        }
        self.entry.write(state::CONFIG, &self.outside.config)?;
        state.init = Some(ProcessId::of(pid)?);
        if !handshakes {
            state.complete = true;
        }
        self.entry.save(&state)?;

        if !handshakes {
            ours.tell(&Message::Proceed)?;
        }
        // Init has dropped its copy long ago; what waits for the kernel here, waits beside its work.
        drop(std::mem::take(&mut self.seal));
        let mut master = None;
        let mut warnings = Vec::new();
        loop {
            match ours.recv()? {
                Some(Message::RunHooks) => {
                    let text = report::for_hooks(&state, pid, "creating");
                    hooks::run_beside(pidfd, "prestart", &plan.hooks.prestart, &text)?;
                    hooks::run_beside(pidfd, "createRuntime", &plan.hooks.create_runtime, &text)?;
                    let _ = ours.send(&Message::HooksDone);
                }
                Some(Message::MapIds(at, mount)) => {
                    if let Some(prepared) = &self.outside.prepared {
                        prepared.map_for(plan, at as usize, &mount, pid)?;
                    }
                    ours.tell(&Message::Go)?;
                }
                Some(Message::Filter(fd)) => self.send_filter(&state, pid, &fd)?,
                Some(Message::Master(fd)) => master = Some(fd),
                Some(Message::Warning(text)) => warnings.push(text),
                Some(Message::Ready) => break,
                Some(Message::Failed(err)) => return Err(err),
                Some(other) => {
                    return Err(Error::new(Kind::System, format!("unexpected word from init: {other:?}")));
                }
                None => return Err(self.death()),
            }
        }
        self.tell_pid(pid)?;
        if handshakes {
            state.complete = true;
            self.entry.save(&state)?;
            if let (true, Then::Run, Some((_, pidfd))) = (is_vm && !in_anothers, self.then, &self.pidfd) {
                ours.tell(&takeover::take_over(pid, pidfd)?)?;
            }
            ours.tell(&Message::Proceed)?;
        }
        if self.then == Then::Run {
            // End-of-file: the workload was executed.
            if let Some(Message::Failed(err)) = ours.recv()? {
                return Err(err);
            }
        }
        warnings.extend_from_slice(&plan.warnings);
        let container = Container::new(self.entry.try_clone()?, state);
        let (pid, pidfd) = self.pidfd.take().ok_or_else(|| self.death())?;
        Ok(Created { container, pid, pidfd, master, warnings, notify })
    }

    fn map_ids(&self, pid: i32) -> Result<()> {
        let plan = &self.outside.plan;
        let Some(maps) = &plan.id_maps else { return Ok(()) };
        let doing = || format!("opening /proc/{pid}");
        let dir = openat2(AT_FDCWD, format!("/proc/{pid}"), OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)
            .doing(doing)?;
        maps.apply(&dir, pid)?;
        self.outside.prepared.as_ref().map_or(Ok(()), |prepared| prepared.map_by(plan, pid))
    }

    /// Hands the filter's notification descriptor to its listener (config-linux.md, containerProcessState).
    fn send_filter(&self, state: &State, pid: i32, fd: &OwnedFd) -> Result<()> {
        let Some((path, metadata)) = &self.outside.plan.seccomp_listener else {
            return Err(Error::invalid("linux.seccomp: NOTIFY without listenerPath"));
        };
        outside::send_filter(path, metadata, (state, Status::Creating, pid), pid, fd)
    }

    /// Writes the pid where the caller wants it, complete before `create` returns.
    fn tell_pid(&self, pid: i32) -> Result<()> {
        let Some((_, pidfd)) = &self.pidfd else { return Ok(()) };
        outside::tell_pid(self.request.pid_file.as_deref(), self.request.pidfd_socket.as_deref(), pid, pidfd)
    }

    /// What to say of an init that ended without a word: mostly the limits were too tight.
    fn death(&self) -> Error {
        let err = Error::new(Kind::System, "the container's init died while it was being set up");
        let Some(cgroup) = &self.cgroup else { return err.hint("look for its reason in the kernel's log") };
        match cgroup.memory_events() {
            Ok(events) if events.oom_kill > 0 => {
                err.hint("it was killed for lack of memory: raise linux.resources.memory.limit")
            }
            // systemd removes a scope, and what it counted, with its last process.
            _ if cgroup.is_gone() && self.limits_memory() && self.was_killed() => {
                err.hint("it was killed, most likely for lack of memory: raise linux.resources.memory.limit")
            }
            _ => err.hint("look for its reason in the kernel's log"),
        }
    }

    fn limits_memory(&self) -> bool {
        self.outside.limits.controllers().any(|name| name == "memory")
    }

    /// Whether init, which has ended, ended by SIGKILL.
    fn was_killed(&self) -> bool {
        let Some((pid, _)) = &self.pidfd else { return false };
        matches!(clone::wait(*pid), Ok(clone::Exit::Signal(libc::SIGKILL)))
    }

    fn undo(self, store: &Store) {
        let Attempt { request, outside, entry, cgroup, pidfd, rdt, .. } = self;
        // The container existed: what its hooks set up is theirs to undo (runtime.md, lifecycle, steps 3-9).
        let existed = pidfd.is_some().then(|| entry.load().ok()).flatten();
        if let Some((pid, fd)) = pidfd {
            let _ = pidfd_signal(&fd, libc::SIGKILL);
            let _ = clone::wait(pid);
            if let Some(file) = &request.pid_file {
                outside::forget_pid(file, pid);
            }
        }
        if let Some(cgroup) = cgroup {
            cgroup.undo(DEATH);
        }
        if let (Some(record), Ok(resctrl)) = (&rdt, rdt::open_resctrl()) {
            let _ = rdt::destroy(record, &resctrl);
        }
        let _ = store.remove(&entry);
        if let Some(state) = existed {
            hooks::run_poststop(&outside.plan.hooks.poststop, &state);
        }
    }
}
