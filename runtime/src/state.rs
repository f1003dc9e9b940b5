//! What is remembered about containers between two calls: one directory a container below the state root.
//!
//! Owns `state.json` (small, written atomically *before* the step that it records), the copy of
//! `config.json`, the start gate's name and the lock, which is the directory itself. Never holds a
//! lock to answer `state`.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::contract::absent;
use crate::error::{Context, Error, Kind, Result};
use crate::isolation::Isolation;
use crate::isolation::control::CONTROL;
use crate::spec::StringMap;
use crate::sys::fs::{openat2, read_at};

/// The file that records a container.
const STATE: &str = "state.json";
/// The copy of the bundle's document, which later calls read: changes after `create` have no effect.
pub const CONFIG: &str = "config.json";
/// The socket on which a created container waits for `start`.
pub const GATE: &str = "gate";

/// A process, told apart from a later one that got the same pid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Pid in the runtime's pid namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_time: u64,
    /// The boot that `start_time` counts from.
    pub boot_id: String,
}

/// What is remembered about one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Version of this format.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// The document's version.
    pub oci_version: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// User that created it.
    pub owner: u32,
    /// The container's init; absent until it exists.
    pub init: Option<ProcessId>,
    /// Whether `create` went through.
    pub complete: bool,
    /// Its cgroup.
    pub cgroup: Option<cgroup::Record>,
    /// Resource director group to remove, if one was made.
    #[serde(default)]
    pub rdt: Option<crate::attrs::rdt::RdtRecord>,
    /// Whether the document has `poststart` hooks.
    pub poststart: bool,
    /// Whether the document has `poststop` hooks.
    pub poststop: bool,
    /// Whether the container has a pid namespace of its own, whose end ends all of it.
    pub own_pid_namespace: bool,
    /// Whether the caller's session keyring was kept.
    pub no_new_keyring: bool,
    /// What separates it from the host.
    #[serde(default, skip_serializing_if = "Isolation::is_namespaces")]
    pub isolation: Isolation,
    /// The container whose machine it runs in, where that is another's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The document's annotations.
    pub annotations: StringMap,
}

/// The format's version; an unknown one is refused rather than guessed at.
pub const VERSION: u32 = 1;

/// A state root.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    dir: OwnedFd,
}

/// A container's directory, held by descriptor.
#[derive(Debug)]
pub struct Entry {
    id: String,
    dir: OwnedFd,
}

impl Store {
    /// Opens an existing state root; makes none (`ENOENT`).
    pub fn open(path: &Path) -> Result<Store> {
        let dir = openat2(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)
            .doing(|| format!("opening the state root {}", path.display()))?;
        Ok(Store { path: path.to_owned(), dir })
    }

    /// Opens the state root, made where missing (mode 0711, as other users' tools look through it).
    ///
    /// `sticky` sets the sticky bit, which keeps tidiers of XDG_RUNTIME_DIR away.
    pub fn create_root(path: &Path, sticky: bool) -> Result<Store> {
        let doing = || format!("making the state root {}", path.display());
        match Store::open(path) {
            Err(err) if err.errno() == Some(Errno::ENOENT) => {}
            other => return other,
        }
        DirBuilder::new().recursive(true).mode(0o711).create(path).doing(doing).map_err(not_ones_own)?;
        if sticky {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1711)).doing(doing)?;
        }
        Store::open(path)
    }

    /// Finds container `id`.
    pub fn load(&self, id: &str) -> Result<crate::Container> {
        crate::Container::load(self, id)
    }

    /// The state root's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state root's descriptor.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Ids of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let doing = || format!("listing {}", self.path.display());
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.path).doing(doing)? {
            let entry = entry.doing(doing)?;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let (true, Ok(name)) = (is_dir, entry.file_name().into_string()) {
                // Names with a leading dot are the runtime's own, not ids.
                if !name.starts_with('.') {
                    ids.push(name);
                }
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// The directory of container `id`.
    pub fn entry(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        match openat2(
            &self.dir,
            id,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
            0,
            libc::RESOLVE_BENEATH,
        ) {
            Ok(dir) => Ok(Entry { id: id.to_owned(), dir }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(absent(id)),
            Err(errno) => Err(errno).doing(|| format!("opening the state of container {id:?}")),
        }
    }

    /// Claims `id` for a new container: its directory is made, and locked.
    pub fn claim(&self, id: &str) -> Result<(Entry, Lock)> {
        check_id(id)?;
        let mode = Mode::from_bits_truncate(0o700);
        let exists = || {
            Error::new(Kind::Exists, format!("container with id {id:?} already exists"))
                .hint("choose another id, or delete it first")
        };
        match nix::sys::stat::mkdirat(&self.dir, id, mode) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Err(exists()),
            Err(errno) => {
                return Err(errno)
                    .doing(|| format!("making the state of container {id:?} in {}", self.path.display()))
                    .map_err(not_ones_own);
            }
        }
        let claimed = self.entry(id).and_then(|entry| entry.lock().map(|lock| (entry, lock)));
        if claimed.as_ref().is_err_and(|err| err.kind() != Kind::NotFound) {
            let _ = unlinkat(&self.dir, id, UnlinkatFlags::RemoveDir);
        }
        let (entry, lock) = claimed?;
        // A deletion may have taken the directory away before it was locked, and what was opened
        // by its name is then that of another creation, which was quicker.
        match fstatat(entry.dir(), STATE, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok((entry, lock)),
            Ok(_) => Err(exists()),
            Err(errno) => {
                // Another's would not be empty.
                let _ = unlinkat(&self.dir, id, UnlinkatFlags::RemoveDir);
                Err(errno).doing(|| format!("looking at the state of container {id:?}"))
            }
        }
    }

    /// Removes the directory of container `id` with what is in it.
    pub fn remove(&self, entry: &Entry) -> Result<()> {
        let doing = || format!("removing the state of container {:?}", entry.id);
        // What there mostly is, without a look: undoing must not need a descriptor where they ran out.
        for name in [STATE, CONFIG, GATE, CONTROL] {
            let _ = unlinkat(&entry.dir, name, UnlinkatFlags::NoRemoveDir);
        }
        match unlinkat(&self.dir, entry.id.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
        for name in std::fs::read_dir(self.path.join(&entry.id)).doing(doing)?.flatten() {
            match unlinkat(&entry.dir, &PathBuf::from(name.file_name()), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EISDIR | Errno::EPERM) => remove_flat(entry, &name.file_name()).doing(doing)?,
                Err(errno) => return Err(errno).doing(doing),
            }
        }
        match unlinkat(&self.dir, entry.id.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).doing(doing),
        }
    }
}

fn not_ones_own(err: Error) -> Error {
    match err.errno() {
        Some(Errno::EACCES) => {
            err.hint("set XDG_RUNTIME_DIR to a directory of your own, or give one with --root")
        }
        _ => err,
    }
}

/// Removes a directory of an entry with the files in it; deeper ones nobody makes.
fn remove_flat(entry: &Entry, name: &std::ffi::OsStr) -> nix::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(entry, name, flags, Mode::empty())?;
    let names: Vec<_> = dir.iter().flatten().map(|inner| inner.file_name().to_owned()).collect();
    for inner in names.iter().filter(|inner| !matches!(inner.to_bytes(), b"." | b"..")) {
        unlinkat(&dir, inner.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
    }
    unlinkat(entry, name, UnlinkatFlags::RemoveDir)
}

/// Exclusive use of a container's directory; ends when the last copy of the descriptor is closed.
///
/// A child inherits a copy: it must drop its own early, which does not unlock the parent's.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held for its drop")] File);

impl Entry {
    /// The same directory, by another descriptor.
    pub fn try_clone(&self) -> Result<Entry> {
        let dir = self.dir.try_clone().doing(|| "copying a descriptor")?;
        Ok(Entry { id: self.id.clone(), dir })
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory of container `id` in the same state root.
    pub fn sibling(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        match openat2(&self.dir, format!("../{id}"), flags, 0, libc::RESOLVE_NO_SYMLINKS) {
            Ok(dir) => Ok(Entry { id: id.to_owned(), dir }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Err(absent(id)),
            Err(errno) => Err(errno).doing(|| format!("opening the state of container {id:?}")),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// Waits for exclusive use; fails when the container was deleted meanwhile.
    pub fn lock(&self) -> Result<Lock> {
        let doing = || format!("locking container {:?}", self.id);
        // A description of its own: a lock belongs to the open file, and `dir` is shared with children.
        let file =
            openat2(&self.dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0, 0).map_err(
                |errno| match errno {
                    Errno::ENOENT => absent(&self.id),
                    errno => Error::sys(errno, doing()),
                },
            )?;
        let file = File::from(file);
        file.lock().doing(doing)?;
        if nix::sys::stat::fstat(&self.dir).doing(doing)?.st_nlink == 0 {
            return Err(absent(&self.id));
        }
        Ok(Lock(file))
    }

    /// Reads the record.
    pub fn load(&self) -> Result<State> {
        let doing = || format!("reading the state of container {:?}", self.id);
        let text = match read_at(&self.dir, STATE) {
            Err(Errno::ENOENT) => {
                return Err(Error::new(Kind::State, format!("{}: its creation was interrupted", doing()))
                    .hint("remove it with delete --force"));
            }
            other => other.doing(doing)?,
        };
        let state: State = serde_json::from_str(&text).map_err(|err| {
            Error::new(Kind::System, format!("{}: {err}", doing())).hint("remove it with delete --force")
        })?;
        if state.version != VERSION {
            return Err(Error::unsupported(format!("{}: format {} is not known", doing(), state.version)));
        }
        Ok(state)
    }

    /// Writes the record atomically.
    pub fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec(state).doing(|| "encoding the state")?;
        self.write(STATE, &text)
    }

    /// Writes a file of the entry atomically: under a temporary name first.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let doing = || format!("writing {name} of container {:?}", self.id);
        let temporary = format!(".{name}");
        let flags = OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        let mut file =
            File::from(openat2(&self.dir, &temporary, flags, 0o600, libc::RESOLVE_BENEATH).doing(doing)?);
        let written = file
            .write_all(bytes)
            .doing(doing)
            .and_then(|()| nix::fcntl::renameat(&self.dir, temporary.as_str(), &self.dir, name).doing(doing));
        if written.is_err() {
            let _ = unlinkat(&self.dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// The document as it was at `create`.
    pub fn config(&self) -> Result<crate::spec::Spec> {
        let text =
            read_at(&self.dir, CONFIG).doing(|| format!("reading the config of container {:?}", self.id))?;
        crate::spec::Spec::parse(text.as_bytes())
    }

    /// The same as it stands in the file, with what this build does not know.
    pub fn config_json(&self) -> Result<serde_json::Value> {
        let doing = || format!("reading the config of container {:?}", self.id);
        serde_json::from_str(&read_at(&self.dir, CONFIG).doing(doing)?).doing(doing)
    }

    /// Whether the start gate still stands.
    pub fn has_gate(&self) -> Result<bool> {
        match openat2(&self.dir, GATE, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0, 0) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => {
                Err(errno).doing(|| format!("looking for the start gate of container {:?}", self.id))
            }
        }
    }

    /// Takes the start gate away: the container counts as started from here on.
    pub fn remove_gate(&self) -> Result<()> {
        match unlinkat(&self.dir, GATE, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno).doing(|| format!("removing the start gate of container {:?}", self.id)),
        }
    }
}

/// Ids are one path component of letters, digits and `_ + - .`, as runc's are.
pub fn check_id(id: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > 255 || id.starts_with('.') || !id.chars().all(fits) {
        return Err(Error::invalid(format!("invalid container id {id:?}"))
            .hint("use letters, digits and _ + - . and start with none of the dots"));
    }
    Ok(())
}

impl ProcessId {
    /// Identifies the living process `pid`.
    pub fn of(pid: i32) -> Result<ProcessId> {
        let (_, start_time) = stat(pid).doing(|| format!("reading the start time of process {pid}"))?;
        let boot_id = boot_id().doing(|| "reading the boot id")?.to_owned();
        Ok(ProcessId { pid, start_time, boot_id })
    }

    /// Whether that process still runs (a zombie does not).
    pub fn alive(&self) -> bool {
        match stat(self.pid) {
            Ok((state, start_time)) => {
                !matches!(state, 'Z' | 'X')
                    && start_time == self.start_time
                    && boot_id().is_ok_and(|id| id == self.boot_id)
            }
            Err(_) => false,
        }
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> nix::Result<(char, u64)> {
    let text = read_at(AT_FDCWD, format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and parentheses: fields are counted after its last one.
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest).ok_or(Errno::EIO)?;
    let mut fields = fields.split(' ');
    let state = fields.next().and_then(|f| f.chars().next()).ok_or(Errno::EIO)?;
    let start = fields.nth(18).and_then(|f| f.parse().ok()).ok_or(Errno::EIO)?;
    Ok((state, start))
}

/// Which boot this is; no process sees two.
fn boot_id() -> nix::Result<&'static str> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let id = read_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id")?;
    Ok(ID.get_or_init(|| id.trim_end().to_owned()))
}

/// Writes `bytes` to `path` under a temporary name first, so that a reader sees all or nothing.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("{}: not a file name", doing())))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let temporary = path.with_file_name(temporary);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(&temporary)
        .doing(doing)?;
    let written =
        file.write_all(bytes).doing(doing).and_then(|()| std::fs::rename(&temporary, path).doing(doing));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

impl AsFd for Entry {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for id in ["a", "web-1", "a.b_c+d", "0"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", ".hidden", "a b", "é", "a\n"] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn own_process_is_alive_and_another_start_time_is_not() {
        let mut me = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(me.alive());
        me.start_time += 1;
        assert!(!me.alive());
    }
}
