//! Snapshots: copies of a machine's disk beside it, with the definition that it had.
//!
//! Owns `snapshots/NAME` and the exchange that restores one. A copy shares its data with the original where the
//! file system can, and else takes its own room; it is never made of hard links, because data is written in place.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::{Deserialize, Serialize};

use super::copy::{Copy, Form, Progress};
use super::record::{Record, sync_dir, write_whole};
use super::{ROOT, Storage, disk, make_dir, open_dir, overlay, project, remove_tree};
use crate::definition::{DiskKind, FILE as DEFINITION};
use crate::sys::files;
use crate::sys::guard::Guard;
use crate::{Context, Error, Kind, Result, lift};

/// The directory of a machine's snapshots.
pub const SNAPSHOTS: &str = "snapshots";
/// What a snapshot says of itself.
const FILE: &str = "snapshot.json";
/// Most bytes of a snapshot's name.
const NAME_MAX: usize = 64;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// When it was made, in RFC 3339.
    pub created: String,
    /// What it is for, in the owner's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How the disk is kept.
    pub kind: DiskKind,
    /// Whether the machine ran when it was made.
    pub running: bool,
    /// Whether it shares data with the disk that it was made of.
    pub shared: bool,
    /// Bytes of data in it, shared or not.
    pub bytes: u64,
}

/// How a running machine is brought to stand still; `release` is also called when the caller was killed.
pub trait Hold {
    /// Nothing of the machine runs when this returns.
    fn hold(&self) -> Result<()>;
    /// It runs again.
    fn release(&self);
}

/// Hears all bytes and counts them.
struct Counted<'a> {
    inner: &'a mut dyn Progress,
    bytes: u64,
}

impl Progress for Counted<'_> {
    fn bytes(&mut self, more: u64) {
        self.bytes += more;
        self.inner.bytes(more);
    }
}

/// Refuses what cannot be the name of a snapshot.
pub fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= NAME_MAX
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte));
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!("the snapshot's name {name:?}"))
        .hint(format!("use letters, digits, _ . : and -, at most {NAME_MAX}")))
}

impl Storage<'_> {
    fn snapshots_dir(&self) -> PathBuf {
        self.dir.join(SNAPSHOTS)
    }

    fn snapshot_dir(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.snapshots_dir().join(name))
    }

    /// All snapshots, the oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let dir = self.snapshots_dir();
        let doing = || format!("listing {}", dir.display());
        let entries = match fs::read_dir(&dir) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(doing)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.doing(doing)?.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_ok() {
                found.push(self.find_snapshot(&name)?);
            }
        }
        found.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        Ok(found)
    }

    /// The snapshot called `name`.
    pub fn find_snapshot(&self, name: &str) -> Result<Snapshot> {
        let path = self.snapshot_dir(name)?.join(FILE);
        let doing = || format!("reading {}", path.display());
        match fs::read(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::new(Kind::NotFound, format!("no snapshot {name:?} of {}", self.dir.display()))
                    .hint("locule snapshot ls lists them"))
            }
            other => {
                let snapshot: Snapshot = serde_json::from_slice(&other.doing(doing)?).doing(doing)?;
                Ok(Snapshot { name: name.to_owned(), ..snapshot })
            }
        }
    }

    /// Saves the disk and the definition as `name`. `hold` is how the machine is brought to stand still, if it runs.
    pub fn snapshot(
        &self,
        name: &str,
        description: &str,
        hold: Option<&dyn Hold>,
        progress: &mut dyn Progress,
    ) -> Result<Snapshot> {
        let dir = self.snapshot_dir(name)?;
        let doing = || format!("saving {} as {name}", self.dir.display());
        if dir.exists() {
            return Err(Error::new(Kind::Exists, format!("there is a snapshot {name:?}"))
                .hint("choose another name, or remove it: locule snapshot rm"));
        }
        let record = self.record()?;
        make_dir(&self.snapshots_dir())?;
        self.clear_rests()?;
        let part = self.snapshots_dir().join(format!(".{name}.part"));
        let mut act = || {
            let root = part.join(ROOT);
            make_dir(&root)?;
            let mut counted = Counted { inner: progress, bytes: 0 };
            let shared = copy_root(&self.root, record.kind, &root, hold, &mut counted)?;
            Record { project: None, ..record.clone() }.write(&root)?;
            let definition = self.dir.join(DEFINITION);
            let text = fs::read(&definition).doing(|| format!("reading {}", definition.display()))?;
            write_whole(&part.join(DEFINITION), &text)?;
            let snapshot = Snapshot {
                name: String::new(),
                created: locule_images::time::now(),
                description: description.to_owned(),
                kind: record.kind,
                running: hold.is_some(),
                shared,
                bytes: counted.bytes,
            };
            let text = serde_json::to_vec_pretty(&snapshot).doing(doing)?;
            write_whole(&part.join(FILE), &text)?;
            sync(&part)?;
            if let Some(layers) = &record.layers {
                self.images.pin(&dir.join(ROOT), layers).map_err(lift)?;
            }
            fs::rename(&part, &dir).doing(doing)?;
            sync_dir(&self.snapshots_dir())?;
            Ok(Snapshot { name: name.to_owned(), ..snapshot })
        };
        act().map_err(|err: Error| {
            let _ = remove_tree(&part);
            let _ = fs::remove_dir(self.snapshots_dir());
            full(err.context(doing()))
        })
    }

    /// Puts the disk back to what `name` saved; what there is now stays until the other is whole.
    ///
    /// Nothing of the machine may run.
    pub fn restore(&self, name: &str, progress: &mut dyn Progress) -> Result<()> {
        let saved = self.find_snapshot(name)?;
        let doing = || format!("restoring {name} of {}", self.dir.display());
        let now = self.record()?;
        if saved.kind != now.kind {
            return Err(Error::invalid(format!("{}: it is of another storage kind", doing())));
        }
        if now.kind == DiskKind::Disk && disk::Disk::new(&self.root).live()?.is_some() {
            return Err(Error::new(Kind::State, format!("{}: the disk is mounted", doing()))
                .hint("stop the machine first"));
        }
        let from = self.snapshot_dir(name)?.join(ROOT);
        self.copy_from(&from, None, progress, |part| {
            renameat2(AT_FDCWD, part, AT_FDCWD, &self.root, RenameFlags::RENAME_EXCHANGE)
                .doing(|| format!("exchanging {} and {}", part.display(), self.root.display()))
        })
        .map_err(|err| err.context(doing()))?;
        // What was there before has the other name now.
        self.clear_rests()?;
        match now.project {
            Some(id) if self.record()?.project != Some(id) => project::release(&self.dir, id),
            _ => {}
        }
        Ok(())
    }

    /// Makes this machine's disk as a copy of that in another `root`. `hold` is how the other machine is brought to
    /// stand still, if it runs.
    pub fn clone_from(
        &self,
        from: &Path,
        hold: Option<&dyn Hold>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if Record::read(&self.root).is_ok() {
            return Err(Error::new(Kind::Exists, format!("{} is there already", self.root.display())));
        }
        self.clear(&self.root)?;
        self.copy_from(from, hold, progress, |part| {
            fs::rename(part, &self.root).doing(|| format!("naming {}", self.root.display()))
        })
    }

    /// A copy of `from` under another name, to which `settle` gives its own.
    fn copy_from(
        &self,
        from: &Path,
        hold: Option<&dyn Hold>,
        progress: &mut dyn Progress,
        settle: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.clear_rests()?;
        let mut record = Record::read(from)?;
        let part = self.dir.join(REST);
        let act = || {
            make_dir(&part)?;
            // A project of its own: for the time both are there, they count apart.
            let claim = match record.kind {
                DiskKind::Overlay => project::adopt(&self.dir, open_dir(&part)?)?,
                DiskKind::Disk => None,
            };
            record.project = claim.as_ref().map(|claim| claim.id);
            let copied = (|| {
                if record.kind == DiskKind::Overlay {
                    project::limit(&self.dir, open_dir(&part)?, record.project, &self.disk)?;
                }
                copy_root(from, record.kind, &part, hold, progress)?;
                record.write(&part)?;
                if let Some(layers) = &record.layers {
                    self.images.pin(&self.root, layers).map_err(lift)?;
                }
                sync(&part)?;
                settle(&part)?;
                sync_dir(&self.dir)
            })();
            match (copied, claim) {
                (Err(err), Some(claim)) => {
                    claim.release();
                    Err(err)
                }
                (copied, _) => copied,
            }
        };
        act().map_err(|err| {
            let _ = self.clear_rests();
            full(err)
        })
    }

    /// Removes a snapshot.
    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.find_snapshot(name)?;
        let dir = self.snapshot_dir(name)?;
        let part = self.snapshots_dir().join(format!(".{name}.part"));
        self.clear_rests()?;
        // Out of the way first: what has the name is whole.
        fs::rename(&dir, &part).doing(|| format!("removing {}", dir.display()))?;
        sync_dir(&self.snapshots_dir())?;
        remove_tree(&part)?;
        let _ = fs::remove_dir(self.snapshots_dir());
        self.images.unpin(&dir.join(ROOT)).map_err(lift)
    }

    /// The definition that a snapshot was saved with.
    pub fn snapshot_definition(&self, name: &str) -> Result<String> {
        self.find_snapshot(name)?;
        let path = self.snapshot_dir(name)?.join(DEFINITION);
        fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))
    }

    /// Where a snapshot keeps the disk.
    pub fn snapshot_root(&self, name: &str) -> Result<PathBuf> {
        self.find_snapshot(name)?;
        Ok(self.snapshot_dir(name)?.join(ROOT))
    }

    /// What is on its way to be the machine's `root`.
    pub(super) fn rest(&self) -> PathBuf {
        self.dir.join(REST)
    }

    /// Removes what an interrupted call left.
    pub fn clear_rests(&self) -> Result<()> {
        let rest = self.dir.join(REST);
        if let Some(id) = Record::read(&rest).ok().and_then(|record| record.project)
            && Record::read(&self.root).ok().and_then(|record| record.project) != Some(id)
        {
            remove_tree(&rest)?;
            project::release(&self.dir, id);
        }
        remove_tree(&rest)?;
        let dir = self.snapshots_dir();
        let Ok(entries) = fs::read_dir(&dir) else { return Ok(()) };
        for entry in entries {
            let entry = entry.doing(|| format!("listing {}", dir.display()))?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// What is on its way to be a `root`, or was one.
pub const REST: &str = "root.part";

/// Copies the data of the `root` `from` into the directory `to`; whether it is shared.
fn copy_root(
    from: &Path,
    kind: DiskKind,
    to: &Path,
    hold: Option<&dyn Hold>,
    progress: &mut dyn Progress,
) -> Result<bool> {
    let live = match kind {
        DiskKind::Disk => disk::Disk::new(from).live()?,
        DiskKind::Overlay => None,
    };
    // Whatever happens to this process: the machine goes on.
    let _guard = match (hold, &live) {
        (None, None) => None,
        _ => {
            let guard = Guard::new(|| {
                if let Some(live) = &live {
                    let _ = files::thaw(&live.root);
                }
                if let Some(hold) = hold {
                    hold.release();
                }
            });
            Some(guard.doing(|| "starting the process that lets the machine go on")?)
        }
    };
    if let Some(hold) = hold {
        hold.hold()?;
    }
    if let Some(live) = &live {
        match files::freeze(&live.root) {
            // A call that was killed together with its guard left it so.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => {
                return Err(errno).doing(|| format!("freezing the file system of {}", from.display()));
            }
        }
    }
    let mut copy = Copy::new(Form::Overlay, progress);
    match kind {
        DiskKind::Overlay => overlay::copy(from, to, &mut copy)?,
        DiskKind::Disk => {
            let (source, target) = (from.join(disk::FILE), to.join(disk::FILE));
            let doing = || format!("copying {}", source.display());
            let file = File::open(&source).doing(doing)?;
            let made = File::options()
                .create_new(true)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&target)
                .doing(|| format!("making {}", target.display()))?;
            copy.data(&file, &made).doing(doing)?;
        }
    }
    Ok(copy.shares().unwrap_or(true))
}

/// Brings all of the file system that `dir` lies on to its disk, before a name says that it is whole.
fn sync(dir: &Path) -> Result<()> {
    locule_images::sys::fs::syncfs(open_dir(dir)?).doing(|| format!("writing {}", dir.display()))
}

/// What to do about a full disk.
fn full(err: Error) -> Error {
    match err.errno() {
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            err.hint("nothing was changed; make room first, for instance with locule snapshot rm")
        }
        _ => err,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_and_are_no_options() {
        for name in ["a", "2026-11-26T17:00:00Z", "before_upgrade.1"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", ".a.part", "-f", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
