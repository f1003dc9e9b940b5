//! Where machines live: a directory each, and what runs of them.
//!
//! Owns paths and names. Never keeps an index: what is there is read from the directories.

use std::path::{Path, PathBuf};

use crate::{Definition, Error, Kind, Result};

/// Where machines, images and networks are kept, by default.
pub const DATA: &str = "/var/lib/locule";
/// Where the state of containers is, by default.
pub const RUN: &str = "/run/locule";
/// Most bytes of a machine's name, which is a host name, too.
const NAME_MAX: usize = 63;

/// The machines of a host.
#[derive(Debug, Clone)]
pub struct Home {
    data: PathBuf,
    run: PathBuf,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct Machine {
    name: String,
    dir: PathBuf,
    run: PathBuf,
}

impl Home {
    /// The machines below `data`, whose containers' state is in the state root `run`.
    pub fn new(data: &Path, run: &Path) -> Home {
        Home { data: data.to_owned(), run: run.to_owned() }
    }

    /// The directory of machines, images and networks.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The state root of the runtime.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The machine called `name`, whether or not it is there.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        check_name(name)?;
        Ok(Machine {
            name: name.to_owned(),
            dir: self.data.join("machines").join(name),
            // The leading dot keeps it out of the list of containers.
            run: self.run.join(".machines").join(name),
        })
    }

    /// The machine called `name`, which must be there.
    pub fn find(&self, name: &str) -> Result<Machine> {
        let machine = self.machine(name)?;
        if !machine.dir.join(crate::definition::FILE).is_file() {
            return Err(Error::new(Kind::NotFound, format!("no machine {name:?}: locule ls lists them")));
        }
        Ok(machine)
    }
}

impl Machine {
    /// Its name, which is also the id of its container.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory: `machine.toml`, the root file system's data, snapshots, logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its directory of this boot: the bundle, the keeper's socket, how it last ended.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Its definition.
    pub fn definition(&self) -> Result<Definition> {
        Definition::load(&self.dir)
    }
}

/// The container of a machine, if there is one.
pub(crate) fn container(home: &Home, machine: &Machine) -> Result<Option<locule_runtime::Container>> {
    match locule_runtime::Store::open(home.run()) {
        Ok(store) => match store.load(machine.name()) {
            Ok(container) => Ok(Some(container)),
            Err(err) if err.kind() == Kind::NotFound => Ok(None),
            Err(err) => Err(err),
        },
        Err(err) if err.errno() == Some(nix::errno::Errno::ENOENT) => Ok(None),
        Err(err) => Err(err),
    }
}

/// The networks of the host.
pub(crate) fn networks(home: &Home) -> Result<locule_netns::Networks> {
    locule_netns::Networks::open(&home.data.join("networks"), &home.run.join(".networks"))
        .map_err(crate::lift)
}

/// Writes a file whole, on the disk before it has its name.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    locule_runtime::state::write_atomic(path, bytes)
}

/// Serializes changes of one machine.
pub(crate) fn lock(machine: &Machine, _act: &str) -> Result<nix::fcntl::Flock<std::fs::File>> {
    use crate::Context;
    let doing = || format!("locking machine {}", machine.name);
    std::fs::create_dir_all(&machine.run).doing(doing)?;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(machine.run.join("lock"))
        .doing(doing)?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .doing(doing)
}

/// Refuses what cannot be a host name.
pub fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= NAME_MAX
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    match fits {
        true => Ok(()),
        false => Err(Error::invalid(format!("the name {name:?}"))
            .hint(format!("use lower-case letters, digits and dashes between, at most {NAME_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        for name in ["web1", "a", "my-db-2", &"x".repeat(63)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a.b", "../x", "a/b", "a b", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
