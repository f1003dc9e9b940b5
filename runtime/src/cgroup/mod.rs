//! The container's cgroup: where it lies, making it, limits, freezing, killing, watching, statistics.
//!
//! Owns one directory below a cgroup2 mount by descriptor, through the kernel alone (`cgroupfs`) or
//! through a systemd scope. It never touches cgroup v1 and never takes over a cgroup in use.
//!
//! The life of a container in calls:
//!
//! ```text
//! let location = Location::resolve(&request, cgroup::own)?;     where (no system call, or one file)
//! let limits   = plan(&resources, Purpose::Create)?;            what (pure; limits.warnings to show)
//! let extra    = Extra::new(&annotations)?;                      org.systemd.property.* (pure)
//! let prepared = cgroup::prepare(mount, &location, &limits, &extra)?;
//!     prepared.fd()          for clone3's CLONE_INTO_CGROUP; None with systemd or without a cgroup
//! let cgroup   = prepared.attach(pid)?;                         systemd makes the scope around pid
//!     cgroup.claim(owner)    signed, so that nobody who had it before acts on it
//!     cgroup.apply(&limits)  all limits and the device program
//!     cgroup.record()        into the state file
//!     cgroup.undo(limit)     where the creation fails after all
//!
//! let cgroup   = Cgroup::open(mount, &record)?;                 None where it is gone or was never
//!     cgroup.update(&limits), freeze, thaw, kill_all, pids, stats, watch, exec_fd, remove
//! ```

mod apply;
mod control;
mod create;
mod device_program;
mod devices;
mod fs;
mod identity;
mod join;
mod path;
mod plan;
mod plan_io;
pub mod stats;
mod systemd;
mod watch;

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use device_program::Outcome as DeviceOutcome;
pub use devices::{Kind as DeviceKind, Policy as DevicePolicy, Rule as DeviceRule};
pub use identity::Identity;
pub use path::{Location, Request, Unit, own_cgroup};
pub use plan::{Limits, OnFailure, Purpose, Value, Write, plan, weight_of_shares};
pub use systemd::Extra;
pub use watch::{Event, MemoryEvents, Watch};

use crate::error::{Context, Error, Result};

/// Where the cgroup2 file system is mounted on every host that locule supports.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// Who makes the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// This process, by mkdir.
    Cgroupfs,
    /// systemd, as a transient scope.
    Systemd {
        /// The user's systemd rather than the system's.
        user: bool,
    },
    /// Nobody: the container stays in the cgroup of the caller.
    Disabled,
}

/// What a later command needs to find the cgroup again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who made it.
    pub manager: Manager,
    /// The path below the mount, beginning with `/`.
    pub path: PathBuf,
    /// The scope, with systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// What tells it from another one there; unknown until it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// A cgroup that is ours.
#[derive(Debug)]
pub struct Cgroup {
    fd: OwnedFd,
    mount: PathBuf,
    record: Record,
    made: Vec<PathBuf>,
}

/// The caller's own cgroup, for [`Location::resolve`].
pub fn own() -> Result<PathBuf> {
    own_cgroup(&std::fs::read_to_string("/proc/self/cgroup").doing(|| "reading /proc/self/cgroup")?)
}

/// What stands ready before the container's first process exists.
#[derive(Debug)]
pub enum Prepared {
    /// An empty cgroup to clone into; removed again if this is dropped.
    Made(Made),
    /// A scope that systemd makes as soon as there is a process for it.
    Scope(Scope),
    /// No cgroup of its own.
    None,
}

/// A new cgroup that still counts as a trial.
#[derive(Debug)]
pub struct Made {
    new: create::New,
    mount: PathBuf,
}

/// A scope to be.
#[derive(Debug)]
pub struct Scope {
    mount: PathBuf,
    user: bool,
    unit: Unit,
    limits: Limits,
    extra: Extra,
}

/// Refuses a place that is in use, to be asked before the place is recorded as the container's.
pub fn refuse_in_use(mount: &Path, location: &Location) -> Result<()> {
    match location.manager {
        // Nobody asked for this one: it is passed over where it is another's.
        Manager::Cgroupfs if location.optional => Ok(()),
        // Where a scope of a user's systemd lies, only that one knows.
        Manager::Cgroupfs | Manager::Systemd { user: false } => create::refuse_in_use(mount, &location.path),
        Manager::Systemd { user: true } | Manager::Disabled => Ok(()),
    }
}

/// Has systemd forget a scope whose cgroup is gone: one that failed would keep its name.
pub fn forget(record: &Record) {
    if let (Manager::Systemd { user }, Some(unit)) = (record.manager, &record.unit) {
        systemd::forget_scope(user, unit);
    }
}

/// Makes what must exist before the container's first process. `extra` matters to systemd alone.
pub fn prepare(mount: &Path, location: &Location, limits: &Limits, extra: &Extra) -> Result<Prepared> {
    let mount_path = mount.to_path_buf();
    match (location.manager, &location.unit) {
        (Manager::Disabled, _) => Ok(Prepared::None),
        (Manager::Systemd { user }, Some(unit)) => {
            fs::open_mount(mount)?;
            let (unit, limits, extra) = (unit.clone(), limits.clone(), extra.clone());
            Ok(Prepared::Scope(Scope { mount: mount_path, user, unit, limits, extra }))
        }
        _ => match create::create(mount, location, limits)? {
            Some(new) => Ok(Prepared::Made(Made { new, mount: mount_path })),
            None => Ok(Prepared::None),
        },
    }
}

impl Prepared {
    /// The directory to clone into. A refusal of clone3 is explained by [`Prepared::join_error`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Prepared::Made(made) => Some(made.new.fd.as_fd()),
            Prepared::Scope(_) | Prepared::None => None,
        }
    }

    /// What it means that clone3 with `CLONE_INTO_CGROUP` failed with `errno`.
    pub fn join_error(&self, errno: Errno) -> Error {
        match self {
            Prepared::Made(made) => join::join_error(errno, &made.new.path),
            _ => Error::sys(errno, "starting the container's process"),
        }
    }

    /// Removes it again, with whatever was born in it.
    pub fn discard(self, limit: Duration) {
        if let Prepared::Made(Made { new, mount }) = self {
            let record = Record { manager: Manager::Cgroupfs, path: new.path, unit: None, identity: None };
            Cgroup { fd: new.fd, mount, record, made: new.made.keep() }.undo(limit);
        }
    }

    /// The cgroup with `pid` in it: there already after `CLONE_INTO_CGROUP`, put there by systemd
    /// otherwise. The limits are for [`Cgroup::apply`] to make.
    pub fn attach(self, pid: i32) -> Result<Option<Cgroup>> {
        match self {
            Prepared::None => Ok(None),
            Prepared::Made(Made { new, mount }) => {
                let record =
                    Record { manager: Manager::Cgroupfs, path: new.path, unit: None, identity: None };
                Ok(Some(Cgroup { fd: new.fd, mount, record, made: new.made.keep() }))
            }
            Prepared::Scope(scope) => scope.start(pid).map(Some),
        }
    }
}

impl Scope {
    fn start(self, pid: i32) -> Result<Cgroup> {
        let Scope { mount, user, unit, limits, extra } = self;
        systemd::start_scope(user, &unit, pid, &limits, &extra)?;
        // Where a scope lies only its systemd knows (the user's has a prefix of its own); the
        // process in it tells.
        let found = join::cgroup_of(pid)?;
        if found.file_name() != Some(unit.scope.as_ref()) {
            let text = format!("process {pid} is in cgroup {} and not in {}", found.display(), unit.scope);
            let _ = systemd::stop_scope(user, &unit);
            return Err(Error::new(crate::Kind::System, text).hint("did it end, or was it moved meanwhile?"));
        }
        let unit_of = unit.clone();
        let record =
            Record { manager: Manager::Systemd { user }, path: found, unit: Some(unit), identity: None };
        let cgroup = Cgroup::open(&mount, &record)?.ok_or_else(|| {
            Error::new(crate::Kind::System, format!("cgroup {} is gone", record.path.display()))
        })?;
        // A cgroup that was there before and is frozen would hold the container's init forever.
        if fs::read(&cgroup, "cgroup.freeze").is_ok_and(|text| text.trim() == "1") {
            let refusal = create::frozen(cgroup.path());
            let _ = fs::write(&cgroup, "cgroup.kill", "1");
            let _ = systemd::stop_scope(user, &unit_of);
            return Err(refusal);
        }
        if !user {
            // systemd hands on what it manages itself, and knows no hugetlb, rdma and misc.
            let root = fs::open_mount(&mount)?;
            create::enable_controllers(root.as_fd(), cgroup.as_fd(), cgroup.path(), &Limits::default())?;
        }
        Ok(cgroup)
    }
}

impl Cgroup {
    /// The cgroup of `record`; `None` where the container has none, or it is gone or another's by now.
    pub fn open(mount: &Path, record: &Record) -> Result<Option<Cgroup>> {
        if record.manager == Manager::Disabled {
            return Ok(None);
        }
        let root = fs::open_mount(mount)?;
        let fd = match fs::open_dir(root.as_fd(), &record.path) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(None),
            Err(errno) => return Err(Error::sys(errno, format!("opening cgroup {}", record.path.display()))),
        };
        if let Some(identity) = &record.identity {
            match identity.fits(fd.as_fd()) {
                Ok(true) => {}
                // Removed since it was opened, or another's.
                Ok(false) | Err(Errno::ENODEV) => return Ok(None),
                Err(errno) => {
                    return Err(Error::sys(errno, format!("looking at cgroup {}", record.path.display())));
                }
            }
        }
        Ok(Some(Cgroup { fd, mount: mount.to_path_buf(), record: record.clone(), made: Vec::new() }))
    }

    /// What a later command needs to find it again.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The path below the mount.
    pub fn path(&self) -> &Path {
        &self.record.path
    }

    /// Makes all limits of a plan for [`Purpose::Create`].
    pub fn apply(&self, limits: &Limits) -> Result<()> {
        if let Some(policy) = &limits.devices {
            match device_program::attach(self.as_fd(), policy) {
                // As runc: a user may load no programs, and the host's rules hold.
                Err(err) if err.errno() == Some(Errno::EPERM) && unprivileged() => {}
                other => {
                    other?;
                }
            }
        }
        apply::write_all(self.as_fd(), self.path(), &self.as_kept(limits).writes)
    }

    /// The limits with what systemd would make of them, so that the files and the unit say the same: it writes its
    /// own values whenever it writes the unit's limits again.
    fn as_kept<'a>(&self, limits: &'a Limits) -> Cow<'a, Limits> {
        let at = |file: &str| limits.writes.iter().position(|write| write.file == file);
        if self.unit().is_none() || (at("cpu.max"), at("cpu.weight")) == (None, None) {
            return Cow::Borrowed(limits);
        }
        let mut kept = limits.clone();
        if let (Some(at), Ok(present)) = (at("cpu.max"), fs::read(self, "cpu.max")) {
            systemd::round_quota(&mut kept.writes[at].value, &present);
        }
        if let (Some(at), None) = (at("cpu.weight"), at("cpu.idle"))
            && fs::read(self, "cpu.idle").is_ok_and(|text| text.trim() == "1")
        {
            // The kernel refuses a weight then; systemd takes it for the end of idleness.
            kept.writes.insert(at, plan::Write::new("cpu.idle", 0));
        }
        Cow::Owned(kept)
    }

    /// Waits until the cgroup uses at most `limit` bytes of memory, at most as long as `patience`. Nothing tells of it.
    pub fn await_memory(&self, limit: u64, patience: Duration) {
        let end = Instant::now() + patience;
        while fs::read_number(self.as_fd(), "memory.current").is_ok_and(|usage| usage > limit)
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes the changes of a plan for [`Purpose::Update`].
    pub fn update(&self, limits: &Limits) -> Result<()> {
        let limits = &*self.as_kept(limits);
        // The files first: lowering memory without a kill is done there. Then systemd, which would
        // put its own values back some day; then what systemd does not know.
        apply::change_all(self.as_fd(), self.path(), &limits.writes, limits.check_memory)?;
        if let Some((user, unit)) = self.unit() {
            systemd::set_limits(user, unit, limits)?;
            apply::write_all(self.as_fd(), self.path(), &limits.writes)?;
        }
        if let Some(policy) = &limits.devices {
            match device_program::update(self.as_fd(), policy) {
                Err(err) if err.errno() == Some(Errno::EPERM) && unprivileged() => {}
                other => {
                    other?;
                }
            }
        }
        Ok(())
    }

    /// Ends what was born for a container that failed, and removes what was made for it: nothing else. A cgroup that
    /// was there before stays.
    pub fn undo(self, limit: Duration) {
        if self.unit().is_some() || self.made.iter().any(|made| made == self.path()) {
            let _ = self.remove(true, limit);
        } else {
            let ended = self
                .kill_all(nix::sys::signal::Signal::SIGKILL)
                .and_then(|()| self.wait(limit, |events| !events.populated));
            // Nobody is left to be told; what stays behind is seen in the cgroup.
            drop(ended);
        }
        if let Ok(root) = fs::open_mount(&self.mount) {
            create::undo(root.as_fd(), &self.made);
        }
    }

    fn unit(&self) -> Option<(bool, &Unit)> {
        match (self.record.manager, &self.record.unit) {
            (Manager::Systemd { user }, Some(unit)) => Some((user, unit)),
            _ => None,
        }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether this process is no root, or in a user namespace other than the host's.
fn unprivileged() -> bool {
    // The initial one maps all ids onto themselves.
    !nix::unistd::geteuid().is_root()
        || std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
}
