//! A user with a delegated part of the cgroup tree: limits, freezing, signals to all.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::lane::{CGROUP, unique, until};
use crate::user::{UID, User, own};

/// A delegated cgroup with one below it for the user's own processes.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Delegated {
        let dir = Path::new(CGROUP).join(unique("delegated"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(dir.join("caller")).unwrap();
        own(&dir);
        for dir in [dir.clone(), dir.join("caller")] {
            for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                std::os::unix::fs::chown(dir.join(file), Some(UID), Some(UID)).unwrap();
            }
        }
        Delegated(dir)
    }

    /// A user all of whose calls are in there.
    fn user(&self) -> User {
        let script = format!("echo $$ >{}/caller/cgroup.procs && exec \"$@\"", self.0.display());
        // Root lets them in: out of the test's own cgroup a user could not move.
        User::new().entered(&["sh", "-c", &script, "sh"])
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        until("the calls have left the cgroup", || fs::remove_dir(self.0.join("caller")).is_ok());
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_delegated_cgroup_freezes_and_kills() {
    let delegated = Delegated::new();
    let mut user = delegated.user();
    user.up();
    let cgroup = delegated.0.join(user.id());
    let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    assert!(procs.lines().any(|pid| pid == user.pid().to_string()), "{procs}");
    assert_eq!(user.exec("cat /proc/self/cgroup | grep ^0:").ok(), "0::/", "seen from inside");

    user.locule(&["pause", user.id()]).ok();
    assert_eq!(user.state()["status"], "paused");
    assert!(fs::read_to_string(cgroup.join("cgroup.events")).unwrap().contains("frozen 1"));
    user.locule(&["resume", user.id()]).ok();
    assert_eq!(user.state()["status"], "running");
    user.exec_detached("exec sleep 1000");
    until("three processes run", || user.pids().len() == 3);
    user.locule(&["kill", "--all", user.id(), "KILL"]).ok();
    user.wait_for("stopped");
    user.locule(&["delete", user.id()]).ok();
    assert!(!cgroup.exists());
}

#[test]
fn where_only_the_own_cgroup_is_delegated_the_container_lies_below_it() {
    let delegated = Delegated::new();
    std::os::unix::fs::chown(&delegated.0, Some(0), Some(0)).unwrap();
    let mut user = delegated.user();
    user.up();
    let cgroup = delegated.0.join("caller").join(user.id());
    user.locule(&["pause", user.id()]).ok();
    assert!(fs::read_to_string(cgroup.join("cgroup.events")).unwrap().contains("frozen 1"));
    user.locule(&["delete", "--force", user.id()]).ok();
    assert!(!cgroup.exists());
}

#[test]
fn a_limit_needs_a_controller_that_is_there() {
    let delegated = Delegated::new();
    let mut user = delegated.user();
    // cgroup.max.depth needs no controller, so it is there in every lane.
    user.bundle.set("linux.resources.unified", json!({"cgroup.max.depth": "3"}));
    user.up();
    let depth = fs::read_to_string(delegated.0.join(user.id()).join("cgroup.max.depth")).unwrap();
    assert_eq!(depth.trim(), "3");
}
