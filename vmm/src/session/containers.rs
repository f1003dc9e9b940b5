//! The containers of the machine: the first one, and those that came to it later.
//!
//! Owns what later ones have brought, by name and how many of them brought it, and how far each is in its life. The words are
//! the runtime's ([`locule_runtime::isolation::control`]); who says them is in [`callers`](super::callers).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use locule_channel::document::{Create, Remove, Running};
use locule_channel::{Frame, INIT, LARGEST_DOCUMENT, MOST_SESSIONS};
use locule_runtime::error::{Context, Error, Kind, Result};
use locule_runtime::isolation::control::{Answer, Newcomer};
use serde_json::{Value, json};

use super::Session;
use super::callers::Wants;
use super::process::Process;

/// Shows the guest what containers bring, below [`TREES`](locule_runtime::isolation::control::TREES).
pub trait Trees {
    /// Shows the file or directory of `tree` as `name`.
    fn add(&mut self, name: &str, tree: OwnedFd) -> Result<()>;

    /// Shows it no longer. What the guest has open of it stays so until it is closed there.
    fn remove(&mut self, name: &str);
}

/// How far a container is.
#[derive(Debug)]
enum Stage {
    /// The guest is at it; whether anybody still waits for it.
    Making { wanted: bool },
    /// It has this pid in the guest.
    There { pid: i32 },
    /// The guest was asked by this request to remove it; who is told then, and what.
    Going { request: u32, last: Option<(u32, Answer)> },
}

#[derive(Debug)]
struct Kept {
    id: String,
    stage: Stage,
    /// How often the guest's kernel has killed in it for lack of memory.
    kills: u64,
    trees: Vec<String>,
}

/// The containers, by the session of their own process.
#[derive(Default)]
pub(super) struct Containers {
    kept: BTreeMap<u32, Kept>,
    /// What is shown of them, and how many have brought it.
    shown: BTreeMap<String, usize>,
    trees: Option<Box<dyn Trees>>,
}

impl fmt::Debug for Containers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Containers")
            .field("kept", &self.kept)
            .field("shown", &self.shown)
            .finish_non_exhaustive()
    }
}

impl Containers {
    /// Whether `number` is one of them.
    pub fn has(&self, number: u32) -> bool {
        self.kept.contains_key(&number)
    }

    /// The number of container `id`.
    pub fn find(&self, id: &str) -> Option<u32> {
        self.kept.iter().find(|(_, kept)| kept.id == id).map(|(number, _)| *number)
    }

    /// How often the guest's kernel has killed in one.
    pub fn kills(&self, number: u32) -> u64 {
        self.kept.get(&number).map_or(0, |kept| kept.kills)
    }

    /// So often it was by now; whether there is such a container.
    pub fn count_kills(&mut self, number: u32, kills: u64) -> bool {
        self.kept.get_mut(&number).map(|kept| kept.kills = kills).is_some()
    }

    fn keep(&mut self, number: u32, id: &str, trees: Vec<String>) {
        let stage = Stage::Making { wanted: true };
        self.kept.insert(number, Kept { id: id.to_owned(), stage, kills: 0, trees });
    }

    fn pid_of(&self, id: &str) -> Option<i32> {
        match self.kept.values().find(|kept| kept.id == id)?.stage {
            Stage::There { pid } => Some(pid),
            _ => None,
        }
    }

    /// Shows all of it or nothing.
    fn show(&mut self, names: &[String], fds: Vec<OwnedFd>) -> Result<()> {
        let Some(trees) = &mut self.trees else {
            return Err(Error::unsupported("this machine takes no other containers"));
        };
        for (at, (name, tree)) in names.iter().zip(fds).enumerate() {
            let count = self.shown.entry(name.clone()).or_default();
            *count += 1;
            if *count == 1
                && let Err(err) = trees.add(name, tree)
            {
                let shown = names.get(..=at).unwrap_or_default();
                let unused = self.release(shown);
                self.hide(unused);
                return Err(err);
            }
        }
        Ok(())
    }

    /// One container has no use for these any more: those that none has.
    fn release(&mut self, names: &[String]) -> Vec<String> {
        let mut unused = Vec::new();
        for name in names {
            if let Some(count) = self.shown.get_mut(name).filter(|count| **count > 0) {
                *count -= 1;
                if *count == 0 {
                    unused.push(name.clone());
                }
            }
        }
        unused
    }

    /// Takes away those of `names` that nobody has brought again meanwhile, and tells which.
    fn hide(&mut self, mut names: Vec<String>) -> Vec<String> {
        names.retain(|name| self.shown.get(name) == Some(&0));
        for name in &names {
            self.shown.remove(name);
            if let Some(trees) = &mut self.trees {
                trees.remove(name);
            }
        }
        names
    }
}

impl Session {
    /// Lets other containers come to the machine: what they bring is shown by `trees`.
    pub fn take_others(&mut self, trees: impl Trees + 'static) {
        self.containers.trees = Some(Box::new(trees));
    }

    /// The machine's own container is to be made.
    pub(super) fn keep_first(&mut self, id: &str) {
        self.containers.keep(INIT, id, Vec::new());
    }

    /// Has another container made; its number.
    pub(super) fn take_in(&mut self, newcomer: Newcomer, fds: Vec<OwnedFd>) -> Result<u32> {
        let Newcomer { id, terminal, trees, joins } = newcomer;
        let mut fds = fds.into_iter();
        let lacking = || {
            Error::invalid("a container that comes to a machine brings a descriptor for each of its parts")
        };
        let document = fds.next().ok_or_else(lacking)?;
        let stdio: Vec<OwnedFd> = fds.by_ref().take(3).collect();
        let stdio = <[OwnedFd; 3]>::try_from(stdio).map_err(|_| lacking())?;
        if fds.len() != trees.len() {
            return Err(lacking());
        }
        if self.containers.find(&id).is_some() {
            return Err(Error::new(Kind::Exists, format!("the machine runs a container {id:?} already")));
        }
        if self.processes.len() >= MOST_SESSIONS {
            return Err(Error::new(Kind::System, format!("{MOST_SESSIONS} processes are served already")));
        }
        let number = self.take_number();
        let made = Process::new(number, stdio, terminal);
        let mut config = read(document)?;
        for (kind, owner) in &joins {
            self.join(&mut config, kind, owner)?;
        }
        // In the document: the program may ask for its terminal's size as soon as it runs.
        if let (Some((rows, columns)), Some(process)) = (made.size(), config.get_mut("process")) {
            process["consoleSize"] = json!({"height": rows, "width": columns});
        }
        self.containers.show(&trees, fds.collect())?;
        self.containers.keep(number, &id, trees);
        self.processes.insert(number, made);
        let create = Frame::Create { session: number, create: Create { id, config, notify: false } };
        if let Err(err) = self.send(&create) {
            self.forget(number);
            return Err(err);
        }
        Ok(number)
    }

    /// Has the document join the namespace of another container, by the pid that this one has in the guest.
    fn join(&self, config: &mut Value, kind: &str, owner: &str) -> Result<()> {
        let pid = self.containers.pid_of(owner).ok_or_else(|| {
            Error::new(
                Kind::NotRunning,
                format!("joining the {kind} namespace of {owner:?}, which is not there"),
            )
        })?;
        let name = locule_runtime::plan::namespaces::KINDS.iter().find(|(word, ..)| *word == kind);
        let list = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
        let entry = list.and_then(|list| list.iter_mut().find(|entry| entry["type"] == kind));
        match (name, entry) {
            (Some((_, _, name)), Some(entry)) => {
                entry["path"] = format!("/proc/{pid}/ns/{name}").into();
                Ok(())
            }
            _ => Err(Error::invalid(format!("the document has no {kind} namespace to be joined"))),
        }
    }

    /// A container waits for its start.
    pub(super) fn container_made(&mut self, number: u32, running: Running) {
        let Some(kept) = self.containers.kept.get_mut(&number) else { return };
        let wanted = matches!(kept.stage, Stage::Making { wanted: true });
        kept.stage = Stage::There { pid: running.pid };
        if number == INIT {
            return;
        }
        if wanted {
            self.tell(number, &Answer::Created(running.warnings));
        } else {
            self.remove_container(number, None);
        }
    }

    /// A container was not made: the guest has nothing of it.
    pub(super) fn container_failed(&mut self, number: u32) {
        match self.containers.kept.get(&number).map(|kept| &kept.stage) {
            // Its trees may have been looked at.
            Some(Stage::Making { .. } | Stage::There { .. }) => self.remove_container(number, None),
            Some(Stage::Going { .. }) | None => {}
        }
    }

    /// Nobody stands for a container any more: it goes.
    pub(super) fn abandon(&mut self, number: u32) {
        match self.containers.kept.get_mut(&number).map(|kept| &mut kept.stage) {
            // Asked for now, its removal would overtake it.
            Some(Stage::Making { wanted }) => *wanted = false,
            Some(Stage::There { .. }) => self.remove_container(number, None),
            Some(Stage::Going { last, .. }) => *last = None,
            None => {}
        }
    }

    /// The own process of a container has ended, and all that it wrote was passed on: who stands for it is told once
    /// nothing of it is left.
    pub(super) fn container_ended(&mut self, number: u32, key: u32, answer: Answer) {
        if matches!(self.containers.kept.get(&number).map(|kept| &kept.stage), Some(Stage::There { .. })) {
            self.remove_container(number, Some((key, answer)));
        }
    }

    fn remove_container(&mut self, number: u32, last: Option<(u32, Answer)>) {
        let Some(names) = self.containers.kept.get(&number).map(|kept| kept.trees.clone()) else { return };
        let trees = self.containers.release(&names);
        let request = self.ask_to_remove(number, trees);
        if let Some(kept) = self.containers.kept.get_mut(&number) {
            kept.stage = Stage::Going { request, last };
        }
    }

    fn ask_to_remove(&mut self, number: u32, trees: Vec<String>) -> u32 {
        let request = self.take_number();
        let _ = self.link.send(&Frame::Remove { request, remove: Remove { container: number, trees } });
        request
    }

    /// A request was answered, or failed; whether it was about the removal of a container.
    pub(super) fn container_gone(&mut self, answered: u32) -> bool {
        let gone = self.containers.kept.iter().find_map(|(number, kept)| match kept.stage {
            Stage::Going { request, .. } if request == answered => Some(*number),
            _ => None,
        });
        gone.map(|number| self.forget(number)).is_some()
    }

    fn forget(&mut self, number: u32) {
        let Some(kept) = self.containers.kept.remove(&number) else { return };
        let asked = matches!(kept.stage, Stage::Going { .. });
        if !asked {
            self.containers.release(&kept.trees);
            self.processes.remove(&number);
        }
        let trees = self.containers.hide(kept.trees);
        if asked && !trees.is_empty() {
            // Its kernel lets go of a name when it looks for it and finds it gone.
            self.ask_to_remove(number, trees);
        }
        if let Stage::Going { last: Some((key, answer)), .. } = kept.stage {
            self.answer(key, &answer);
            self.callers.remove(&key);
        }
        let waits = self.callers.iter().filter(|(_, caller)| caller.wants == Wants::Gone(number));
        for key in waits.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.answer(key, &Answer::Done);
            self.callers.remove(&key);
        }
    }
}

/// The document that a file holds.
fn read(file: OwnedFd) -> Result<Value> {
    let doing = || "reading the document of a container that comes to the machine";
    let mut text = Vec::new();
    File::from(file).take(LARGEST_DOCUMENT as u64 + 1).read_to_end(&mut text).doing(doing)?;
    serde_json::from_slice(&text).doing(doing)
}
