//! Snapshots, clones and archives of machines: whose locks are held, who stands still, what a copy is not given.
//!
//! Owns that order. How a disk is copied is the storage's affair.

use std::io::{Read, Write};

use locule_runtime::Container;
use toml_edit::{DocumentMut, Item};

use crate::life::{self, Status};
use crate::storage::{self, Hold, Import, Progress, Snapshot};
use crate::{Definition, Error, Home, Kind, Machine, Result, file, root};

/// What of an interface is one machine's alone.
const OF_ONE: &[&str] = &["address", "mac", "ports"];

/// A running machine, held by its cgroup.
struct Running(Container);

impl Hold for Running {
    fn hold(&self) -> Result<()> {
        self.0.pause()
    }

    fn release(&self) {
        // Where it is not paused any more there is nothing to do, and nobody to tell.
        let _ = self.0.resume();
    }
}

/// How the snapshot begins that an export is made of, and what it says of itself.
const MOMENT: &str = "export-";
const FOR_AN_EXPORT: &str = "for an export";

/// How the machine is brought to stand still; none if nothing of it moves.
fn hold(home: &Home, machine: &Machine) -> Result<Option<Running>> {
    match life::status(home, machine)? {
        Status::Running => Ok(life::container(home, machine)?.map(Running)),
        Status::Paused | Status::Stopped | Status::Failed { .. } => Ok(None),
        status @ (Status::Starting | Status::Stopping) => {
            Err(Error::new(Kind::State, format!("machine {} is {}", machine.name(), status.word()))
                .hint("try again when it is done"))
        }
    }
}

/// Saves disk and definition of a machine, which may run.
pub fn snapshot(
    home: &Home,
    name: &str,
    snapshot: &str,
    description: &str,
    progress: &mut dyn Progress,
) -> Result<Snapshot> {
    let machine = home.find(name)?;
    let _lock = machine.lock("snapshot create")?;
    let (definition, images) = (machine.definition()?, home.images()?);
    let hold = hold(home, &machine)?;
    let hold = hold.as_ref().map(|hold| hold as &dyn Hold);
    root::storage(&machine, &definition, &images)?.snapshot(snapshot, description, hold, progress)
}

/// All snapshots of a machine, the oldest first.
pub fn snapshots(home: &Home, name: &str) -> Result<Vec<Snapshot>> {
    let machine = home.find(name)?;
    root::storage(&machine, &machine.definition()?, &home.images()?)?.snapshots()
}

/// Puts a machine's disk, and with `definition` its definition, back to what was saved.
pub fn restore(
    home: &Home,
    name: &str,
    snapshot: &str,
    definition: bool,
    progress: &mut dyn Progress,
) -> Result<()> {
    let machine = home.find(name)?;
    let _lock = machine.lock("snapshot restore")?;
    let status = life::status(home, &machine)?;
    if !status.is_down() {
        return Err(Error::new(Kind::State, format!("machine {name} is {}", status.word()))
            .hint(format!("stop it first: locule stop {name}")));
    }
    let (now, images) = (machine.definition()?, home.images()?);
    let storage = root::storage(&machine, &now, &images)?;
    let saved = match definition {
        true => Some(storage.snapshot_definition(snapshot)?),
        false => None,
    };
    life::clean(home, &machine)?;
    storage.restore(snapshot, progress)?;
    match saved {
        Some(text) => {
            file::write_whole(&machine.dir().join(crate::definition::FILE), text.as_bytes())?;
            crate::boot::enlist(home, &machine, &machine.definition()?)
        }
        None => Ok(()),
    }
}

/// Removes a snapshot.
pub fn remove_snapshot(home: &Home, name: &str, snapshot: &str) -> Result<()> {
    let machine = home.find(name)?;
    let _lock = machine.lock("snapshot rm")?;
    root::storage(&machine, &machine.definition()?, &home.images()?)?.remove_snapshot(snapshot)
}

/// Gives back what the disk of a machine does not use; how many bytes that were.
pub fn compact(home: &Home, name: &str) -> Result<u64> {
    let machine = home.find(name)?;
    let _lock = machine.lock("compact")?;
    root::storage(&machine, &machine.definition()?, &home.images()?)?.compact()
}

/// Makes the machine `new` as a copy of another, as it is now or as one of its snapshots was.
///
/// It has ids, a machine id and addresses of its own; tells what it was not given.
pub fn clone(
    home: &Home,
    name: &str,
    snapshot: Option<&str>,
    new: &str,
    progress: &mut dyn Progress,
) -> Result<Vec<String>> {
    let machine = home.find(name)?;
    if home.machine(new)?.name() == machine.name() {
        return Err(Error::invalid(format!("cloning {name}: the new machine has the same name")));
    }
    let images = home.images()?;
    // The new one's lock is taken inside: whoever clones the other way round would wait for this one first.
    let _lock = machine.lock("clone")?;
    let now = machine.definition()?;
    let storage = root::storage(&machine, &now, &images)?;
    let (from, text, hold) = match snapshot {
        Some(snapshot) => (storage.snapshot_root(snapshot)?, storage.snapshot_definition(snapshot)?, None),
        None => {
            let path = machine.dir().join(crate::definition::FILE);
            let text = std::fs::read_to_string(&path);
            let text = crate::Context::doing(text, || format!("reading {}", path.display()))?;
            (machine.dir().join(storage::ROOT), text, hold(home, &machine)?)
        }
    };
    let (text, left_out) = of_its_own(&text)?;
    let definition = Definition::parse(&text, &machine.dir().join(crate::definition::FILE))?;
    life::make(home, new, "clone", &definition, &text, |made, _| {
        let storage = root::storage(made, &definition, &images)?;
        storage.clone_from(&from, hold.as_ref().map(|hold| hold as &dyn Hold), progress)?;
        storage.forget_identity()
    })?;
    Ok(left_out)
}

/// The definition of a copy, and what it lacks of the original's.
fn of_its_own(text: &str) -> Result<(String, Vec<String>)> {
    let mut document: DocumentMut = text.parse().map_err(|err: toml_edit::TomlError| {
        Error::invalid(format!("reading the definition: {}", err.message()))
    })?;
    let mut left_out = Vec::new();
    if document.remove("hostname").is_some() {
        left_out.push("hostname".to_owned());
    }
    if let Some(networks) = document.get_mut("network").and_then(Item::as_table_like_mut) {
        for (name, interface) in networks.iter_mut() {
            let Some(interface) = interface.as_table_like_mut() else { continue };
            for key in OF_ONE {
                let empty = |item: &Item| item.as_array().is_some_and(|list| list.is_empty());
                if interface.remove(key).is_some_and(|item| !empty(&item)) {
                    left_out.push(format!("network.{}.{key}", name.get()));
                }
            }
        }
    }
    Ok((document.to_string(), left_out))
}

/// Writes a machine, as it is now or as one of its snapshots was, to `out`. One that runs is saved first.
pub fn export(
    home: &Home,
    name: &str,
    snapshot: Option<&str>,
    image: bool,
    out: impl Write,
    progress: &mut dyn Progress,
) -> Result<()> {
    let machine = home.find(name)?;
    let _lock = machine.lock("export")?;
    let (definition, images) = (machine.definition()?, home.images()?);
    let storage = root::storage(&machine, &definition, &images)?;
    let moment = format!("{MOMENT}{}", std::process::id());
    let hold = match snapshot {
        Some(_) => None,
        None => hold(home, &machine)?,
    };
    let saved = match (snapshot, &hold) {
        (Some(snapshot), _) => Some(snapshot),
        (None, None) if !life::is_mounted(&machine) => None,
        (None, hold) => {
            let hold = hold.as_ref().map(|hold| hold as &dyn Hold);
            storage.snapshot(&moment, FOR_AN_EXPORT, hold, &mut storage::Silent)?;
            Some(moment.as_str())
        }
    };
    let act = || {
        let (from, text) = match saved {
            Some(saved) => (storage.snapshot_root(saved)?, storage.snapshot_definition(saved)?),
            None => {
                let path = machine.dir().join(crate::definition::FILE);
                let text = std::fs::read_to_string(&path);
                let text = crate::Context::doing(text, || format!("reading {}", path.display()))?;
                (machine.dir().join(storage::ROOT), text)
            }
        };
        storage::export(&images, &from, name, &text, image, out, progress)
    };
    let written = act().map_err(|err| err.context(format!("exporting machine {name}")));
    if snapshot.is_none() && saved.is_some() {
        let removed = storage.remove_snapshot(&moment);
        return written.and(removed);
    }
    written
}

/// Whether an interrupted call left something of a machine's disk. Takes no lock, so that one at work is taken for it.
pub fn has_rests(machine: &Machine) -> bool {
    let any = |dir: std::path::PathBuf, is_rest: fn(&str) -> bool| {
        std::fs::read_dir(dir).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| is_rest(&entry.file_name().to_string_lossy())))
        })
    };
    any(machine.dir().to_owned(), |name| name == storage::REST)
        || any(machine.dir().join(storage::SNAPSHOTS), |name| name.starts_with('.') || is_of_an_export(name))
}

fn is_of_an_export(name: &str) -> bool {
    name.strip_prefix(MOMENT).is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes what interrupted calls left of a machine's disk. The caller holds the lock, so that nobody is at work.
pub fn clear_rests(home: &Home, machine: &Machine) -> Result<()> {
    let images = home.images()?;
    let storage = root::any(machine.dir(), &images)?;
    storage.clear_rests()?;
    for snapshot in storage.snapshots()? {
        if is_of_an_export(&snapshot.name) && snapshot.description == FOR_AN_EXPORT {
            storage.remove_snapshot(&snapshot.name)?;
        }
    }
    Ok(())
}

/// Makes a machine of an archive, called `new` or as it was; tells its name.
pub fn import(
    home: &Home,
    from: impl Read + Send,
    new: Option<&str>,
    progress: &mut dyn Progress,
) -> Result<String> {
    let import = Import::open(from)?;
    let name = new.unwrap_or(&import.head.name).to_owned();
    let text = import.definition.clone();
    let place = home.machine(&name)?.dir().join(crate::definition::FILE);
    let definition = Definition::parse(&text, &place)
        .map_err(|err| err.context("reading the definition in the archive"))?;
    let images = home.images()?;
    life::make(home, &name, "import", &definition, &text, |made, _| {
        import.store(&root::storage(made, &definition, &images)?, progress)
    })?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_given_nothing_of_one_alone() {
        let text = "# mine\nimage = \"host\"\nhostname = \"web\"\n\n[network.eth0]\nnetwork = \"lan\" # keep\n\
            address = [\"10.0.0.2\"]\nmac = \"02:00:00:00:00:01\"\nports = [\"80:80\"]\n";
        let (copy, left_out) = of_its_own(text).unwrap();
        assert_eq!(copy, "# mine\nimage = \"host\"\n\n[network.eth0]\nnetwork = \"lan\" # keep\n");
        assert_eq!(left_out, ["hostname", "network.eth0.address", "network.eth0.mac", "network.eth0.ports"]);
        assert_eq!(of_its_own("image = \"host\"\n").unwrap(), ("image = \"host\"\n".to_owned(), vec![]));
    }
}
