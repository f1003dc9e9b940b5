//! What a keeper tells others: who it is, how its machine fares, how that last ended.
//!
//! Owns the form of `keeper.json` and `exit.json` in the machine's runtime directory. Both are written whole; whoever
//! waits for a change watches the directory.

use std::path::Path;

use locule_runtime::state::{ProcessId, write_atomic};
use locule_runtime::sys::clone::Exit;
use serde::{Deserialize, Serialize};

use crate::{Context, Machine, Result};

/// Who keeps the machine, and how it fares.
pub const KEEPER: &str = "keeper.json";
/// How it last ended.
pub const EXIT: &str = "exit.json";

/// Where a kept machine is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is being made.
    #[default]
    Starting,
    /// Its first process runs.
    Running,
    /// It has ended and is started again after a pause.
    Waiting,
    /// It was asked to end.
    Stopping,
}

/// How its health command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It has not succeeded yet, and failures do not count yet.
    Starting,
    /// It succeeded last.
    Healthy,
    /// It failed too often in a row.
    Unhealthy,
}

/// `keeper.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keeper {
    /// The keeper itself.
    pub keeper: ProcessId,
    /// Where the machine is in its life.
    pub phase: Phase,
    /// Since when, RFC 3339.
    pub since: String,
    /// Its init, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<i32>,
    /// Whether it counts as started (`boot.ready`).
    pub ready: bool,
    /// Its health, where it is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How often it was started again in a row.
    pub restarts: u32,
    /// The systemd unit that the keeper is the main process of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Why the last start failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The last words of the machine for its service manager (`STATUS=`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

impl Keeper {
    /// What the keeper of `machine` says, whether or not it still lives; `None` where there was none since boot.
    pub fn read(machine: &Machine) -> Option<Keeper> {
        let text = std::fs::read(machine.run().join(KEEPER)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// What the living keeper of `machine` says.
    pub fn living(machine: &Machine) -> Option<Keeper> {
        Keeper::read(machine).filter(|keeper| keeper.keeper.alive())
    }

    /// Makes it known.
    pub(super) fn write(&self, run: &Path) -> Result<()> {
        write_json(&run.join(KEEPER), self)
    }
}

/// `exit.json`: how the first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit code; absent when a signal ended it, or nobody saw it end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed one of its processes for lack of memory.
    #[serde(default)]
    pub oom: bool,
    /// Whether it asked for a reboot.
    #[serde(default)]
    pub reboot: bool,
    /// Whether its owner asked for its end.
    #[serde(default)]
    pub stopped: bool,
    /// When.
    pub time: String,
}

impl Ended {
    /// How it ended, as `exit` says; `None` when nobody saw it.
    pub fn new(exit: Option<Exit>, oom: bool, stopped: bool, time: String) -> Ended {
        let (code, signal) = match exit {
            Some(Exit::Code(code)) => (Some(code), None),
            Some(Exit::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        // reboot(2) in a pid namespace ends its init by these; nobody inside can send them to it otherwise.
        Ended { code, signal, oom, reboot: signal == Some(libc::SIGHUP), stopped, time }
    }

    /// How the machine last ended since boot.
    pub fn read(machine: &Machine) -> Option<Ended> {
        let text = std::fs::read(machine.run().join(EXIT)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Makes the last end its owner's, who asked while nothing ran that could end: what was to follow does not.
    pub fn claim(machine: &Machine) -> Result<()> {
        match Ended::read(machine) {
            Some(ended) if !ended.stopped => Ended { stopped: true, ..ended }.write(machine.run()),
            _ => Ok(()),
        }
    }

    /// Whether it switched itself off (`poweroff` inside).
    pub fn halted(&self) -> bool {
        self.signal == Some(libc::SIGINT)
    }

    /// Whether that is what a restart policy calls a failure.
    pub fn failed(&self) -> bool {
        self.code != Some(0) && !self.halted() && !self.reboot
    }

    /// The exit code that a shell would show; 255 where nobody knows.
    pub fn shell_code(&self) -> i32 {
        match (self.code, self.signal) {
            (Some(code), _) => code,
            (None, Some(libc::SIGINT | libc::SIGHUP)) => 0,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 255,
        }
    }

    /// In words.
    pub fn told(&self) -> String {
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(libc::SIGHUP)) => "it rebooted".into(),
            (None, Some(libc::SIGINT)) => "it switched itself off".into(),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "nobody saw how".into(),
        };
        if self.oom { format!("{how}, out of memory") } else { how }
    }

    pub(super) fn write(&self, run: &Path) -> Result<()> {
        write_json(&run.join(EXIT), self)
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).doing(|| format!("encoding {}", path.display()))?;
    write_atomic(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let ended = |exit| Ended::new(exit, false, false, String::new());
        let reboot = ended(Some(Exit::Signal(libc::SIGHUP)));
        assert!(reboot.reboot && !reboot.failed() && reboot.shell_code() == 0);
        let halt = ended(Some(Exit::Signal(libc::SIGINT)));
        assert!(halt.halted() && !halt.failed() && !halt.reboot && halt.shell_code() == 0);
        let killed = ended(Some(Exit::Signal(libc::SIGKILL)));
        assert!(killed.failed() && killed.shell_code() == 137);
        assert!(!ended(Some(Exit::Code(0))).failed());
        assert!(ended(Some(Exit::Code(3))).failed());
        assert_eq!(ended(None).shell_code(), 255, "what nobody saw is no success");
        assert!(ended(None).failed());
    }
}
