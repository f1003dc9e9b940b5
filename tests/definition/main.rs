//! Definitions of machines that run: `set`, `show` and the import from OpenVZ, on this kernel's own control groups.
//!
//! The lane has no controllers but hugetlb; the others are tested in the virtual machine (tests/vm/suites/machines).
//! Runs only within `tests/lane`; never touches what lies outside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

/// A host of machines.
struct Lab {
    dir: PathBuf,
    name: String,
}

impl Lab {
    fn new() -> Lab {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("set-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new("/mnt").join(&name);
        fs::create_dir(&dir).expect("run these tests as tests/lane cargo test --test definition");
        Lab { dir, name }
    }

    fn locule(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_locule"))
            .arg("--root")
            .arg(self.dir.join("run"))
            .arg("--data")
            .arg(self.dir.join("data"))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.locule(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "locule {}: {said}", args.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, args: &[&str]) -> String {
        let output = self.locule(args);
        assert!(!output.status.success(), "locule {} succeeded", args.join(" "));
        String::from_utf8(output.stderr).unwrap()
    }

    #[track_caller]
    fn set(&self, words: &[&str]) -> String {
        self.ok(&[&["set", &self.name], words].concat())
    }

    /// A machine that does nothing, running.
    fn launch(&self) -> &Lab {
        self.ok(&["launch", "--network", "none", "host", &self.name, "--", "sleep", "infinity"]);
        self
    }

    fn file(&self) -> PathBuf {
        self.dir.join("data/machines").join(&self.name).join("machine.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn state(&self) -> Value {
        let text = fs::read(self.dir.join("run").join(&self.name).join("state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// A file of the machine's cgroup.
    #[track_caller]
    fn group(&self, file: &str) -> String {
        let state = self.state();
        let path = state["cgroup"]["path"].as_str().unwrap().trim_start_matches('/').to_owned();
        fs::read_to_string(Path::new("/sys/fs/cgroup").join(path).join(file)).unwrap().trim().to_owned()
    }

    fn show(&self) -> Value {
        serde_json::from_str(&self.ok(&["show", "--format", "json", &self.name])).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.locule(&["rm", "--force", &self.name]);
    }
}

#[test]
fn limits_change_in_the_file_and_in_the_kernel() {
    let lab = Lab::new();
    lab.launch();
    let told = lab.set(&["cgroup.max=5", "hugepages.2M=64M", "description=a b"]);
    assert!(told.contains("cgroup.max: nothing -> 5\n"), "{told}");
    assert_eq!(lab.group("cgroup.max.descendants"), "5");
    assert_eq!(lab.group("hugetlb.2MB.max"), (64 << 20).to_string());
    assert_eq!(lab.group("hugetlb.2MB.rsvd.max"), (64 << 20).to_string());
    assert!(lab.text().contains("2M = \"64M\""), "{}", lab.text());
    // Less, then none.
    lab.set(&["hugepages.2M=2M"]);
    assert_eq!(lab.group("hugetlb.2MB.max"), (2 << 20).to_string());
    lab.set(&["hugepages.2M=", "cgroup.max=unlimited"]);
    assert_eq!(lab.group("hugetlb.2MB.max"), "max");
    assert_eq!(lab.group("cgroup.max.descendants"), "max");
    // What is there already is told to nobody.
    assert_eq!(lab.set(&["description=a b"]), "");
}

#[test]
fn all_changes_are_made_or_none() {
    let lab = Lab::new();
    lab.launch();
    lab.set(&["cgroup.max=5"]);
    let (before, pages) = (lab.text(), lab.group("hugetlb.2MB.max"));
    // The kernel takes the first and refuses the second: more than fs.nr_open.
    let told = lab.refused(&["set", &lab.name, "cgroup.max=7", "ulimit.nofile=1:4000000000"]);
    assert!(told.contains("ulimit.nofile: setting it"), "{told}");
    assert_eq!(lab.group("cgroup.max.descendants"), "5");
    assert_eq!(lab.text(), before);
    // This tree has no memory controller, so that the second one cannot hold.
    let told = lab.refused(&["set", &lab.name, "cgroup.max=7", "hugepages.2M=2M", "memory=1G"]);
    assert!(
        told.contains("memory.limit: ") && told.contains("memory.max") && told.contains("controller"),
        "{told}"
    );
    assert_eq!(lab.group("cgroup.max.descendants"), "5");
    assert_eq!(lab.group("hugetlb.2MB.max"), pages);
    assert_eq!(lab.text(), before);
    for (word, want) in [
        ("memory=12Q", "memory: \"12Q\" is not a size such as 512M or 2G"),
        ("memroy=1G", "did you mean memory?"),
        ("image=other", "image is chosen when a machine is made"),
        ("disk.kind=disk", "disk.kind is chosen when a machine is made"),
        ("cpu.burst=10ms", "there is no cpu.limit that it could exceed"),
        ("include=nothing-there", "there is no profile \"nothing-there\""),
    ] {
        let told = lab.refused(&["set", &lab.name, word]);
        assert!(told.contains(want), "{word}: {told}");
        assert_eq!(lab.text(), before, "{word}");
    }
}

#[test]
fn runtime_leaves_the_definition() {
    let lab = Lab::new();
    lab.launch();
    lab.set(&["cgroup.max=5"]);
    let before = lab.text();
    lab.ok(&["set", "--runtime", &lab.name, "cgroup.max=9"]);
    assert_eq!(lab.group("cgroup.max.descendants"), "9");
    assert_eq!(lab.text(), before);
    let shown = lab.show();
    assert_eq!(shown["differs"], serde_json::json!(["cgroup.max"]));
    assert_eq!(shown["keys"]["cgroup.max"]["asked"], 5);
    assert_eq!(shown["keys"]["cgroup.max"]["effective"], 9);
    let told = lab.refused(&["set", "--runtime", &lab.name, "hostname=other"]);
    assert!(told.contains("hostname cannot be changed in the running machine alone"), "{told}");
    // The definition again, by naming it.
    lab.set(&["cgroup.max=5"]);
    assert_eq!(lab.group("cgroup.max.descendants"), "5");
    assert_eq!(lab.show()["differs"], serde_json::json!([]));
}

#[test]
fn rlimits_reach_the_first_process() {
    let lab = Lab::new();
    lab.launch();
    lab.set(&["ulimit.nofile=500:600"]);
    let pid = lab.state()["init"]["pid"].as_i64().unwrap();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = open.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["500", "600"]);
    assert_eq!(lab.show()["keys"]["ulimit.nofile"]["effective"], "500:600");
}

#[test]
fn what_needs_a_start_waits_for_it() {
    let lab = Lab::new();
    lab.launch();
    let told = lab.set(&["hostname=other", "boot=on"]);
    assert!(told.contains("hostname: nothing -> \"other\" (takes effect at the next start)\n"), "{told}");
    assert!(told.contains("boot.start: nothing -> \"on\"\n"), "{told}");
    let shown = lab.show();
    assert_eq!(shown["pending"], serde_json::json!(["hostname"]));
    assert_eq!(shown["keys"]["hostname"]["running"], Value::Null);
    let inside = |lab: &Lab| lab.ok(&["exec", &lab.name, "cat", "/proc/sys/kernel/hostname"]);
    assert_eq!(inside(&lab).trim(), lab.name);
    // Taken back, nothing waits.
    lab.set(&["hostname="]);
    assert_eq!(lab.show()["pending"], serde_json::json!([]));
    lab.set(&["hostname=other"]);
    lab.ok(&["stop", "--timeout", "0s", &lab.name]);
    lab.ok(&["start", &lab.name]);
    assert_eq!(inside(&lab).trim(), "other");
    assert_eq!(lab.show()["pending"], serde_json::json!([]));
}

#[test]
fn a_stopped_machine_is_set_and_starts_with_it() {
    let lab = Lab::new();
    lab.launch();
    lab.ok(&["stop", "--timeout", "0s", &lab.name]);
    lab.set(&["cgroup.max=11", "hugepages.2M=4M"]);
    let told = lab.refused(&["set", "--runtime", &lab.name, "cgroup.max=1"]);
    assert!(told.contains("it does not run"), "{told}");
    assert_eq!(lab.show()["runs"], false);
    lab.ok(&["start", &lab.name]);
    assert_eq!(lab.group("cgroup.max.descendants"), "11");
    assert_eq!(lab.group("hugetlb.2MB.max"), (4 << 20).to_string());
}

#[test]
fn comments_stay_and_the_definition_is_shown() {
    let lab = Lab::new();
    lab.launch();
    let text = format!("# Mine.\n{}", lab.text());
    fs::write(lab.file(), &text).unwrap();
    lab.set(&["labels.team=web"]);
    assert!(lab.text().starts_with("# Mine.\n"), "{}", lab.text());
    assert_eq!(lab.ok(&["show", "--format", "toml", &lab.name]), lab.text());
    let table = lab.ok(&["show", &lab.name]);
    assert!(table.contains("labels.team") && table.contains("machine.toml:"), "{table}");
    // A definition that was broken by hand says where.
    fs::write(lab.file(), "image = \"host\"\n[memory]\nlimit = \"12Q\"\n").unwrap();
    let told = lab.refused(&["show", &lab.name]);
    assert!(
        told.contains("machine.toml:3:9: memory.limit: \"12Q\" is not a size such as 512M or 2G"),
        "{told}"
    );
    fs::write(lab.file(), text).unwrap();
}

#[test]
fn a_configuration_of_openvz_becomes_a_machine() {
    let lab = Lab::new();
    let conf = lab.dir.join("101.conf");
    fs::write(
        &conf,
        "NUMPROC=\"400:400\"\nKMEMSIZE=\"1:1\"\nCPUUNITS=\"1000\"\nHOSTNAME=\"old\"\nQUOTATIME=\"0\"\n",
    )
    .unwrap();
    let conf = conf.to_str().unwrap();
    let told = lab.ok(&["openvz", "import", "--dry-run", conf]);
    assert!(
        told.contains("weight = 100") && told.contains("covered") && told.contains("not possible"),
        "{told}"
    );
    assert!(!lab.file().exists());
    assert!(lab.refused(&["openvz", "import", conf]).contains("it has no NAME"));
    lab.ok(&["openvz", "import", conf, &lab.name]);
    let shown = lab.show();
    assert_eq!(shown["keys"]["pids.limit"]["asked"], 400);
    assert_eq!(shown["keys"]["hostname"]["asked"], "old");
    assert!(lab.refused(&["openvz", "import", conf, &lab.name]).contains("there is a machine"));
}
