//! Making a cgroup: its directories, the controllers on the way, and undoing it all.
//!
//! It never takes over a cgroup in use and never removes a directory that it did not make.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, unlinkat};

use super::fs;
use super::path::Location;
use super::plan::Limits;
use crate::error::{Context, Error, Kind, Result};

const DIR_MODE: Mode = Mode::from_bits_truncate(0o755);

/// Directories made; removed again when dropped, the deepest first.
#[derive(Debug)]
pub(super) struct Made {
    root: OwnedFd,
    paths: Vec<PathBuf>,
}

impl Made {
    /// Keeps what was made, and says what it was.
    pub(super) fn keep(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.paths)
    }

    fn mkdir(&mut self, path: &Path) -> nix::Result<()> {
        mkdirat(&self.root, fs::relative(path), DIR_MODE)?;
        self.paths.push(path.to_path_buf());
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        undo(self.root.as_fd(), &self.paths);
    }
}

/// Removes directories made for a container that failed. Another container may use them by now;
/// then the kernel refuses, and they stay.
pub(super) fn undo(root: BorrowedFd<'_>, paths: &[PathBuf]) {
    for path in paths.iter().rev() {
        let _ = unlinkat(root, fs::relative(path), UnlinkatFlags::RemoveDir);
    }
}

/// A new cgroup and what was made for it.
#[derive(Debug)]
pub(super) struct New {
    pub fd: OwnedFd,
    pub path: PathBuf,
    pub made: Made,
}

/// Makes the cgroup at `location`. `None` where it cannot be made and need not be.
pub(super) fn create(mount: &Path, location: &Location, limits: &Limits) -> Result<Option<New>> {
    match fs::open_mount(mount) {
        Err(_) if location.optional && !limits.any() => return Ok(None),
        other => drop(other?),
    }
    let mut refusal = None;
    for path in std::iter::once(&location.path).chain(&location.alternatives) {
        match create_at(fs::open_mount(mount)?, path, limits) {
            Ok(new) => return Ok(Some(new)),
            Err(err) => {
                // Without an errno: another's cgroup of that name is in use.
                let denied = matches!(err.errno(), None | Some(Errno::EACCES | Errno::EPERM | Errno::EROFS));
                // The first refusal says most; anything but a lack of rights is not passed over.
                let first = refusal.get_or_insert_with(|| err.clone());
                if !denied {
                    return Err(if location.optional { first.clone() } else { err });
                }
            }
        }
    }
    match refusal {
        Some(err) if location.optional && limits.any() => Err(err.hint(
            "limits need a cgroup that the user may write: run under systemd-run --user --scope -p Delegate=yes, \
             use --systemd-cgroup, or ask for no limits",
        )),
        Some(err) if !location.optional => Err(err),
        _ => Ok(None),
    }
}

/// Refuses a place where processes run, or that is frozen, before anything records it as the container's: from a
/// record, however the creation ended, a forced deletion takes the right to kill what is there.
pub(super) fn refuse_in_use(mount: &Path, path: &Path) -> Result<()> {
    // Mostly it is not there yet; whatever else is wrong with it is for the one who makes it to say.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let Ok(dir) = nix::fcntl::open(&mount.join(fs::relative(path)), flags, Mode::empty()) else {
        return Ok(());
    };
    match fs::events(&dir) {
        Ok(events) if events.populated => Err(in_use(path)),
        // Before systemd is asked: with a scope that is refused later it would take the cgroup away.
        Ok(events) if events.frozen => Err(frozen(path)),
        _ => Ok(()),
    }
}

pub(super) fn frozen(path: &Path) -> Error {
    let text =
        format!("container's cgroup unexpectedly frozen: {}, or one above it, is paused", path.display());
    Error::new(Kind::State, text).hint("resume the frozen cgroup first")
}

fn in_use(path: &Path) -> Error {
    let text = format!("container's cgroup is not empty: {} has processes", path.display());
    Error::new(Kind::State, text).hint("give the container a cgroup of its own, or end what runs in there")
}

fn create_at(root: OwnedFd, path: &Path, limits: &Limits) -> Result<New> {
    let mut made = Made { root, paths: Vec::new() };
    let existed = match make_dirs(&mut made, path) {
        Ok(()) => false,
        Err(Errno::EEXIST) => true,
        Err(errno) => return Err(Error::sys(errno, format!("creating cgroup {}", path.display()))),
    };
    let fd = fs::open_dir(made.root.as_fd(), path).doing(|| format!("opening cgroup {}", path.display()))?;
    if existed {
        let file = Path::new("cgroup.procs");
        faccessat(&fd, file, AccessFlags::W_OK, AtFlags::AT_EACCESS)
            .doing(|| format!("entering cgroup {}", path.display()))?;
    }
    enable_controllers(made.root.as_fd(), fd.as_fd(), path, limits)?;
    let events = fs::events(&fd).doing(|| format!("reading cgroup.events of {}", path.display()))?;
    if existed && events.populated {
        return Err(in_use(path));
    }
    if events.frozen {
        return Err(frozen(path));
    }
    Ok(New { fd, path: path.to_path_buf(), made })
}

/// Makes the directory, and those above it that are missing. `EEXIST` means the last one.
fn make_dirs(made: &mut Made, path: &Path) -> nix::Result<()> {
    match made.mkdir(path) {
        Err(Errno::ENOENT) => {}
        done => return done,
    }
    let mut missing: Vec<&Path> = path.ancestors().skip(1).collect();
    missing.pop();
    for dir in missing.iter().rev() {
        match made.mkdir(dir) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    made.mkdir(path)
}

/// Sees to it that the cgroup has every controller that the tree has. What the limits need must be
/// there; the others serve statistics and may fail.
pub(super) fn enable_controllers(
    root: BorrowedFd<'_>,
    leaf: BorrowedFd<'_>,
    path: &Path,
    limits: &Limits,
) -> Result<()> {
    let read = |dir: BorrowedFd<'_>, whose: &Path| {
        fs::read(dir, "cgroup.controllers")
            .doing(|| format!("reading cgroup.controllers of {}", whose.display()))
    };
    let here = read(leaf, path)?;
    let all = read(root, Path::new("/"))?;
    let missing: Vec<&str> = all.split_whitespace().filter(|name| !has(&here, name)).collect();
    let mut refusal = None;
    if !missing.is_empty() {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for dir in above {
            if let Err(errno) = enable_at(root, dir, &missing) {
                refusal.get_or_insert((errno, dir));
            }
        }
    }
    let mut needed = limits.controllers().filter(|name| *name != "cgroup").peekable();
    if needed.peek().is_none() || missing.is_empty() && needed.all(|name| has(&here, name)) {
        return Ok(());
    }
    let here = read(leaf, path)?;
    match limits.controllers().find(|name| !has(&here, name)) {
        None => Ok(()),
        Some(name) if !has(&all, name) => Err(absent(name, &all)),
        Some(name) => Err(not_enabled(name, path, refusal)),
    }
}

fn has(list: &str, name: &str) -> bool {
    list.split_whitespace().any(|one| one == name)
}

/// One write for all; where that fails one for each, as one bad controller spoils the write.
fn enable_at(root: BorrowedFd<'_>, dir: &Path, names: &[&str]) -> nix::Result<()> {
    let fd = fs::open_dir(root, dir)?;
    let plus = |names: &[&str]| names.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    if fs::write(&fd, "cgroup.subtree_control", &plus(names)).is_ok() {
        return Ok(());
    }
    let mut last = Ok(());
    for name in names {
        if let Err(errno) = fs::write(&fd, "cgroup.subtree_control", &plus(&[name])) {
            last = Err(errno);
        }
    }
    last
}

fn absent(name: &str, all: &str) -> Error {
    let all = if all.trim().is_empty() { "none" } else { all.trim() };
    Error::unsupported(format!("the cgroup controller {name} does not exist on this host (it has: {all})"))
        .hint("ask for no such limit, or boot a kernel with the controller")
}

fn not_enabled(name: &str, path: &Path, refusal: Option<(Errno, &Path)>) -> Error {
    let (errno, dir) = refusal.unwrap_or((Errno::ENOENT, path));
    let doing = format!("enabling the controller {name} in cgroup {} for {}", dir.display(), path.display());
    let err = Error::sys(errno, doing);
    match errno {
        // Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint".
        Errno::EBUSY => err.hint(format!(
            "{} has processes of its own, and a cgroup with processes cannot share out controllers: \
             move them into a cgroup below it, or choose a linux.cgroupsPath elsewhere",
            dir.display()
        )),
        Errno::EACCES | Errno::EPERM => err.hint("the cgroup is not delegated to this user"),
        Errno::EOPNOTSUPP => err.hint(format!("{} is a threaded cgroup", dir.display())),
        _ => err,
    }
}
