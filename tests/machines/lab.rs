//! What every test uses: a host with directories and a network namespace of its own.
//!
//! Owns the directory of a lab, and ends what was made in it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

/// The binary under test.
pub const LOCULE: &str = env!("CARGO_BIN_EXE_locule");
/// A call that takes longer hangs; it is no measure of speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A host.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    tag: String,
    network: File,
}

impl Lab {
    /// A new one.
    #[track_caller]
    pub fn new() -> Lab {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let tag = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new("/mnt").join(&tag);
        fs::create_dir(&dir).expect("run these tests as tests/lane cargo test --test machines");
        let network = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Lab { dir, tag, network: network.join().unwrap() }
    }

    /// A machine's name that no other test has: cgroups are the whole system's.
    pub fn name(&self, word: &str) -> String {
        format!("{word}-{}", self.tag)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The state root.
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// A directory for what the test itself makes.
    pub fn own(&self) -> PathBuf {
        let dir = self.dir.join("own");
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A tree of busybox and nothing else, which an image can be made of.
    pub fn tree(&self) -> PathBuf {
        let tree = self.own().join("tree");
        for dir in ["bin", "etc", "root", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(tree.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
        for name in ["sh", "sleep", "echo", "df", "cat"] {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(name)).unwrap();
        }
        tree
    }

    /// A call in the lab, to be started.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let network = self.network.try_clone().unwrap();
        let mut command = Command::new(program);
        command.args(args).env("LOCULE_DATA", self.data()).stdin(Stdio::null());
        // SAFETY: setns(2) alone, between fork and exec.
        #[allow(unsafe_code, reason = "what runs between fork and exec is unsafe to std")]
        unsafe {
            command.pre_exec(move || Ok(setns(&network, CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// A call of locule, to be started.
    pub fn call(&self, args: &[&str]) -> Command {
        let run = self.run();
        let all = [&["--root", run.to_str().unwrap()], args].concat();
        self.command(LOCULE, &all)
    }

    /// Calls locule and waits for its end.
    pub fn locule(&self, args: &[&str]) -> Output {
        self.call(args).output().unwrap()
    }

    /// Calls locule, which must succeed; its output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.locule(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "locule {}: {:?}: {said}", args.join(" "), output.status.code());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Calls locule, which must fail; its words.
    #[track_caller]
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.locule(args);
        assert!(!output.status.success(), "locule {} succeeded", args.join(" "));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs a line of the shell in a machine, which must succeed.
    #[track_caller]
    pub fn sh(&self, name: &str, line: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-ec", line])
    }

    /// What `ls` says of a machine; nothing if there is none.
    #[track_caller]
    pub fn status(&self, name: &str) -> Option<String> {
        let all: Vec<serde_json::Value> =
            serde_json::from_str(&self.ok(&["ls", "--format", "json"])).unwrap();
        let one = all.iter().find(|one| one["name"] == name)?;
        Some(one["status"].as_str().unwrap().to_owned())
    }

    /// The definition of a machine.
    #[track_caller]
    pub fn definition(&self, name: &str) -> String {
        fs::read_to_string(self.data().join("machines").join(name).join("machine.toml")).unwrap()
    }

    /// The first of the host's ids that a machine has.
    #[track_caller]
    pub fn first_id(&self, name: &str) -> u64 {
        let text = fs::read(self.data().join("machines").join(name).join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&text).unwrap();
        state["map"]["first"].as_u64().unwrap()
    }

    /// Asserts that nothing of a machine is left anywhere.
    #[track_caller]
    pub fn assert_gone(&self, name: &str) {
        let there = |path: PathBuf| path.symlink_metadata().is_ok();
        assert!(!there(self.data().join("machines").join(name)), "its data is there");
        assert!(!there(self.run().join(name)), "its container is there");
        assert!(!there(self.run().join(".machines").join(name)), "its runtime directory is there");
        assert!(!there(Path::new("/sys/fs/cgroup/locule").join(name)), "its cgroup is there");
        assert!(!there(self.run().join(".networks/containers").join(name)), "it has networks");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!("/.machines/{name}/")), "it has mounts: {mounts}");
        let claims = self.data().join("claims/uid");
        for claim in fs::read_dir(claims).into_iter().flatten().flatten() {
            let owner = fs::read_to_string(claim.path()).unwrap();
            assert_ne!(owner.trim(), name, "it has user ids");
        }
        let pins = self.data().join("images/pins");
        for pin in fs::read_dir(pins).into_iter().flatten().flatten() {
            assert!(!pin.file_name().to_string_lossy().contains(name), "it keeps layers");
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in fs::read_dir(self.data().join("machines")).into_iter().flatten().flatten() {
            let _ = self.locule(&["rm", "--force", name.file_name().to_str().unwrap()]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Waits for something to come true.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: it did not come");
        thread::sleep(Duration::from_millis(20));
    }
}
