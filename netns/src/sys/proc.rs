//! What is read and set below /proc: switches of interfaces, identities of processes, namespaces.
//!
//! Owns nothing. Writes only below /proc/sys/net of the caller's own network namespace.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};

/// A process, told apart from a later one that got the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start: u64,
}

impl Process {
    /// The process `pid`, if it lives.
    pub fn of(pid: i32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, also parentheses and spaces.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Process { pid, start })
    }

    /// The calling process.
    pub fn own() -> Option<Process> {
        Process::of(std::process::id() as i32)
    }

    /// Whether it still runs.
    pub fn alive(&self) -> bool {
        Process::of(self.pid).as_ref() == Some(self)
    }
}

/// The identity of the host's boot; empty where it cannot be read.
pub fn boot_id() -> String {
    static BOOT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let read =
        || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim_end().to_owned();
    BOOT.get_or_init(read).clone()
}

/// The identity of a network namespace: device and inode of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceId {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

impl NamespaceId {
    /// Of an open namespace.
    pub fn of(file: &File) -> Result<NamespaceId> {
        let meta = file.metadata().doing(|| "looking at the network namespace")?;
        Ok(NamespaceId { dev: meta.dev(), ino: meta.ino() })
    }

    /// Of the namespace file at `path`, where there is one.
    pub fn at(path: &Path) -> Option<NamespaceId> {
        let meta = fs::metadata(path).ok()?;
        Some(NamespaceId { dev: meta.dev(), ino: meta.ino() })
    }
}

/// The caller's own network namespace.
pub fn own_namespace() -> Result<File> {
    File::open("/proc/thread-self/ns/net").doing(|| "opening the caller's network namespace")
}

/// Sets `net/NAME` below /proc/sys, unless it has that value; true if it was changed.
pub fn set(name: &str, value: &str) -> Result<bool> {
    let path = format!("/proc/sys/net/{name}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim_end() == value) {
        return Ok(false);
    }
    fs::write(&path, value).doing(|| format!("writing {value} to {path}"))?;
    Ok(true)
}

/// The value of `net/NAME` below /proc/sys; `None` where the kernel has no such switch.
pub fn get(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/net/{name}")).ok().map(|text| text.trim_end().to_owned())
}
