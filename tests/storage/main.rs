//! Snapshots, clones and archives of machines, from the command line, and what a kill -9 leaves of them.
//!
//! Runs in the host lane, on an XFS of the test's own. What storage does by itself is tested in `machines/tests`.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const LOCULE: &str = env!("CARGO_BIN_EXE_locule");
/// How many moments of a call are tried, spread evenly over it.
const SAMPLE: usize = 24;

struct Bed {
    dir: tempfile::TempDir,
    made: Vec<String>,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let bed = Bed { dir, made: Vec::new() };
        let file = bed.path("fs.img");
        fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
        fs::create_dir(bed.path("data")).unwrap();
        tool("mkfs.xfs", &["-q", file.to_str().unwrap()]);
        tool("mount", &["-o", "loop", file.to_str().unwrap(), bed.path("data").to_str().unwrap()]);
        let tree = bed.path("tree");
        fs::create_dir_all(tree.join("bin")).unwrap();
        for dir in ["etc", "proc", "sys", "dev", "tmp", "run"] {
            fs::create_dir(tree.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "sleep", "true"] {
            symlink("busybox", tree.join("bin").join(name)).unwrap();
        }
        let images = bed.path("data/images");
        bed.ok(&["image", "import", "--images", images.to_str().unwrap(), tree.to_str().unwrap(), "app:1"]);
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A name that no other test's machine has: control groups are the whole host's.
    fn name(&mut self, name: &str) -> String {
        let name = format!("st{}-{name}", std::process::id());
        self.made.push(name.clone());
        name
    }

    fn arguments(&self, words: &[&str]) -> Vec<String> {
        let (data, run) = (self.path("data"), self.path("run"));
        let globals = ["--data", data.to_str().unwrap(), "--root", run.to_str().unwrap()];
        globals.iter().chain(words).map(|word| (*word).to_owned()).collect()
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(LOCULE).args(self.arguments(words)).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, words: &[&str], part: &str) {
        let output = self.run(words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(part), "{words:?}: {told}");
    }

    /// A running machine of the busybox image.
    fn launch(&self, name: &str, more: &[&str]) {
        let words = ["launch", "-d", "--network", "none"];
        self.ok(&[&words, more, &["app:1", name, "--", "sleep", "100000"]].concat());
    }

    /// Waits for whoever thaws the machine of a killed call.
    #[track_caller]
    fn thawed(&self, name: &str) {
        for _ in 0..600 {
            if self.ok(&["state", name]).contains("\"running\"") {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{name} stays frozen");
    }

    fn inside(&self, name: &str, script: &str) -> String {
        self.ok(&["exec", name, "sh", "-ec", script])
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in &self.made {
            let _ = self.run(&["rm", "--force", name]);
        }
        let _ = Command::new("umount").arg("-l").arg(self.path("data")).status();
    }
}

#[track_caller]
fn tool(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_machine_is_saved_copied_moved_and_put_back() {
    for kind in [&[][..], &["--storage", "disk", "--disk", "128M"]] {
        let mut bed = Bed::new();
        let (web, twin, moved) = (bed.name("web"), bed.name("twin"), bed.name("moved"));
        bed.launch(&web, kind);
        bed.inside(&web, "echo one > /etc/own; echo 0123456789abcdef0123456789abcdef > /etc/machine-id");
        assert_eq!(bed.ok(&["snapshot", "create", &web, "first", "--description", "the first"]), "first\n");
        bed.inside(&web, "echo two > /etc/own");
        let listed = bed.ok(&["snapshot", "ls", "--format", "json", &web]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed[0]["name"], "first");
        assert_eq!((&listed[0]["running"], &listed[0]["shared"]), (&true.into(), &true.into()));
        bed.refused(&["snapshot", "restore", &web, "first"], "stop it first");
        bed.refused(&["snapshot", "create", &web, "first"], "there is a snapshot");
        bed.ok(&["clone", &web, &twin]);
        bed.refused(&["clone", &web, &twin], "there is a machine");
        let archive = bed.path("web.tar.zst");
        let archive = archive.to_str().unwrap();
        bed.ok(&["export", &web, archive]);
        // What runs was saved for it, and that is gone.
        assert_eq!(bed.ok(&["snapshot", "ls", &web]).lines().count(), 2);
        bed.ok(&["stop", "-t", "0s", &web]);
        bed.ok(&["snapshot", "restore", &web, "first"]);
        bed.ok(&["start", &web]);
        assert_eq!(bed.inside(&web, "cat /etc/own"), "one\n");
        bed.ok(&["start", &twin]);
        assert_eq!(bed.inside(&twin, "cat /etc/own /etc/machine-id"), "two\n");
        assert_eq!(bed.ok(&["import", archive, &moved]), format!("{moved}\n"));
        bed.ok(&["start", &moved]);
        assert_eq!(bed.inside(&moved, "cat /etc/own; busybox stat -c %u /etc/own"), "two\n0\n");
        bed.ok(&["compact", &moved]);
        bed.ok(&["snapshot", "rm", &web, "first"]);
        assert_eq!(bed.ok(&["snapshot", "ls", &web]).lines().count(), 1);
        for name in [&web, &twin, &moved] {
            bed.ok(&["rm", "--force", name]);
        }
        assert_eq!(fs::read_dir(bed.path("data/machines")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(bed.path("data/claims/projid")).map_or(0, Iterator::count), 0);
    }
}

/// The call's system calls, a sample of them, as strace counts them: name and how often it came.
fn moments(bed: &Bed, words: &[&str]) -> Vec<(String, usize)> {
    let trace = bed.path("trace");
    let mut command = Command::new("strace");
    command.args(["-qq", "-e", "signal=none", "-o", trace.to_str().unwrap(), LOCULE]);
    assert!(
        command.args(bed.arguments(words)).stdout(Stdio::null()).status().unwrap().success(),
        "{words:?}"
    );
    let mut counts: HashMap<String, usize> = HashMap::new();
    let text = fs::read_to_string(&trace).unwrap();
    let all: Vec<(String, usize)> = text
        .lines()
        .filter_map(|line| line.split_once('(').map(|(name, _)| name.to_owned()))
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .map(|name| {
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            (name, *count)
        })
        .filter(|(name, _)| name != "execve")
        .collect();
    assert!(all.len() > SAMPLE, "{words:?} made {} calls", all.len());
    all.iter().step_by(all.len() / SAMPLE).chain(all.last()).cloned().collect()
}

/// Kills the call when it is about to make that system call.
fn killed(bed: &Bed, words: &[&str], (name, nth): &(String, usize)) {
    let (only, inject) = (format!("trace={name}"), format!("inject={name}:signal=KILL:when={nth}"));
    let mut command = Command::new("strace");
    command.args(["-qq", "-e", "signal=none", "-o", "/dev/null", "-e", &only, "-e", &inject, LOCULE]);
    let _ = command.args(bed.arguments(words)).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
}

#[test]
fn a_killed_restore_leaves_the_old_or_the_new_disk() {
    let mut bed = Bed::new();
    let web = bed.name("cut");
    bed.launch(&web, &[]);
    bed.inside(&web, "echo old > /etc/own");
    bed.ok(&["snapshot", "create", &web, "old"]);
    bed.ok(&["stop", "-t", "0s", &web]);
    let dir = bed.path("data/machines").join(&web);
    let own = dir.join("root/upper/etc/own");
    let words = ["snapshot", "restore", &web, "old"];
    let (mut before, mut after) = (0, 0);
    for moment in moments(&bed, &words) {
        fs::write(&own, "new\n").unwrap();
        killed(&bed, &words, &moment);
        match fs::read_to_string(&own).unwrap().as_str() {
            "new\n" => before += 1,
            "old\n" => after += 1,
            other => panic!("{moment:?}: {other:?}"),
        }
        // The machine is one, and the next call does it and clears up.
        bed.ok(&words);
        assert_eq!(fs::read_to_string(&own).unwrap(), "old\n", "{moment:?}");
        assert!(!dir.join("root.part").exists(), "{moment:?}");
        assert_eq!(fs::read_dir(bed.path("data/claims/projid")).unwrap().count(), 1, "{moment:?}");
    }
    assert!(before > 0 && after > 0, "killed {before} times before and {after} times after");
    bed.ok(&["start", &web]);
    assert_eq!(bed.inside(&web, "cat /etc/own"), "old\n");
}

#[test]
fn a_killed_snapshot_or_clone_leaves_the_machine_running() {
    let mut bed = Bed::new();
    let (web, twin) = (bed.name("runs"), bed.name("twin"));
    bed.launch(&web, &["--storage", "disk", "--disk", "64M"]);
    bed.inside(&web, "echo mine > /etc/own");
    let saves = ["snapshot", "create", &web, "cut"];
    for moment in moments(&bed, &saves) {
        let _ = bed.run(&["snapshot", "rm", &web, "cut"]);
        killed(&bed, &saves, &moment);
        // Neither frozen nor held: it writes.
        bed.thawed(&web);
        assert_eq!(
            bed.inside(&web, "echo again >> /etc/own; busybox sync; cat /etc/own | busybox head -n 1"),
            "mine\n"
        );
    }
    let _ = bed.run(&["snapshot", "rm", &web, "cut"]);
    let copies = ["clone", web.as_str(), twin.as_str()];
    for moment in moments(&bed, &copies) {
        let _ = bed.run(&["rm", "--force", &twin]);
        killed(&bed, &copies, &moment);
        bed.thawed(&web);
        bed.inside(&web, "echo again >> /etc/own; busybox sync");
        // A machine is whole or not there.
        let whole = bed.path("data/machines").join(&twin).join("machine.toml").exists();
        match whole {
            true => drop(bed.ok(&["start", &twin])),
            false => drop(bed.ok(&copies)),
        }
    }
}
