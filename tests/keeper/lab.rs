//! A home of its own for each test, and waits on what keepers write.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test counts as hung; nothing is asserted about time.
const HUNG: Duration = Duration::from_secs(120);

/// Machines of one name have one cgroup, whatever their home: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

pub struct Lab {
    dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    pub fn new() -> Lab {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Lab { _alone, dir: TempDir::with_prefix_in("keeper-", "/mnt").unwrap() }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_locule"));
        command.arg("--root").arg(self.dir.path().join("run"));
        command.env("LOCULE_DATA", self.dir.path().join("data")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command().args(words).output().unwrap()
    }

    /// Runs it, which must succeed; its standard output.
    pub fn good(&self, words: &[&str]) -> String {
        let done = self.run(words);
        let err = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "locule {words:?}: {}: {err}", done.status);
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// A machine that runs `script` by a shell, made and not started; `more` is added to its definition.
    pub fn make(&self, name: &str, script: &str, more: &str) {
        self.good(&[
            "launch",
            "--no-start",
            "--network",
            "none",
            "--name",
            name,
            "host",
            "--",
            "sh",
            "-c",
            script,
        ]);
        let path = self.dir(name).join("machine.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\n{more}\n")).unwrap();
    }

    /// Its console is a terminal, once it is started.
    pub fn set_terminal(&self, name: &str) {
        let path = self.dir(name).join("machine.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("[init]"), "{text}");
        std::fs::write(&path, text.replace("[init]", "[init]\nterminal = true")).unwrap();
    }

    /// A machine like that of [`Lab::make`], started.
    pub fn launch(&self, name: &str, script: &str, more: &str) {
        self.make(name, script, more);
        self.good(&["start", name]);
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.dir.path().join("data/machines").join(name)
    }

    pub fn run_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join("run/.machines").join(name)
    }

    fn json(&self, name: &str, file: &str) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.run_dir(name).join(file)).ok()?).ok()
    }

    pub fn keeper(&self, name: &str) -> Option<Value> {
        self.json(name, "keeper.json")
    }

    pub fn ended(&self, name: &str) -> Option<Value> {
        self.json(name, "exit.json")
    }

    pub fn keeper_pid(&self, name: &str) -> i32 {
        i32::try_from(self.keeper(name).unwrap()["keeper"]["pid"].as_i64().unwrap()).unwrap()
    }

    pub fn init(&self, name: &str) -> i64 {
        self.keeper(name).unwrap()["init"].as_i64().unwrap()
    }

    /// Waits until the keeper of a machine is gone by itself.
    pub fn over(&self, name: &str) -> Value {
        until("the end of a machine", || self.keeper(name).is_none() && self.ended(name).is_some());
        self.ended(name).unwrap()
    }

    pub fn log(&self, name: &str) -> String {
        self.good(&["logs", name])
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let machines =
            std::fs::read_dir(self.dir.path().join("data/machines")).into_iter().flatten().flatten();
        for machine in machines {
            let _ = self.command().args(["rm", "--force"]).arg(machine.file_name()).output();
        }
    }
}

/// Waits for `what`.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < HUNG, "hung: waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// The child of a keeper that is no machine's init: its attendant.
pub fn attendant(keeper: i32) -> i32 {
    attendant_of(keeper).unwrap()
}

/// The same; `None` between two of them.
pub fn attendant_of(keeper: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).find(|pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| words.split(|byte| *byte == 0).any(|word| word == b"stay"))
    })
}
