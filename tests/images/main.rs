//! Images, from the command line: with real registries and tools, and with registries that misbehave.
//!
//! Runs in the host lane. Every test has a store of its own; servers listen on loopback only.
#![allow(clippy::unwrap_used, reason = "a test")]

mod archives;
mod build;
mod faults;
mod mapped;
mod registry;
mod rootfs;
mod rootless;
mod secure;
mod server;
mod signed;
mod store;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
const LOCULE: &str = env!("CARGO_BIN_EXE_locule");

/// A store and a directory to work in.
struct Lane {
    dir: tempfile::TempDir,
}

impl Lane {
    fn new() -> Lane {
        Lane { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(LOCULE);
        command
            .arg("image")
            .args(words)
            .env("LOCULE_IMAGES", self.path("store"))
            // Nothing of the machine's own configuration takes part.
            .env("HOME", self.path("home"))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line of a refusal.
    #[track_caller]
    fn refused(&self, words: &[&str], parts: &[&str]) -> String {
        let output = self.run(words);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{words:?} succeeded");
        assert_eq!(told.lines().count(), 1, "{told}");
        for part in parts {
            assert!(told.contains(part), "{part:?} is not in: {told}");
        }
        told
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(words)).unwrap()
    }

    /// Everything in the store that has a final name.
    fn contents(&self) -> Vec<String> {
        let mut found = Vec::new();
        for dir in ["blobs/sha256", "layers", "refs"] {
            if let Ok(entries) = fs::read_dir(self.path("store").join(dir)) {
                found.extend(
                    entries.map(|entry| format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy())),
                );
            }
        }
        found.sort();
        found
    }

    /// A small tree with what archives find hard.
    fn tree(&self, name: &str) -> PathBuf {
        let tree = self.path(name);
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
        symlink("busybox", tree.join("bin/sh")).unwrap();
        fs::hard_link(tree.join("bin/busybox"), tree.join("bin/true")).unwrap();
        fs::write(tree.join("etc/motd"), name).unwrap();
        fs::write(tree.join("l".repeat(150)), "long").unwrap();
        // Compressible, but not to nothing, and large enough to be cut.
        let mut noise: u64 = 88_172_645_463_325_252;
        let bytes: Vec<u8> = (0..400_000)
            .flat_map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                (noise & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes()
            })
            .collect();
        fs::write(tree.join("noise"), bytes).unwrap();
        tree
    }

    /// An image of one layer made of `tree`, under `name`.
    fn image(&self, name: &str) {
        let tree = self.tree(&name.replace([':', '/'], "-"));
        self.ok(&["import", tree.to_str().unwrap(), name]);
    }
}

/// Runs a tool that must succeed.
#[track_caller]
fn tool(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for something that will come.
#[track_caller]
fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !happens() {
        assert!(Instant::now() < end, "{what}: waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's docker-registry on a port of loopback.
struct DockerRegistry {
    _process: Ends,
    host: String,
}

impl DockerRegistry {
    fn start(lane: &Lane, more: &str) -> DockerRegistry {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = lane.path("registry.yml");
        let mut file = fs::File::create(&config).unwrap();
        writeln!(
            file,
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: \"127.0.0.1:{port}\"\n{more}",
            lane.text("registry")
        )
        .unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Ends(process);
        eventually("the registry", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        DockerRegistry { _process: process, host: format!("127.0.0.1:{port}") }
    }
}

/// Whether two trees are the same in everything that an archive holds.
#[track_caller]
fn assert_same_tree(a: &Path, b: &Path) {
    let list = |path: &Path| {
        let names = Command::new("find")
            .arg(path)
            .args(["-mindepth", "1", "-printf", "%P %y %m %U %G %s %n %l\\n"])
            .output()
            .unwrap();
        let mut lines: Vec<String> = String::from_utf8_lossy(&names.stdout)
            .lines()
            // A directory's size is its file system's matter.
            .map(|line| {
                if line.contains(" d ") {
                    line.split(' ').take(5).collect::<Vec<_>>().join(" ")
                } else {
                    line.to_owned()
                }
            })
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(list(a), list(b));
}
