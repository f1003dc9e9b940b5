//! A machine's life: made, started, stopped, removed, and how it fares.
//!
//! Owns the order of acts and what undoes each. What a killed call left is found again from the machine's directories
//! by the next one: a machine without a definition is none, a claim that no state names is free, a container without a
//! keeper is cleaned before it is made again.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use locule_images::host;
use locule_images::rootfs::Map;
use locule_runtime::process::seal::Seal;
use locule_runtime::rootfs::Root;
use locule_runtime::spec::Mount;
use locule_runtime::sys::clone::{pidfd_open, pidfd_signal};
use locule_runtime::{Container, CreateRequest, Status as ContainerStatus, Store, cgroup, signals};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bundle::{self, Init, Input, Names, Wiring};
use crate::keeper::record::{EXIT, Ended, KEEPER, Keeper, Phase};
use crate::state::State;
use crate::{
    Context, Definition, Error, Home, Kind, Machine, Result, claims, events, file, lift, lock, root, visible,
    wiring,
};

/// Where a machine's own numbers are, in its runtime directory.
pub const VIEW: &str = "view";
/// How long a machine has to end unless its definition says otherwise.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(90);

/// How a machine fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does not run.
    Stopped,
    /// It is being started, or waits to be started again.
    Starting,
    /// Its first process runs.
    Running,
    /// It is frozen.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It ended with this exit code, which is not 0.
    Failed {
        /// As a shell would show it.
        exit: i32,
    },
}

impl Status {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Stopped => "stopped",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopping => "stopping",
            Status::Failed { .. } => "failed",
        }
    }

    /// Whether nothing of it runs.
    pub fn is_down(self) -> bool {
        matches!(self, Status::Stopped | Status::Failed { .. })
    }
}

/// The container of a machine, if there is one.
pub fn container(home: &Home, machine: &Machine) -> Result<Option<Container>> {
    let store = match Store::open(home.run()) {
        Ok(store) => store,
        Err(err) if err.errno() == Some(Errno::ENOENT) => return Ok(None),
        Err(err) => return Err(err),
    };
    match store.load(machine.name()) {
        Ok(container) => Ok(Some(container)),
        Err(err) if err.kind() == Kind::NotFound => Ok(None),
        Err(err) => Err(err),
    }
}

/// How the machine fares now. Takes no lock.
pub fn status(home: &Home, machine: &Machine) -> Result<Status> {
    let keeper = Keeper::living(machine);
    if let Some(Phase::Stopping) = keeper.as_ref().map(|keeper| keeper.phase) {
        return Ok(Status::Stopping);
    }
    let container = container(home, machine)?;
    match container.as_ref().map(Container::status).transpose()? {
        Some(ContainerStatus::Running) => return Ok(Status::Running),
        Some(ContainerStatus::Paused) => return Ok(Status::Paused),
        _ => {}
    }
    if keeper.is_some() {
        return Ok(Status::Starting);
    }
    Ok(match Ended::read(machine) {
        Some(ended) if !ended.stopped && ended.failed() => Status::Failed { exit: ended.shell_code() },
        _ => Status::Stopped,
    })
}

/// Makes a machine of its image.
pub fn create(home: &Home, name: &str, definition: &Definition, text: &str) -> Result<Machine> {
    make(home, name, "launch", definition, text, |machine, map| {
        check(home, definition)?;
        root::create(home, machine, definition, map)
    })
}

/// Makes a machine for the act `act`: its directory, its ids, by `fill` its root file system, and last its
/// definition, which makes it one.
pub fn make(
    home: &Home,
    name: &str,
    act: &str,
    definition: &Definition,
    text: &str,
    fill: impl FnOnce(&Machine, Option<Map>) -> Result<()>,
) -> Result<Machine> {
    let machine = home.machine(name)?;
    let _lock = machine.lock(act)?;
    if machine.exists() {
        return Err(Error::new(Kind::Exists, format!("there is a machine {name:?}"))
            .hint("choose another name, or remove it: locule rm"));
    }
    // A container that an engine made has the name as well.
    if container(home, &machine)?.is_some_and(|container| container.status().is_ok_and(is_alive)) {
        return Err(
            Error::new(Kind::Exists, format!("there is a container {name:?}")).hint("choose another name")
        );
    }
    if let Err(err) = check(home, definition).and_then(|()| scrap(home, &machine)) {
        if !machine.dir().exists() {
            let _ = fs::remove_dir_all(machine.run());
        }
        return Err(err);
    }
    let act = || {
        lock::make_private(machine.dir())?;
        let mut state = State::new()?;
        let map = match definition.privileged {
            true => None,
            false => Some(claims::take_ids(home, &machine, &mut state)?),
        };
        state.save(machine.dir())?;
        fill(&machine, map)?;
        file::write_whole(&machine.dir().join(crate::definition::FILE), text.as_bytes())?;
        file::sync_dir(&home.machines())
    };
    match act() {
        Ok(()) => {
            events::tell(home.run(), name, "create", &[("image", definition.image.clone())]);
            Ok(machine)
        }
        Err(err) => {
            // Its own failure would hide the reason; the next call finds what is left.
            let _ = scrap(home, &machine);
            let _ = fs::remove_dir_all(machine.run());
            Err(err.context(format_args!("making machine {name}")))
        }
    }
}

fn is_alive(status: ContainerStatus) -> bool {
    status != ContainerStatus::Stopped
}

/// Refuses a definition that could never start, before anything is made.
fn check(home: &Home, definition: &Definition) -> Result<()> {
    if definition.image.is_empty() {
        return Err(Error::invalid("image is missing: name one, or host"));
    }
    match definition.image.as_str() {
        host::NAME => Ok(()),
        image => home.images()?.find(image).map(drop).map_err(lift),
    }
}

/// Removes everything that a machine without a definition has.
pub fn scrap(home: &Home, machine: &Machine) -> Result<()> {
    if !machine.dir().exists() {
        return Ok(());
    }
    let map = State::load(machine.dir()).ok().and_then(|state| state.map);
    root::remove(home, machine)?;
    if let Some(map) = map {
        claims::release_ids(home, map)?;
    }
    let doing = || format!("removing {}", machine.dir().display());
    match fs::remove_dir_all(machine.dir()) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err).doing(doing),
        _ => {}
    }
    file::sync_dir(&home.machines())
}

/// Removes a machine with everything that it has; with `force` also one that runs.
pub fn remove(home: &Home, name: &str, force: bool) -> Result<()> {
    let machine = home.machine(name)?;
    if !machine.exists() && !machine.dir().exists() {
        return home.find(name).map(drop);
    }
    // A definition that cannot be read protects nothing, and must not be in the way of the machine's end.
    if machine.definition().is_ok_and(|definition| definition.protected) {
        return Err(Error::new(Kind::State, format!("machine {name} is protected"))
            .hint(format!("locule set {name} protected=off")));
    }
    if !status(home, &machine)?.is_down() {
        if !force {
            return Err(Error::new(
                Kind::State,
                format!("machine {name} is {}", status(home, &machine)?.word()),
            )
            .hint("stop it first, or use --force"));
        }
        stop(home, &machine, Some(Duration::ZERO))?;
    }
    let _lock = machine.lock("rm")?;
    if !status(home, &machine)?.is_down() {
        return Err(
            Error::new(Kind::State, format!("machine {name} was started meanwhile")).hint("stop it first")
        );
    }
    clean(home, &machine)?;
    // From here on it is no machine any more, whatever happens.
    file::remove(&machine.dir().join(crate::definition::FILE))?;
    scrap(home, &machine)?;
    events::tell(home.run(), name, "remove", &[]);
    // The lock's directory goes last; who waits for the lock then finds no machine.
    let _ = fs::remove_dir_all(machine.run());
    Ok(())
}

/// Gives a machine that does not run another name.
pub fn rename(home: &Home, old: &str, new: &str) -> Result<()> {
    let machine = home.find(old)?;
    let other = home.machine(new)?;
    // Both names are taken for the time, always in the same order.
    let (first, second) = if old < new { (&machine, &other) } else { (&other, &machine) };
    let _first = first.lock("rename")?;
    let _second = second.lock("rename")?;
    let taken = || {
        Error::new(Kind::Exists, format!("there is a machine or container {new:?}"))
            .hint("choose another name")
    };
    if other.exists() || container(home, &other)?.is_some() {
        return Err(taken());
    }
    if !status(home, &machine)?.is_down() {
        return Err(Error::new(Kind::State, format!("machine {old} runs")).hint("stop it first"));
    }
    clean(home, &machine)?;
    scrap(home, &other)?;
    root::renaming(home, &machine, &other)?;
    let doing = || format!("renaming machine {old} to {new}");
    match nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        machine.dir(),
        nix::fcntl::AT_FDCWD,
        other.dir(),
        nix::fcntl::RenameFlags::RENAME_NOREPLACE,
    ) {
        Err(Errno::EEXIST) => return Err(taken()),
        done => done.doing(doing)?,
    }
    file::sync_dir(&home.machines())?;
    root::renamed(home, &machine, &other)?;
    claims::renamed(home, &other)?;
    let _ = fs::remove_dir_all(machine.run());
    Ok(())
}

/// What the keeper wants of the container to be.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Its cgroup, below the cgroup2 mount.
    pub cgroup: String,
    /// Where the master of its terminal goes, should it have one.
    pub console_socket: Option<PathBuf>,
    /// Mounts beside its own.
    pub mounts: Vec<Mount>,
    /// Environment beside its own, as `KEY=value`.
    pub env: Vec<String>,
}

/// A machine that is ready to be created as a container.
#[derive(Debug)]
pub struct Prepared {
    /// For `locule_runtime`.
    pub request: CreateRequest,
    /// Its first process.
    pub init: Init,
    /// The number of the signal that asks it to end.
    pub stop_signal: i32,
}

/// Mounts the root file system and writes the bundle. The caller holds the lock; `clean` undoes it.
pub fn prepare(
    home: &Home,
    machine: &Machine,
    definition: &Definition,
    wishes: Wishes,
    seal: Seal,
) -> Result<Prepared> {
    let state = machine.state()?;
    if definition.disabled {
        return Err(Error::new(Kind::State, format!("machine {} is disabled", machine.name()))
            .hint(format!("locule set {} disabled=off", machine.name())));
    }
    clean(home, machine)?;
    file::remove(&machine.run().join(EXIT))?;
    Store::create_root(home.run(), false)?;
    let group = Path::new(cgroup::MOUNT).join(wishes.cgroup.trim_start_matches('/'));
    let prepared = bundle_of(home, machine, definition, &state, wishes, seal);
    prepared.inspect_err(|_| {
        let _ = clean(home, machine);
        // Made for its pressure to be seen; an empty one only can go.
        let _ = fs::remove_dir(group);
    })
}

fn bundle_of(
    home: &Home,
    machine: &Machine,
    definition: &Definition,
    state: &State,
    wishes: Wishes,
    seal: Seal,
) -> Result<Prepared> {
    let image = root::config(home, machine)?;
    let map = if definition.privileged { None } else { state.map };
    root::mount(home, machine, definition, map)?;
    let place = root::place(machine);
    let opened =
        fs::File::open(&place).map(OwnedFd::from).doing(|| format!("opening {}", place.display()))?;
    let bundle = machine.run().join("bundle");
    write_host(&bundle.join("host"), state)?;
    let hostname = definition.hostname.as_deref().unwrap_or(machine.name());
    locule_runtime::state::write_atomic(&bundle.join("hostname"), format!("{hostname}\n").as_bytes())?;
    let names = match bundle::wiring(definition)? {
        Wiring::Own => wiring::names(home, machine, definition)?,
        Wiring::Host => Names { hosts: None, resolv: Some("/etc/resolv.conf".into()) },
    };
    let group = Path::new(cgroup::MOUNT).join(wishes.cgroup.trim_start_matches('/'));
    let mut extra = match definition.isolation {
        crate::definition::Isolation::Namespaces => {
            visible::prepare(&machine.run().join(VIEW), definition, &group)?
        }
        // A kernel of its own has numbers of its own.
        crate::definition::Isolation::Vm => Vec::new(),
    };
    extra.extend(wishes.mounts);
    let input = Input {
        name: machine.name(),
        definition,
        image: &image,
        state,
        root: &Root::new(opened),
        rootfs: &place,
        bundle: &bundle,
        cgroup: &wishes.cgroup,
        resources: crate::limits::resources(definition, crate::limits::disk_of(&place, machine.dir())?)?,
        names,
        extra,
    };
    let (mut spec, init) = bundle::build(&input)?;
    let stop_signal = signals::parse(&init.stop_signal)
        .map_err(|err| err.context(format_args!("machine {}: init.stop-signal", machine.name())))?;
    if let Some(process) = &mut spec.process {
        process.env.extend(wishes.env);
    }
    let text = serde_json::to_vec(&spec).doing(|| "writing the bundle's document")?;
    locule_runtime::state::write_atomic(&bundle.join("config.json"), &text)?;
    let request = CreateRequest {
        id: machine.name().to_owned(),
        bundle,
        pid_file: None,
        pidfd_socket: None,
        console_socket: wishes.console_socket.filter(|_| init.terminal),
        preserved: Vec::new(),
        no_pivot: false,
        no_new_keyring: false,
        manager: cgroup::Manager::Cgroupfs,
        rootless: false,
        isolation: Some(match definition.isolation {
            crate::definition::Isolation::Namespaces => locule_runtime::Isolation::Namespaces,
            crate::definition::Isolation::Vm => locule_runtime::Isolation::Vm,
        }),
        seal,
    };
    Ok(Prepared { request, init, stop_signal })
}

/// What a system finds in /run/host (systemd.io, container interface).
fn write_host(dir: &Path, state: &State) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // The second is where the keeper's socket is bound.
    for name in ["incoming", "notify.d"] {
        fs::create_dir_all(dir.join(name)).doing(|| format!("making {}", dir.display()))?;
    }
    let readable = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .doing(|| format!("making {}", path.display()))
    };
    readable(dir, 0o755)?;
    let release =
        fs::read("/etc/os-release").or_else(|_| fs::read("/usr/lib/os-release")).unwrap_or_default();
    let files: [(&str, &[u8]); 3] = [
        ("container-manager", b"locule\n"),
        ("container-uuid", state.uuid.as_bytes()),
        ("os-release", &release),
    ];
    for (name, bytes) in files {
        let path = dir.join(name);
        locule_runtime::state::write_atomic(&path, bytes)?;
        readable(&path, 0o644)?;
    }
    Ok(())
}

/// Attaches the networks of a created container, whose init is `pid`.
pub fn connect(home: &Home, machine: &Machine, definition: &Definition, pid: i32) -> Result<()> {
    wiring::connect(home, machine, definition, pid)
}

/// Takes away what the last run left: the container, its networks, its mounts. What is not there is fine.
pub fn clean(home: &Home, machine: &Machine) -> Result<()> {
    if let Ok(store) = Store::open(home.run()) {
        locule_runtime::delete(&store, machine.name(), true)?;
    }
    // Of a start that was killed before its container was made; an empty one only can go.
    let _ = fs::remove_dir(Path::new(cgroup::MOUNT).join("locule").join(machine.name()));
    wiring::disconnect(home, machine)?;
    root::unmount(machine)
}

/// Whether the machine's owner asked for its end since it was started.
pub fn is_stop_asked(machine: &Machine) -> bool {
    machine.run().join(STOP).exists()
}

/// Tells the keeper that an end is what the owner wants.
const STOP: &str = "stop";

/// Forgets that an end was asked for: it starts anew.
pub fn forget_stop(machine: &Machine) -> Result<()> {
    file::remove(&machine.run().join(STOP))
}

/// Stops a machine: its init is asked to, and killed after `timeout` (the definition's, unless given).
///
/// Returns once nothing of it is left; false if it did not run.
pub fn stop(home: &Home, machine: &Machine, timeout: Option<Duration>) -> Result<bool> {
    let _lock = machine.lock("stop")?;
    let timeout = timeout.unwrap_or_else(|| {
        let own = machine.definition().ok().and_then(|definition| definition.init.stop_timeout);
        own.map_or(STOP_TIMEOUT, |span| span.0)
    });
    // One whose keeper died gets another, which writes down how it ended.
    if Keeper::living(machine).is_none()
        && container(home, machine)?.is_some_and(|container| container.status().is_ok_and(is_alive))
        && let Err(err) = crate::keeper::spawn(home, machine)
    {
        locule_runtime::warn::warn(format!("{err}; stopping it without a keeper"));
    }
    let keeper = Keeper::living(machine);
    if let Some(keeper) = &keeper {
        ask_keeper(home, machine, keeper, timeout)?;
    }
    // There was none, or it died over it.
    let Some(left) = container(home, machine)? else { return Ok(keeper.is_some()) };
    let ran = left.status().is_ok_and(is_alive);
    halt(&left, stop_signal_of(home, machine, &left), timeout)?;
    clean(home, machine)?;
    Ok(ran || keeper.is_some())
}

/// Has the keeper end its machine, and itself.
fn ask_keeper(home: &Home, machine: &Machine, keeper: &Keeper, timeout: Duration) -> Result<()> {
    lock::make_private(machine.run())?;
    let mark = machine.run().join(STOP);
    let text = format!("{}\n", timeout.as_millis());
    locule_runtime::state::write_atomic(&mark, text.as_bytes())?;
    let doing = || format!("stopping the keeper of machine {}", machine.name());
    let pidfd = match pidfd_open(keeper.keeper.pid) {
        // Only now is the number pinned.
        Ok(pidfd) if keeper.keeper.alive() => pidfd,
        Ok(_) | Err(Errno::ESRCH) => return Ok(()),
        Err(errno) => return Err(errno).doing(doing),
    };
    match pidfd_signal(&pidfd, libc::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno).doing(doing),
    }
    if !ends(&pidfd, timeout).doing(doing)? {
        if let Some(container) = container(home, machine)? {
            container.kill(libc::SIGKILL, true)?;
        }
        if !ends(&pidfd, Duration::from_secs(30)).doing(doing)? {
            return Err(Error::new(Kind::System, format!("{}: it does not end", doing()))
                .hint(format!("kill it (pid {}), then locule repair", keeper.keeper.pid)));
        }
    }
    Ok(())
}

/// The signal of a container whose keeper is gone, by what was written at its start.
pub fn stop_signal_of(home: &Home, machine: &Machine, container: &Container) -> i32 {
    let definition = machine.definition().unwrap_or_default();
    let wanted = definition.init.stop_signal.clone().or_else(|| {
        let image = root::config(home, machine).ok()?;
        image.stop_signal
    });
    let program =
        container.spec().ok().and_then(|spec| spec.process?.args.first().cloned()).unwrap_or_default();
    let kind = fs::File::open(root::place(machine))
        .map(|root| bundle::kind(&Root::new(OwnedFd::from(root)), &program))
        .unwrap_or(bundle::InitKind::Plain);
    signals::parse(wanted.as_deref().unwrap_or(kind.stop_signal())).unwrap_or(libc::SIGTERM)
}

/// Asks a container's init to end by `signal`; kills all of it after `timeout`. Returns once init is gone.
pub fn halt(container: &Container, signal: i32, timeout: Duration) -> Result<()> {
    let Ok((_, pidfd)) = container.init() else { return Ok(()) };
    let doing = || format!("stopping {}", container.id());
    if !timeout.is_zero() {
        match pidfd_signal(&pidfd, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        if ends(&pidfd, timeout).doing(doing)? {
            return Ok(());
        }
    }
    container.kill(libc::SIGKILL, true)?;
    ends(&pidfd, Duration::from_secs(30)).doing(doing).map(drop)
}

/// Waits for a process to end.
fn ends(pidfd: &OwnedFd, limit: Duration) -> nix::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_millis();
        let left = PollTimeout::try_from(left.min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) if Instant::now() < until => {}
            Err(Errno::EINTR) => {}
            other => return other.map(|ready| ready > 0),
        }
    }
}

/// Starts a machine in the background, and returns when it runs.
///
/// False if it ran already.
pub fn start(home: &Home, machine: &Machine) -> Result<bool> {
    match status(home, machine)? {
        Status::Running | Status::Paused if Keeper::living(machine).is_some() => return Ok(false),
        // One whose keeper died gets another.
        Status::Running | Status::Paused => return crate::keeper::spawn(home, machine).map(|()| false),
        Status::Stopping => {
            // What ends is waited for; its keeper says so by ending.
            if let Some(pidfd) = Keeper::living(machine).and_then(|keeper| pidfd_open(keeper.keeper.pid).ok())
            {
                let _ = ends(&pidfd, STOP_TIMEOUT);
            }
        }
        Status::Starting => {
            return Err(Error::new(Kind::State, format!("machine {} is being started", machine.name())));
        }
        Status::Stopped | Status::Failed { .. } => {}
    }
    crate::keeper::spawn(home, machine)?;
    Ok(true)
}

/// What of the runtime directory tells of a keeper that is gone.
pub fn forget_keeper(machine: &Machine) -> Result<()> {
    file::remove(&machine.run().join(KEEPER))
}

/// The map of a machine's ids.
pub fn map_of(definition: &Definition, state: &State) -> Option<Map> {
    if definition.privileged { None } else { state.map }
}

/// Whether the machine was started since the host booted.
pub fn has_run(machine: &Machine) -> bool {
    machine.run().join(EXIT).exists()
}

/// Whether its root file system is mounted.
pub fn is_mounted(machine: &Machine) -> bool {
    root::is_mounted(machine)
}

/// The container of a machine that runs.
pub fn running(home: &Home, machine: &Machine) -> Result<Container> {
    match container(home, machine)? {
        Some(container) if status(home, machine)? == Status::Running => Ok(container),
        _ => Err(Error::new(
            Kind::NotRunning,
            format!("machine {} is {}", machine.name(), status(home, machine)?.word()),
        )
        .hint(format!("locule start {}", machine.name()))),
    }
}

/// How a user logs in to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name, or its number where it has none.
    pub name: String,
    /// Ids.
    pub user: locule_runtime::spec::User,
    /// Home directory.
    pub home: String,
    /// The shell.
    pub shell: String,
}

/// How `user` logs in to a running machine, by its own files.
pub fn login(machine: &Machine, user: &str) -> Result<Login> {
    let place = root::place(machine);
    let root = fs::File::open(&place).map(OwnedFd::from).doing(|| format!("opening {}", place.display()))?;
    bundle::login(&Root::new(root), user)
}

/// Removes the runtime directory of a machine that is none any more.
pub fn forget_run(machine: &Machine) -> Result<()> {
    fs::remove_dir_all(machine.run()).doing(|| format!("removing {}", machine.run().display()))
}
