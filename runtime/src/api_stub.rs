//! Signatures that the command line is written against, until the real modules land.
//!
//! Owns nothing and does nothing: every act answers that it is not there yet.
//! Deleted when the library's own modules take its place.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::spec::{IntelRdt, Process, Resources, Spec, StringMap};

fn absent<T>(act: impl std::fmt::Display) -> Result<T> {
    Err(Error::unsupported(format!("{act}: this build has no runtime yet")))
}

pub mod cgroup {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum Manager {
        #[default]
        Cgroupfs,
        Systemd,
        Disabled,
    }

    /// Serialises to the `data` of runc's `stats` event.
    #[derive(Debug, Clone, Default, serde::Serialize)]
    pub struct Stats {}
}

pub mod warn {
    use std::sync::Mutex;

    static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

    /// Remembers a warning for whoever prints.
    pub fn warn(text: String) {
        if let Ok(mut list) = WARNINGS.lock() {
            list.push(text);
        }
    }

    /// Hands over the warnings so far.
    pub fn take() -> Vec<String> {
        WARNINGS.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default()
    }
}

#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens an existing root; never makes one.
    pub fn open(root: &Path) -> Result<Store> {
        std::fs::metadata(root).map_err(|err| {
            Error::sys(
                nix::errno::Errno::from_raw(err.raw_os_error().unwrap_or(0)),
                format!("opening the state root {}", root.display()),
            )
        })?;
        Ok(Store { root: root.to_owned() })
    }

    /// Opens the root, making it (0700) where it is absent; `sticky` sets the sticky bit.
    pub fn create_root(root: &Path, sticky: bool) -> Result<Store> {
        let _ = sticky;
        Ok(Store { root: root.to_owned() })
    }

    pub fn load(&self, id: &str) -> Result<Container> {
        let _ = &self.root;
        Err(Error::new(Kind::NotFound, format!("container {id} does not exist")))
    }

    pub fn ids(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateRequest {
    pub id: String,
    pub bundle: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub manager: cgroup::Manager,
    /// Whether refused cgroup permissions are ignored; `None` decides by the caller's privileges.
    pub rootless: Option<bool>,
}

pub fn create(_store: &Store, req: &CreateRequest) -> Result<()> {
    absent(format_args!("creating {}", req.id))
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunRequest {
    pub create: CreateRequest,
    pub detach: bool,
    pub keep: bool,
    pub no_subreaper: bool,
}

pub fn run(_store: &Store, req: &RunRequest) -> Result<i32> {
    absent(format_args!("running {}", req.create.id))
}

pub fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    match store.load(id) {
        Err(err) if err.kind() == Kind::NotFound && force => Ok(()),
        Err(err) => Err(err),
        Ok(_) => absent(format_args!("deleting {id}")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub oci_version: String,
    pub id: String,
    pub pid: i32,
    pub status: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub annotations: StringMap,
    pub owner: String,
}

#[derive(Debug)]
pub struct Container {
    id: String,
}

/// What `Watch::next` saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The kernel killed a process of the container for lack of memory.
    Oom,
    /// The time given to `next` is over.
    Timeout,
    /// The container's first process ended.
    Stopped,
}

#[derive(Debug)]
pub struct Watch {}

impl Watch {
    pub fn next(&mut self, _timeout: Duration) -> Result<Notice> {
        absent("watching a container")
    }
}

#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    pub process: Process,
    pub detach: bool,
    pub pid_file: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    pub ignore_paused: bool,
    pub cgroup: Option<String>,
}

impl Container {
    pub fn id(&self) -> &str {
        &self.id
    }
    pub fn status(&self) -> Result<Status> {
        absent("reading the state")
    }
    pub fn report(&self) -> Result<Report> {
        absent("reading the state")
    }
    /// The document that the container was created from.
    pub fn spec(&self) -> Result<Spec> {
        absent("reading the bundle")
    }
    pub fn start(&self) -> Result<()> {
        absent("starting")
    }
    pub fn kill(&self, _signal: i32, _all: bool) -> Result<()> {
        absent("signalling")
    }
    pub fn pause(&self) -> Result<()> {
        absent("pausing")
    }
    pub fn resume(&self) -> Result<()> {
        absent("resuming")
    }
    pub fn pids(&self) -> Result<Vec<i32>> {
        absent("listing processes")
    }
    pub fn update(&self, _resources: &Resources) -> Result<()> {
        absent("updating")
    }
    /// Changes the container's Intel RDT schemata.
    pub fn update_rdt(&self, _rdt: &IntelRdt) -> Result<()> {
        absent("updating Intel RDT")
    }
    pub fn stats(&self) -> Result<cgroup::Stats> {
        absent("reading statistics")
    }
    pub fn watch(&self) -> Result<Watch> {
        absent("watching")
    }
    pub fn exec(&self, _req: &ExecRequest) -> Result<i32> {
        absent("executing")
    }
}

/// What `check` found; an empty `refusals` means that the bundle can run here.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    pub refusals: Vec<String>,
    pub warnings: Vec<String>,
}

pub fn check(bundle: &Path) -> Result<Findings> {
    Spec::load(bundle)?;
    Ok(Findings::default())
}
