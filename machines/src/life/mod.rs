//! A machine's life: made, started, stopped, removed, and how it fares.
//!
//! Owns the order of acts and what undoes each. What a killed call left is found again from the machine's directories
//! by the next one: a machine without a definition is none, a claim that no state names is free, a container without a
//! keeper is cleaned before it is made again.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use locule_images::rootfs::Map;
use locule_runtime::rootfs::Root;
use locule_runtime::sys::clone::pidfd_open;
use locule_runtime::{Container, Status as ContainerStatus, Store, cgroup};
use nix::errno::Errno;

use crate::keeper::record::{EXIT, Ended, KEEPER, Keeper, Phase};
use crate::state::State;
use crate::{Context, Definition, Error, Home, Kind, Machine, Result, bundle, file, root, wiring};

mod ask;
mod begin;
mod deaf;
mod end;
mod make;

pub use ask::ask;
pub use begin::{Prepared, Wishes, prepare};
use end::ends;
pub use end::{forget_stop, halt, is_stop_asked, stop, stop_signal_of};
pub use make::{create, make, remove, rename, scrap};

/// Where a machine's own numbers are, in its runtime directory.
pub const VIEW: &str = "view";
/// How long a machine has to end unless its definition says otherwise.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a container may be without its record while it is deleted.
const DELETION: Duration = Duration::from_secs(2);

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

fn is_alive(status: ContainerStatus) -> bool {
    status != ContainerStatus::Stopped
}

/// The state root of the machines' containers; `None` where none was made since boot.
pub fn store(home: &Home) -> Result<Option<Store>> {
    match Store::open(home.run()) {
        Ok(store) => Ok(Some(store)),
        Err(err) if err.errno() == Some(Errno::ENOENT) => Ok(None),
        Err(err) => Err(err),
    }
}

/// The container of a machine, if there is one.
pub fn container(home: &Home, machine: &Machine) -> Result<Option<Container>> {
    container_in(store(home)?.as_ref(), machine)
}

fn container_in(store: Option<&Store>, machine: &Machine) -> Result<Option<Container>> {
    let Some(store) = store else { return Ok(None) };
    let until = Instant::now() + DELETION;
    loop {
        match store.load(machine.name()) {
            Ok(container) => return Ok(Some(container)),
            Err(err) if err.kind() == Kind::NotFound => return Ok(None),
            // Without its record it is what a killed creation left, or what its keeper is deleting right now.
            Err(err) if err.kind() == Kind::State && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(err) => return Err(err),
        }
    }
}

/// A machine as it fares, and by what that is known.
#[derive(Debug)]
pub struct Seen {
    /// How it fares.
    pub status: Status,
    /// What its keeper says, or said before it ended.
    pub keeper: Option<Keeper>,
    /// Its container.
    pub container: Option<Container>,
}

/// How the machine fares now. Takes no lock.
pub fn status(home: &Home, machine: &Machine) -> Result<Status> {
    look(store(home)?.as_ref(), machine).map(|seen| seen.status)
}

/// The same with all that it is known by; `store` is [`store`]'s, which many machines share.
pub fn look(store: Option<&Store>, machine: &Machine) -> Result<Seen> {
    let keeper = Keeper::read(machine);
    let living = keeper.as_ref().filter(|keeper| keeper.keeper.alive());
    let stopping = living.is_some_and(|keeper| keeper.phase == Phase::Stopping);
    let container = match container_in(store, machine) {
        Err(_) if stopping => None,
        other => other?,
    };
    let status = match container.as_ref().map(Container::status) {
        _ if stopping => Status::Stopping,
        Some(Err(err)) => return Err(err),
        Some(Ok(ContainerStatus::Running)) => Status::Running,
        Some(Ok(ContainerStatus::Paused)) => Status::Paused,
        _ if living.is_some() => Status::Starting,
        _ => match Ended::read(machine) {
            Some(ended) if !ended.stopped && ended.failed() => Status::Failed { exit: ended.shell_code() },
            _ => Status::Stopped,
        },
    };
    Ok(Seen { status, keeper, container })
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
