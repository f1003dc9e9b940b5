//! `set`: other values for a machine, in its definition and in the running machine in one act.
//!
//! Owns the order: the new document is made and checked, the running machine is changed and asked whether it took, the
//! document is written whole. What fails on the way leaves both as they were.

mod change;
mod edit;
pub mod kernel;
pub mod pending;
pub mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use locule_runtime::sys::clone::{pidfd_open, pidfd_signal};
use nix::errno::Errno;

pub use change::{Act, Change, Target};
use kernel::Running;

use crate::definition::keys::{Holds, KEYS, Key};
use crate::definition::tree::{Entry, Value};
use crate::definition::{FILE, Profiles};
use crate::keeper::record::Keeper;
use crate::storage::Storage;
use crate::{Context, Definition, Error, Home, Kind, Machine, Result};

/// What is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// The definition, and the machine if it runs.
    #[default]
    Both,
    /// The running machine alone, until it ends.
    Runtime,
}

/// When a change holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// From now on.
    Now,
    /// From the next start.
    NextStart,
}

/// One key that has another value.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Its path.
    pub key: String,
    /// What it was, with profiles.
    pub from: Option<Value>,
    /// What it is.
    pub to: Option<Value>,
    /// From when on.
    pub when: When,
}

/// The values of a document by their keys' paths; a list of tables is one value.
pub fn flat(document: &Entry) -> BTreeMap<String, Entry> {
    fn walk(entry: &Entry, path: &str, found: &mut BTreeMap<String, Entry>) {
        match &entry.value {
            Value::Table(table) => {
                for (name, entry) in table {
                    walk(
                        entry,
                        &if path.is_empty() { name.clone() } else { format!("{path}.{name}") },
                        found,
                    );
                }
            }
            _ => drop(found.insert(path.to_owned(), entry.clone())),
        }
    }
    let mut found = BTreeMap::new();
    walk(document, "", &mut found);
    found
}

/// The key of a path of [`flat`]; of a list of tables any of its keys.
pub fn key_of(path: &str) -> Option<&'static Key> {
    let list = format!("{path}[]");
    crate::definition::keys::find(path)
        .map(|(key, _)| key)
        .or_else(|| KEYS.iter().find(|key| key.path.split('.').next() == Some(&list)))
}

/// Changes a machine. All changes are made, or none.
pub fn set(
    home: &Home,
    machine: &Machine,
    changes: &[Change],
    scope: Scope,
    profiles: &Profiles,
) -> Result<Vec<Changed>> {
    let act = |err: Error| err.context(format_args!("changing machine {}", machine.name()));
    let _lock = machine.lock("set")?;
    let path = machine.dir().join(FILE);
    let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
    let old = profiles.resolve(&text, &path)?;
    let new_text = edit::edit(&text, &old, changes).map_err(act)?;
    let new = profiles.resolve(&new_text, &path)?;
    let definition = Definition::resolve(&new_text, &path, profiles)?;
    let running = Running::find(home, machine)?;
    let asked: BTreeSet<String> =
        changes.iter().filter(|change| matches!(change.target, Target::Key(_))).map(Change::path).collect();
    let mut changed = changed(&old, &new, running.is_some());
    refuse(changes, &changed).map_err(act)?;
    let waits = |key: &str| running.as_ref().is_some_and(|running| running.waits(key));
    for changed in &mut changed {
        if waits(&changed.key) {
            changed.when = When::NextStart;
        }
    }
    let now: Vec<String> = (changed.iter().map(|changed| &changed.key))
        .chain(&asked)
        .filter(|key| holds(key) == Some(Holds::Now) && !waits(key))
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    match (scope, &running) {
        (Scope::Runtime, None) => {
            return Err(act(Error::new(Kind::NotRunning, "it does not run").hint("leave out --runtime")));
        }
        (Scope::Runtime, Some(_)) => {
            let beyond = |key: &str| holds(key) != Some(Holds::Now) || !kernel::tells(key) || waits(key);
            if let Some(changed) = changed.iter().find(|changed| beyond(&changed.key)) {
                let why =
                    if waits(&changed.key) { ": its own kernel takes it at the next start" } else { "" };
                let text = format!("{} cannot be changed in the running machine alone{why}", changed.key);
                return Err(act(Error::invalid(text).hint("leave out --runtime")));
            }
        }
        _ => {}
    }
    // What refuses most comes first; a disk of an older size is none that a failure later has to bring back.
    if now.iter().any(|key| key == "disk.size") {
        crate::root::storage(machine, &definition, &home.images()?)?.limit().map_err(act)?;
    }
    // Another log must be one that can be written.
    if now.iter().any(|key| key.starts_with("log.")) {
        crate::keeper::log::Writer::open(&definition.log, machine.name(), machine.dir()).map_err(act)?;
    }
    if let Some(running) = &running {
        let steps = running.steps(&definition, &now).map_err(act)?;
        if scope == Scope::Both {
            pending::remember(machine, &running.container, &old)?;
        }
        running.apply(&steps).map_err(act)?;
        let view = machine.run().join("view");
        if view.is_dir() && now.iter().any(|key| key.starts_with("cpu.")) {
            crate::visible::refresh_static(&view, &definition)?;
        }
    }
    // Last, as a disk cannot be made smaller again; also of a machine that does not run.
    if let Some(size) = definition.disk.size
        && changed.iter().any(|changed| changed.key == "disk.size")
    {
        let resized = home
            .images()
            .and_then(|images| Storage::open(machine.dir(), &definition.disk, &images)?.resize(size));
        if let Err(err) = resized {
            put_back(running.as_ref(), &text, &path, profiles, &now)?;
            return Err(act(err.context("disk.size")));
        }
    }
    if scope == Scope::Both {
        if new_text != text
            && let Err(err) = crate::file::write_whole(&path, new_text.as_bytes())
        {
            // The machine must not have what its definition has not.
            put_back(running.as_ref(), &text, &path, profiles, &now)?;
            return Err(err);
        }
        if changed
            .iter()
            .any(|changed| ["restart.", "log."].iter().any(|group| changed.key.starts_with(group)))
        {
            reload(machine)?;
        }
        // Also where the word is the old one: somebody may have said otherwise to systemd meanwhile.
        let starts = |key: &str| ["boot.start", "disabled"].contains(&key);
        if asked.iter().any(|key| starts(key)) || changed.iter().any(|changed| starts(&changed.key)) {
            crate::boot::enlist(home, machine, &definition)?;
        }
    }
    if !changed.is_empty() {
        let keys: Vec<_> = changed.iter().map(|changed| changed.key.as_str()).collect();
        crate::events::tell(home.run(), machine.name(), "set", &[("keys", keys.join(","))]);
    }
    Ok(changed)
}

/// Gives the running machine what the definition says that is still in force.
fn put_back(
    running: Option<&Running<'_>>,
    text: &str,
    path: &Path,
    profiles: &Profiles,
    keys: &[String],
) -> Result<()> {
    let Some(running) = running else { return Ok(()) };
    let before = Definition::resolve(text, path, profiles)?;
    running.apply(&running.steps(&before, keys)?)
}

/// Has the keeper read the definition again, which it remembers.
fn reload(machine: &Machine) -> Result<()> {
    let Some(keeper) = Keeper::living(machine) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(keeper.keeper.pid) else { return Ok(()) };
    // Only now is the number pinned.
    if !keeper.keeper.alive() {
        return Ok(());
    }
    match pidfd_signal(&pidfd, libc::SIGHUP) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("telling the keeper of machine {}", machine.name())),
    }
}

fn holds(path: &str) -> Option<Holds> {
    key_of(path).map(|key| key.holds)
}

/// What differs between two documents.
fn changed(old: &Entry, new: &Entry, runs: bool) -> Vec<Changed> {
    let (old, new) = (flat(old), flat(new));
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let same = |a: Option<&Entry>, b: Option<&Entry>| a.map(|a| a.value.json()) == b.map(|b| b.value.json());
    paths
        .into_iter()
        .filter(|path| !same(old.get(*path), new.get(*path)))
        .map(|path| Changed {
            key: path.clone(),
            from: old.get(path).map(|entry| entry.value.clone()),
            to: new.get(path).map(|entry| entry.value.clone()),
            when: match holds(path) {
                Some(Holds::NextStart) if runs => When::NextStart,
                // Nobody knows what a file held that is not known.
                _ if runs && !new.contains_key(path) && cannot_be_lifted(path) => When::NextStart,
                _ => When::Now,
            },
        })
        .collect()
}

/// Whether taking `path` away leaves the running machine with its value.
fn cannot_be_lifted(path: &str) -> bool {
    path.starts_with("ulimit.")
        || path == "disk.size"
        || path.strip_prefix("cgroup.unified.").is_some_and(|file| crate::limits::unlimited(file).is_none())
}

/// Refuses what is chosen when a machine is made.
fn refuse(changes: &[Change], changed: &[Changed]) -> Result<()> {
    let fixed = changed.iter().find(|changed| holds(&changed.key) == Some(Holds::WhenMade));
    match fixed {
        Some(changed) => Err(Error::invalid(format!("{} is chosen when a machine is made", changed.key))
            .hint("make another machine, and move what it holds")),
        None if changes.is_empty() => Err(Error::invalid("no change was given")),
        None => Ok(()),
    }
}

/// The document that changes of nothing make, for machines that are made.
pub fn document(changes: &[Change], profiles: &Profiles) -> Result<String> {
    // Profiles first, so that `+=` adds to what they say.
    let (include, others): (Vec<_>, Vec<_>) =
        changes.iter().cloned().partition(|change| change.names == ["include"]);
    let name = PathBuf::from(FILE);
    let text = edit::edit("", &Entry::empty(FILE), &include)?;
    let text = edit::edit(&text, &profiles.resolve(&text, &name)?, &others)?;
    Definition::resolve(&text, &name, profiles)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_made_of_changes() {
        let words = ["image=host", "include+=small", "memory=1G", "network.eth0.ports+=80:80", "boot=on"];
        let changes: Vec<_> = words.iter().map(|word| Change::parse(word).unwrap()).collect();
        let text = document(&changes, &Profiles::of(Vec::new())).unwrap();
        assert_eq!(
            text,
            "include = [\"small\"]\nimage = \"host\"\n\n[memory]\nlimit = \"1G\"\n\n[network.eth0]\nports = [\"80:80\"]\n\n[boot]\nstart = \"on\"\n"
        );
    }

    #[test]
    fn changes_are_seen_through_profiles() {
        let profiles = Profiles::of(Vec::new());
        let resolve = |text: &str| profiles.resolve(text, std::path::Path::new("m")).unwrap();
        let (old, new) = (
            resolve("image = \"host\"\n"),
            resolve("image = \"host\"\ninclude = [\"tiny\"]\ndisabled = true\nprivileged = true\n"),
        );
        let changes = changed(&old, &new, true);
        let told: Vec<_> = changes.iter().map(|changed| (changed.key.as_str(), changed.when)).collect();
        assert_eq!(
            told,
            [
                ("cpu.limit", When::Now),
                ("disabled", When::Now),
                ("include", When::Now),
                ("memory.limit", When::Now),
                ("memory.swap", When::Now),
                ("pids.limit", When::Now),
                ("privileged", When::NextStart),
            ]
        );
        assert!(changed(&new, &new, true).is_empty());
        let image = resolve("image = \"other\"\n");
        let err = refuse(&[], &changed(&old, &image, false)).unwrap_err().to_string();
        assert!(err.starts_with("image is chosen when a machine is made"), "{err}");
    }
}
