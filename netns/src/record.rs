//! What is remembered of a container's networks between two calls: one file a container.
//!
//! Owns the files' form. Everything that detaching needs stands in them, so that a definition may
//! be gone by then.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::{Cidr, Mac};
use crate::error::{Context, Error, Kind as ErrorKind, Result};
use crate::network::Kind;
use crate::port::Publish;
use crate::rate::Rates;
use crate::sys::file;
use crate::sys::proc::{NamespaceId, Process, boot_id};

/// Version of the files' form.
const VERSION: u32 = 1;

/// Whose the network namespace is: as long as it lives, so do the attachments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// A process in the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// A file that the namespace is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<PathBuf>,
    /// The namespace.
    pub namespace: NamespaceId,
    /// The boot of the host: pids and namespaces have the same numbers again after the next one.
    #[serde(default)]
    pub boot: String,
}

impl Owner {
    /// The namespace of the process `pid`, opened.
    pub fn process(pid: i32) -> Result<(Owner, File)> {
        let gone = || Error::new(ErrorKind::NotFound, format!("process {pid} is gone"));
        let process = Process::of(pid).ok_or_else(gone)?;
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).doing(|| format!("opening {path}"))?;
        // The pid may have changed hands since it was looked at.
        if !process.alive() {
            return Err(gone());
        }
        let namespace = NamespaceId::of(&file)?;
        Ok((Owner { process: Some(process), pin: None, namespace, boot: boot_id() }, file))
    }

    /// The namespace bound to `path`, opened.
    pub fn pinned(path: &Path) -> Result<(Owner, File)> {
        let file = File::open(path).doing(|| format!("opening the network namespace {}", path.display()))?;
        let namespace = NamespaceId::of(&file)?;
        Ok((Owner { process: None, pin: Some(path.to_owned()), namespace, boot: boot_id() }, file))
    }

    /// The file that leads to the namespace.
    pub fn path(&self) -> Option<PathBuf> {
        match (&self.process, &self.pin) {
            (_, Some(pin)) => Some(pin.clone()),
            (Some(process), None) => Some(format!("/proc/{}/ns/net", process.pid).into()),
            (None, None) => None,
        }
    }

    /// Whether the namespace is still theirs.
    pub fn lives(&self) -> bool {
        let process = self.process.as_ref().is_none_or(Process::alive);
        self.boot == boot_id()
            && process
            && self.path().and_then(|path| NamespaceId::at(&path)) == Some(self.namespace)
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// One interface of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wired {
    /// The network's name.
    pub network: String,
    /// How it is wired.
    pub kind: Kind,
    /// The bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The interface of the host: the host's end, or the one that was moved in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The interface in the container.
    pub interface: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<Cidr>,
    /// Whether senders' addresses are checked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub guard: bool,
    /// Whether nobody but the host reaches it unasked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub firewall: bool,
    /// How many classes its traffic is counted by.
    #[serde(default)]
    pub classes: u32,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Publish>,
    /// Names that its neighbours know it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Limits.
    #[serde(default, skip_serializing_if = "Rates::is_unlimited")]
    pub rates: Rates,
    /// The number of its class, where the network has a rate that it gets a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u16>,
    /// The hardware address of an interface that was moved in: by it the interface is known again when the container
    /// has ended without giving it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Mac>,
    /// The host's interface that answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The CNI configuration that it was made with, and what its plugins answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni: Option<crate::cni::Cached>,
    /// Files of its claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<PathBuf>,
}

impl Wired {
    /// Whether its traffic is led through queues.
    pub fn is_shaped(&self) -> bool {
        matches!(self.kind, Kind::Bridge | Kind::Routed)
            && (self.slot.is_some() || !self.rates.is_unlimited())
    }
}

/// The networks of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the form.
    pub version: u32,
    /// The container.
    pub container: String,
    /// Whose its namespace is.
    pub owner: Owner,
    /// Who is at work on it; absent once what is written here is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working: Option<Process>,
    /// Its interfaces.
    pub interfaces: Vec<Wired>,
}

impl Record {
    /// Whether it only keeps files for a container that has no namespace yet.
    pub fn is_prepared(&self) -> bool {
        self.interfaces.is_empty() && self.working.is_some()
    }

    /// A container without interfaces.
    pub fn new(container: &str, owner: Owner) -> Record {
        Record {
            version: VERSION,
            container: container.to_owned(),
            owner,
            working: None,
            interfaces: Vec::new(),
        }
    }
}

/// The directory of records.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// The records in `dir`.
    pub fn new(dir: &Path) -> Records {
        Records { dir: dir.to_owned() }
    }

    fn path(&self, container: &str) -> PathBuf {
        self.dir.join(format!("{container}.json"))
    }

    /// Of one container.
    pub fn load(&self, container: &str) -> Result<Option<Record>> {
        crate::network::check_name(container)?;
        let path = self.path(container);
        let Some(text) = file::read(&path)? else { return Ok(None) };
        let record: Record = serde_json::from_slice(&text).doing(|| format!("reading {}", path.display()))?;
        if record.version != VERSION {
            return Err(Error::invalid(format!("{} is of an unknown version", path.display())));
        }
        Ok(Some(record))
    }

    /// Writes one.
    pub fn save(&self, record: &Record) -> Result<()> {
        file::make_dir(&self.dir)?;
        let text = serde_json::to_vec(record).doing(|| "encoding the record")?;
        file::replace(&self.path(&record.container), &text)
    }

    /// Removes one.
    pub fn remove(&self, container: &str) -> Result<()> {
        file::remove(&self.path(container))
    }

    /// All containers.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = file::names(&self.dir)?;
        Ok(names.into_iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect())
    }

    /// All records.
    pub fn all(&self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        for name in self.names()? {
            all.extend(self.load(&name)?);
        }
        Ok(all)
    }
}
