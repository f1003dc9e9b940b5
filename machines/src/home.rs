//! Where machines live: a directory each, and what runs of them.
//!
//! Owns paths and names. Never keeps an index: what is there is read from the directories.

use std::path::{Path, PathBuf};

use locule_images::Store;
use locule_netns::Networks;

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

    /// The directory of the machines.
    pub fn machines(&self) -> PathBuf {
        self.data.join("machines")
    }

    /// The images that machines are made from.
    pub fn images(&self) -> Result<Store> {
        Store::open(&self.data.join("images")).map_err(crate::lift)
    }

    /// The networks that machines are on.
    pub fn networks(&self) -> Result<Networks> {
        Networks::open(&self.data.join("networks"), &self.run.join(".networks")).map_err(crate::lift)
    }

    /// Names of all machines, sorted.
    pub fn list(&self) -> Result<Vec<String>> {
        let dir = self.machines();
        let mut names = crate::claims::names(&dir)?;
        names.retain(|name| dir.join(name).join(crate::definition::FILE).is_file());
        Ok(names)
    }

    /// The machine called `name`, whether or not it is there.
    pub fn machine(&self, name: &str) -> Result<Machine> {
        check_name(name)?;
        Ok(Machine {
            name: name.to_owned(),
            dir: self.machines().join(name),
            // The leading dot keeps it out of the list of containers.
            run: self.run.join(".machines").join(name),
        })
    }

    /// The machine called `name`, which must be there.
    pub fn find(&self, name: &str) -> Result<Machine> {
        let machine = self.machine(name)?;
        if !machine.exists() {
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

    /// Whether it is there: its definition is what comes last and goes first.
    pub fn exists(&self) -> bool {
        self.dir.join(crate::definition::FILE).is_file()
    }

    /// Its definition.
    pub fn definition(&self) -> Result<Definition> {
        Definition::load(&self.dir)
    }
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
