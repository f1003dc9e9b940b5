//! A container as later calls find it: status, start, signals, pause, update, deletion.
//!
//! Owns nothing between calls; everything comes from the entry in the state root and the kernel.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::attrs::rdt;
use crate::cgroup::{self, Cgroup, Purpose};
use crate::contract::{self, NOT_RUNNING};
use crate::error::{Context, Error, Kind, Result};
use crate::isolation::control::{self, Answer, Ask, Connection, Questions};
use crate::isolation::{self, Isolation, split, takeover};
use crate::process::channel::{Channel, Message};
use crate::process::create::DEATH;
use crate::process::hooks;
use crate::process::members::Members;
use crate::process::notify::Notify;
use crate::report::{self, Report, Status};
use crate::spec::{Resources, Spec};
use crate::state::{CONFIG, Entry, GATE, State, Store};
use crate::sys::clone::{pidfd_open, pidfd_signal};
use crate::sys::socket;
use crate::warn::warn_all;

/// How long a machine may take to give memory back before the host's limit is lowered.
const GIVING_BACK: Duration = Duration::from_secs(10);
/// How long a monitor may take to tell what it knows itself.
const MEASURING: Duration = Duration::from_secs(1);

/// A container of a state root.
#[derive(Debug)]
pub struct Container {
    entry: Entry,
    state: State,
}

impl Container {
    /// The container of an entry, for its creator.
    pub(crate) fn new(entry: Entry, state: State) -> Container {
        Container { entry, state }
    }

    /// Finds container `id`.
    pub fn load(store: &Store, id: &str) -> Result<Container> {
        let entry = store.entry(id)?;
        let state = entry.load()?;
        Ok(Container { entry, state })
    }

    /// What is remembered of it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a virtual machine runs its processes.
    pub fn is_vm(&self) -> bool {
        self.state.isolation == Isolation::Vm
    }

    /// Whether that virtual machine is another container's.
    fn is_in_anothers(&self) -> bool {
        self.state.machine.is_some()
    }

    /// Its directory.
    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// Its document, as it was at `create`.
    pub fn spec(&self) -> Result<Spec> {
        self.entry.config()
    }

    /// Its status now.
    pub fn status(&self) -> Result<Status> {
        let Some(init) = &self.state.init else {
            return Ok(if self.state.complete { Status::Stopped } else { Status::Creating });
        };
        if !init.alive() {
            return Ok(Status::Stopped);
        }
        if !self.state.complete {
            return Ok(Status::Creating);
        }
        if self.cgroup()?.is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false)) {
            return Ok(Status::Paused);
        }
        Ok(if self.entry.has_gate()? { Status::Created } else { Status::Running })
    }

    /// Its state document.
    pub fn report(&self) -> Result<Report> {
        let status = self.status()?;
        let pid = match (status, &self.state.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        };
        Ok(Report {
            oci_version: self.state.oci_version.clone(),
            id: self.state.id.clone(),
            pid,
            status,
            bundle: self.state.bundle.clone(),
            rootfs: self.state.rootfs.clone(),
            created: self.state.created.clone(),
            annotations: self.state.annotations.clone(),
            isolation: self.state.isolation,
            owner: owner_name(self.state.owner),
        })
    }

    /// Its cgroup, where it has one that still exists.
    pub fn cgroup(&self) -> Result<Option<Cgroup>> {
        match &self.state.cgroup {
            Some(record) => Cgroup::open(Path::new(cgroup::MOUNT), record),
            None => Ok(None),
        }
    }

    pub(crate) fn needed_cgroup(&self, act: &str) -> Result<Cgroup> {
        self.cgroup()?.ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                format!("cannot {act} container {:?}: it has no cgroup", self.state.id),
            )
            .hint("create it with a cgroup manager, as a user in a cgroup that is delegated to the user")
        })
    }

    /// A pidfd of the living init.
    pub fn init(&self) -> Result<(i32, OwnedFd)> {
        let init = self.state.init.as_ref().ok_or_else(contract::not_running)?;
        let pidfd = match pidfd_open(init.pid) {
            Ok(fd) => fd,
            Err(Errno::ESRCH | Errno::EINVAL) => return Err(contract::not_running()),
            Err(errno) => return Err(errno).doing(|| format!("opening process {}", init.pid)),
        };
        // Only now is the number pinned: check that it still means the same process.
        if init.alive() { Ok((init.pid, pidfd)) } else { Err(contract::not_running()) }
    }

    /// Opens the gate: returns once the workload is executed, or with the reason why it was not.
    pub fn start(&self) -> Result<()> {
        let id = &self.state.id;
        let lock = self.entry.lock()?;
        // What was read before the lock may be of a creation still under way.
        let now = Container { state: self.entry.load()?, entry: self.entry.try_clone()? };
        match now.status()? {
            Status::Created => {}
            Status::Stopped => {
                return Err(Error::new(
                    Kind::State,
                    format!("cannot start container {id:?}: it has stopped"),
                ));
            }
            status => {
                return Err(Error::new(
                    Kind::State,
                    format!("cannot start container {id:?}: it is {} already", status.word()),
                ));
            }
        }
        let doing = || format!("starting container {id:?}");
        let notify = match Notify::listen(&self.entry)? {
            Some(notify) => Some((notify, now.init()?)),
            None => None,
        };
        let gone = |err: Error| match err.errno() {
            // Init was killed since the look at its status.
            Some(Errno::ECONNREFUSED | Errno::EPIPE | Errno::ECONNRESET) => {
                contract::not_running().context(doing())
            }
            _ => err,
        };
        let gate = socket::connect_at(self.entry.dir(), GATE).doing(doing).map_err(gone)?;
        let channel = Channel::over(gate);
        // From here on it counts as started; init ends if no word follows.
        self.entry.remove_gate()?;
        if self.is_vm() && !self.is_in_anothers() {
            let (pid, pidfd) = now.init()?;
            channel.send(&takeover::take_over(pid, &pidfd)?).map_err(gone)?;
        }
        channel.send(&Message::Proceed).map_err(gone)?;
        if let Some(Message::Failed(err)) = channel.recv()? {
            return Err(err);
        }
        drop(lock);
        now.run_poststart()?;
        // Who started us waits to be told, so it is told before this returns.
        notify.map_or(Ok(()), |(notify, (pid, pidfd))| notify.see_ready(pid, &pidfd))
    }

    /// Runs the `poststart` hooks; if one fails the container is stopped (runtime.md, lifecycle, step 9).
    pub fn run_poststart(&self) -> Result<()> {
        let (true, Some(init)) = (self.state.poststart, &self.state.init) else { return Ok(()) };
        let hooks = self.spec()?.hooks.unwrap_or_default().poststart;
        let text = report::for_hooks(&self.state, init.pid, "running");
        hooks::run("poststart", &hooks, &text).inspect_err(|_| {
            let _ = self.kill_everything();
        })
    }

    /// Sends `signal` to init, or with `all` to every process of the container.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        let doing = || format!("sending signal {signal} to container {:?}", self.state.id);
        if all || (signal == libc::SIGKILL && !self.state.own_pid_namespace) {
            // Without a pid namespace of its own the end of init ends nobody else.
            if let Some(cgroup) = self.cgroup()? {
                let known = Signal::try_from(signal);
                return match known {
                    Ok(known) => cgroup.kill_all(known).map_err(|err| err.context(doing())),
                    Err(_) => cgroup
                        .pids(true)?
                        .into_iter()
                        .filter_map(|pid| pidfd_open(pid).ok())
                        .try_for_each(|fd| pidfd_signal(&fd, signal).doing(doing)),
                };
            }
            if all {
                return self.kill_members(signal).map_err(|err| err.context(doing()));
            }
        }
        let (_, pidfd) = self.init()?;
        match pidfd_signal(&pidfd, signal) {
            Err(Errno::ESRCH) => Err(contract::not_running()),
            other => other.doing(doing),
        }
    }

    /// Sends `signal` to every process, for a container without a cgroup: by its pid namespace.
    fn kill_members(&self, signal: i32) -> Result<()> {
        let Some(init) = self.state.init.as_ref().filter(|init| init.alive()) else { return Ok(()) };
        if !self.state.own_pid_namespace {
            return Err(Error::unsupported("it has neither a cgroup nor a pid namespace of its own")
                .hint("leave out --all to reach its init"));
        }
        let members = Members::of(init.pid)?;
        if signal == libc::SIGKILL {
            // The end of a pid namespace's init is the end of all, at once.
            return members.signal(init.pid, signal);
        }
        members.pids()?.into_iter().try_for_each(|pid| members.signal(pid, signal))
    }

    /// Kills init and waits for its end; what else runs goes with the cgroup.
    pub(crate) fn kill_everything(&self) -> Result<()> {
        if let Ok((pid, pidfd)) = self.init() {
            let _ = pidfd_signal(&pidfd, libc::SIGKILL);
            // A frozen process dies of SIGKILL as well on cgroup v2; only its own exit takes time.
            if !await_exit(&pidfd).doing(|| format!("waiting for the end of process {pid}"))? {
                return Err(Error::new(Kind::System, format!("process {pid} does not end, though killed"))
                    .hint(
                        "it hangs in the kernel (see /proc/PID/stack), or the caller of a detached exec \
                         has not reaped what that ran",
                    ));
            }
        }
        Ok(())
    }

    /// Freezes all processes.
    pub fn pause(&self) -> Result<()> {
        if let Some(machine) = &self.state.machine {
            return Err(Error::unsupported(format!(
                "cannot pause container {:?}: it lives in the virtual machine of {machine:?}",
                self.state.id
            ))
            .hint("pause that one, with all that live in it"));
        }
        match self.status()? {
            Status::Running | Status::Created => self.needed_cgroup("pause")?.freeze(DEATH),
            status => Err(Error::new(
                Kind::State,
                format!("cannot pause container {:?}: {NOT_RUNNING}, it is {}", self.state.id, status.word()),
            )),
        }
    }

    /// Lets all processes run again.
    pub fn resume(&self) -> Result<()> {
        match self.status()? {
            Status::Paused => self.needed_cgroup("resume")?.thaw(DEATH),
            status => Err(Error::new(
                Kind::State,
                format!(
                    "cannot resume container {:?}: container not paused, it is {}",
                    self.state.id,
                    status.word()
                ),
            )),
        }
    }

    /// The processes inside the virtual machine.
    pub fn members(&self) -> Result<Vec<control::Member>> {
        match self.monitor("list the processes of")?.question(&Ask::Processes)? {
            Answer::Processes(members) => Ok(members),
            other => Err(other.out_of_place()),
        }
    }

    /// What the virtual machine's own kernel counts, in the form of the statistics of `events`.
    pub fn inner_stats(&self) -> Result<serde_json::Value> {
        match self.monitor("measure")?.question(&Ask::Statistics)? {
            Answer::Statistics(stats) => Ok(*stats),
            other => Err(other.out_of_place()),
        }
    }

    /// How often the virtual machine's own kernel has killed in the container for lack of memory.
    pub fn inner_kills(&self) -> Result<u64> {
        self.hears("measure")?;
        let monitor = Connection::to(self)?;
        monitor.ask(&Ask::Kills(None), &[])?;
        // It answers this itself; one whose machine could not boot hears nobody but `start`.
        let answer = if monitor.has_answered(MEASURING)? { monitor.answered()? } else { None };
        match answer {
            Some(Answer::Kills(kills)) => Ok(kills),
            Some(Answer::Failed(err)) => Err(err),
            Some(other) => Err(other.out_of_place()),
            None => Err(contract::not_running()),
        }
    }

    /// A connection to the machine's monitor.
    fn monitor(&self, act: &str) -> Result<Box<dyn Questions>> {
        self.hears(act)?;
        isolation::hypervisor()?.connect(self)
    }

    /// Refuses where the machine's monitor would hear nothing.
    fn hears(&self, act: &str) -> Result<()> {
        match self.status()? {
            Status::Running | Status::Created => Ok(()),
            Status::Paused => Err(Error::new(
                Kind::State,
                format!("cannot {act} container {:?}: its machine is paused", self.state.id),
            )
            .hint("resume it first")),
            Status::Creating | Status::Stopped => Err(contract::not_running()),
        }
    }

    /// Pids of all processes, in the caller's pid namespace.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match self.cgroup()? {
            Some(cgroup) => cgroup.pids(true),
            None => match self.init() {
                Ok((pid, _)) if self.state.own_pid_namespace => Members::of(pid)?.pids(),
                Ok((pid, _)) => Ok(vec![pid]),
                Err(_) => Ok(Vec::new()),
            },
        }
    }

    /// Changes limits of the running container.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        if self.status()? == Status::Stopped {
            return Err(Error::new(
                Kind::NotRunning,
                format!("cannot update container {:?}: {NOT_RUNNING}", self.state.id),
            ));
        }
        let _lock = self.entry.lock()?;
        let mut config = self.entry.config_json()?;
        let stored: Resources = match config.pointer("/linux/resources") {
            Some(value) => {
                serde_json::from_value(value.clone()).doing(|| "reading the container's resources")?
            }
            None => Resources::default(),
        };
        let mut wanted = complete(resources, &stored);
        let inside = if self.is_vm() {
            let inside = if self.is_in_anothers() {
                split::inner_resources(&std::mem::take(&mut wanted), split::Machine::Anothers)
            } else {
                let hypervisor = isolation::hypervisor()?;
                let inside = split::inner_resources(&wanted, split::Machine::Own);
                wanted = split::outer_resources(&wanted, &|limit| hypervisor.allowance(limit));
                inside
            };
            // Asked for before anything is changed: a paused machine would not hear it.
            (inside != Resources::default())
                .then(|| self.monitor("update"))
                .transpose()?
                .map(|to| (to, inside))
        } else {
            None
        };
        let mut limits = cgroup::plan(&wanted, Purpose::Update)?;
        warn_all(std::mem::take(&mut limits.warnings));
        let cgroup = self.needed_cgroup("update")?;
        let outside = || {
            cgroup
                .update(&limits)
                .map_err(|err| err.context(format_args!("updating container {:?}", self.state.id)))
        };
        match inside {
            None => outside()?,
            Some((monitor, inside)) => {
                let ask = || {
                    monitor.question(&Ask::Update(Box::new(inside))).map(drop).map_err(|err| {
                        err.context(format_args!("updating container {:?} inside", self.state.id))
                    })
                };
                let less = lowered(&stored, &wanted);
                // The machine grows within the host's limit, and gives back before that falls.
                match less {
                    None => outside().and_then(|()| ask())?,
                    Some(limit) => {
                        ask()?;
                        cgroup.await_memory(limit, GIVING_BACK);
                        outside()?;
                    }
                }
            }
        }
        // The next update starts from what holds now.
        let change = serde_json::to_value(resources).doing(|| "encoding the resources")?;
        if let Some(linux) = config.get_mut("linux").and_then(serde_json::Value::as_object_mut) {
            merge(linux.entry("resources").or_insert_with(|| serde_json::json!({})), change);
        }
        self.entry.write(CONFIG, config.to_string().as_bytes())
    }
}

/// The host's limit of memory in `wanted` if it may be below that of `stored`, which is the workload's.
fn lowered(stored: &Resources, wanted: &Resources) -> Option<u64> {
    let limit = |resources: &Resources| {
        resources.memory.and_then(|memory| memory.limit).and_then(|limit| u64::try_from(limit).ok())
    };
    let new = limit(wanted).filter(|new| *new > 0)?;
    let hypervisor = isolation::hypervisor().ok()?;
    let old = limit(stored).filter(|old| *old > 0).map(|old| old + hypervisor.allowance(Some(old)));
    old.is_none_or(|old| new < old).then_some(new)
}

/// Deletes container `id`; with `force` also one that runs, and silently one that is not there.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    let entry = match store.entry(id) {
        Err(err) if err.kind() == Kind::NotFound && force => return Ok(()),
        other => other?,
    };
    if force {
        // A creator that hangs (in a hook, say) holds the lock: end what it waits for first.
        if let Ok(state) = entry.load() {
            let container = Container { entry: store.entry(id)?, state };
            if let Ok(Some(cgroup)) = container.cgroup() {
                let _ = cgroup.kill_all(Signal::SIGKILL);
            }
            container.kill_everything()?;
        }
    }
    let _lock = match entry.lock() {
        Err(err) if err.kind() == Kind::NotFound && force => return Ok(()),
        other => other?,
    };
    let state = match entry.load() {
        Ok(state) => state,
        // Nothing was made before the first record was written; a record that could not be read for
        // want of memory or descriptors still says what was.
        Err(err) if force && err.errno().is_none() => return store.remove(&entry),
        Err(err) => return Err(err),
    };
    let container = Container { entry, state };
    match container.status()? {
        Status::Stopped => {}
        // As runc does and containerd's shim relies on, against the letter of the specification.
        Status::Created => container.kill_everything()?,
        _ if force => container.kill_everything()?,
        status => {
            return Err(Error::new(
                Kind::State,
                format!("cannot delete container {id:?} that is not stopped: {}", status.word()),
            )
            .hint("stop it first, or use --force"));
        }
    }
    container.destroy(store)
}

impl Container {
    /// Deletes a container that has ended, unless somebody else was quicker.
    pub(crate) fn finish(&self, store: &Store) -> Result<()> {
        match self.entry.lock() {
            Err(err) if err.kind() == Kind::NotFound => Ok(()),
            lock => lock.and_then(|_lock| self.destroy(store)),
        }
    }

    /// Removes everything that belongs to a container whose init is gone.
    ///
    /// The caller holds the lock.
    fn destroy(&self, store: &Store) -> Result<()> {
        if self.is_in_anothers() {
            isolation::hypervisor()?.await_absence(self)?;
        }
        match (self.cgroup()?, &self.state.cgroup) {
            (Some(cgroup), _) => cgroup.remove(true, DEATH)?,
            (None, Some(record)) => cgroup::forget(record),
            (None, None) => {}
        }
        if let Some(record) = &self.state.rdt {
            rdt::open_resctrl().and_then(|resctrl| rdt::destroy(record, &resctrl))?;
        }
        // Read before the entry goes, run after everything went, as the specification orders.
        let hooks =
            if self.state.poststop { self.spec()?.hooks.unwrap_or_default().poststop } else { Vec::new() };
        store.remove(&self.entry)?;
        hooks::run_poststop(&hooks, &self.state);
        Ok(())
    }
}

impl Container {
    /// Statistics of its cgroup, as runc's `events` reports them.
    pub fn stats(&self) -> Result<cgroup::stats::Stats> {
        self.needed_cgroup("measure")?.stats()
    }

    /// Changes its resource director schemata.
    pub fn update_rdt(&self, rdt: &crate::spec::IntelRdt) -> Result<()> {
        let Some(plan) = rdt::plan(Some(rdt), &self.state.id)? else { return Ok(()) };
        plan.create(&rdt::open_resctrl()?)
    }

    /// Runs one more process in it; returns the exit code that a shell would see, 0 when detached.
    pub fn exec(&self, request: crate::ExecRequest) -> Result<i32> {
        let done = crate::process::exec::exec(self, request)?;
        warn_all(done.warnings);
        Ok(done.exit.map_or(0, crate::sys::clone::Exit::shell_code))
    }
}

/// Waits for the process of `pidfd` to end, within [`DEATH`].
fn await_exit(pidfd: &OwnedFd) -> nix::Result<bool> {
    let timeout = PollTimeout::try_from(DEATH).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            other => return other.map(|ready| ready > 0),
        }
    }
}

/// A change of limits, with what the kernel wants told together taken from what holds now.
fn complete(change: &Resources, stored: &Resources) -> Resources {
    let mut change = change.clone();
    if let (Some(memory), Some(stored)) = (&mut change.memory, &stored.memory) {
        // `swap` is the sum of both: neither means anything without the other.
        if memory.swap.is_some() && memory.limit.is_none() {
            memory.limit = stored.limit;
        }
    }
    if let (Some(cpu), Some(stored)) = (&mut change.cpu, &stored.cpu) {
        if cpu.period.is_some() && cpu.quota.is_none() {
            cpu.quota = stored.quota;
        }
        if cpu.quota.is_some() && cpu.period.is_none() {
            cpu.period = stored.period;
        }
    }
    change
}

/// Puts the members of `change` into `base`, object by object.
fn merge(base: &mut serde_json::Value, change: serde_json::Value) {
    match (base, change) {
        (serde_json::Value::Object(base), serde_json::Value::Object(change)) => {
            for (key, value) in change {
                merge(base.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, change) => *base = change,
    }
}

/// The name of `uid` in /etc/passwd, or the number; read as a file, as a static binary must.
fn owner_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| uid.to_string())
}
