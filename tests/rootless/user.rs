//! A user of the machine who has a bundle and a run directory, and nothing else.
//!
//! Owns both, and the container that is made from the bundle. Never gives the user a right that an
//! ordinary login would not have.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::lane::{Bundle, LOCULE, Output, complete, unique, until};

/// The user's id, and the group's.
pub const UID: u32 = 4711;

/// The binary where every user can reach it.
pub fn locule() -> &'static Path {
    static COPIED: OnceLock<PathBuf> = OnceLock::new();
    COPIED.get_or_init(|| {
        let path = Path::new("/mnt").join(unique("locule"));
        fs::copy(LOCULE, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    })
}

/// A user, and the bundle that `locule spec --rootless` begins.
pub struct User {
    /// The bundle.
    pub bundle: Bundle,
    run: PathBuf,
    entrance: Vec<String>,
    wrapper: Vec<String>,
}

impl User {
    /// A user with the document of `spec --rootless`, but for the terminal.
    pub fn new() -> User {
        let bundle = Bundle::new();
        let run = bundle.directory("run");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
        own(&bundle.path(""));
        let mut user = User { bundle, run, entrance: Vec::new(), wrapper: Vec::new() };
        complete(user.command(&["spec", "--rootless"]).current_dir(user.bundle.path("run"))).ok();
        let written = fs::read(user.bundle.path("run/config.json")).unwrap();
        user.bundle.edit(|config| *config = serde_json::from_slice::<Value>(&written).unwrap());
        user.bundle.set("process.terminal", json!(false));
        user
    }

    /// Lets each call go through another program, such as `unshare`.
    pub fn through(mut self, wrapper: &[&str]) -> User {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Lets root run something before it steps down to the user, in each call.
    pub fn entered(mut self, entrance: &[&str]) -> User {
        self.entrance = entrance.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The run directory, which `XDG_RUNTIME_DIR` names.
    pub fn run_directory(&self) -> &Path {
        &self.run
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        self.bundle.id()
    }

    /// A program that the user runs, in the bundle's directory.
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let id = UID.to_string();
        let mut command = match self.entrance.split_first() {
            None => Command::new("setpriv"),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg("setpriv");
                command
            }
        };
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).args(&self.wrapper).arg(program);
        command.current_dir(self.bundle.path("")).stdin(Stdio::null());
        command.env_clear().env("XDG_RUNTIME_DIR", &self.run);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// A call of the binary; the document is written first.
    pub fn command(&self, words: &[&str]) -> Command {
        let text = serde_json::to_vec_pretty(self.bundle.config()).unwrap();
        fs::write(self.bundle.path("config.json"), text).unwrap();
        let mut command = self.program(locule());
        command.args(words);
        command
    }

    /// Calls the binary and waits for its end.
    #[track_caller]
    pub fn locule(&self, words: &[&str]) -> Output {
        complete(&mut self.command(words))
    }

    /// `run` in the foreground of `sh -c text`.
    #[track_caller]
    pub fn run(&mut self, text: &str) -> Output {
        self.bundle.script(text);
        self.locule(&["run", self.id()])
    }

    /// `create`, with the container's output in files.
    #[track_caller]
    pub fn create(&self) -> Output {
        let mut command = self.command(&["create", self.id()]);
        command.stdout(File::create(self.bundle.path("stdout")).unwrap());
        command.stderr(File::create(self.bundle.path("stderr")).unwrap());
        let status = command.status().unwrap().code().unwrap();
        Output { status, stdout: self.bundle.stdout(), stderr: self.bundle.stderr() }
    }

    /// `create` and `start` of a workload that stays until TERM.
    #[track_caller]
    pub fn up(&mut self) {
        self.bundle.script("trap exit TERM; while :; do sleep 1000 & wait; done");
        self.create().ok();
        self.locule(&["start", self.id()]).ok();
    }

    /// `exec` of `sh -c text`.
    #[track_caller]
    pub fn exec(&self, text: &str) -> Output {
        self.locule(&["exec", self.id(), "sh", "-c", text])
    }

    /// `exec --detach` of `sh -c text`, without a pipe that it would keep open.
    #[track_caller]
    pub fn exec_detached(&self, text: &str) {
        let mut command = self.command(&["exec", "--detach", self.id(), "sh", "-c", text]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{status}");
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(self.locule(&["state", self.id()]).ok()).unwrap()
    }

    /// Waits until the container has `status`.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        until(&format!("{} is {status}", self.id()), || self.state()["status"] == status);
    }

    /// The pid of the container's init.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().unwrap()).unwrap()
    }

    /// What `ps --format json` prints.
    #[track_caller]
    pub fn pids(&self) -> Vec<i32> {
        serde_json::from_str(self.locule(&["ps", "--format", "json", self.id()]).ok()).unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", self.id()]).stderr(Stdio::null()).status();
    }
}

/// Gives the user a tree, but not what is linked into it.
pub fn own(path: &Path) {
    chown(path, Some(UID), Some(UID)).unwrap();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            own(&entry.path());
        }
    }
}
