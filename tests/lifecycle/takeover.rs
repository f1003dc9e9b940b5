//! Two containers with one `cgroupsPath`, one after the other: the first leaves the second alone.
//!
//! Owns what becomes of a cgroup whose first container has ended; one in use is refused (`input.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::json;

use crate::lane::Bundle;

/// A container that has ended, and whose cgroup is there and empty.
fn ended(path: &str) -> (Bundle, PathBuf) {
    let mut first = Bundle::new();
    first.set("linux.cgroupsPath", json!(path)).args(&["true"]).create().start().wait_for("stopped");
    let cgroup = Path::new("/sys/fs/cgroup").join(&path[1..]);
    assert_eq!(fs::read_to_string(cgroup.join("cgroup.procs")).unwrap(), "");
    (first, cgroup)
}

#[test]
fn the_second_outlives_the_first() {
    for delete in [&["delete"][..], &["delete", "--force"]] {
        let path = format!("/{}", crate::lane::unique("taken"));
        let (first, cgroup) = ended(&path);
        let mut second = Bundle::new();
        second.set("linux.cgroupsPath", json!(path)).up();
        let pid = second.pid().to_string();
        // As containerd's shim does after every end.
        first.locule(&["kill", "--all", first.id(), "9"]).ok();
        assert_eq!(first.locule(&["ps", "--format", "json", first.id()]).ok().trim(), "[]");
        first.locule(&[delete, &[first.id()]].concat()).ok();
        assert_eq!(second.state()["status"], "running", "after {delete:?}");
        let inside = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        assert!(inside.lines().any(|line| line == pid), "{inside}");
        second.locule(&["pause", second.id()]).ok();
        assert_eq!(second.state()["status"], "paused", "the cgroup is its own");
        second.locule(&["delete", "--force", second.id()]).ok();
        assert!(!cgroup.exists(), "and goes with it");
    }
}

/// As with a scope that systemd makes anew: a cgroup that nobody signed, at the same place.
#[test]
fn what_somebody_else_made_there_is_left_alone() {
    let path = format!("/{}", crate::lane::unique("anew"));
    let (first, cgroup) = ended(&path);
    fs::remove_dir(&cgroup).unwrap();
    fs::create_dir(&cgroup).unwrap();
    let mut stranger: Child = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    first.locule(&["delete", "--force", first.id()]).ok();
    let inside = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    assert_eq!(inside.trim(), stranger.id().to_string());
    assert!(stranger.try_wait().unwrap().is_none(), "it runs");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    fs::remove_dir(&cgroup).unwrap();
}
