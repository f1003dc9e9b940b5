//! `linux.cgroupsPath` and `linux.resources` as far as a tree without controllers goes.
//!
//! Owns placement, refusals, device rules, freezing and killing. Limits that limit are the VM lane's.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::lane::{Bundle, CGROUP, complete, unique};

fn pids(cgroup: &Path) -> Vec<i32> {
    fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().lines().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn placement() {
    let mut bundle = Bundle::new();
    bundle.up();
    assert_eq!(pids(&bundle.cgroup())[0], bundle.pid(), "without a path it is named by the id");
    assert_eq!(
        bundle.exec("grep ^0: /proc/self/cgroup").ok(),
        "0::/",
        "the namespace's root is the container's cgroup"
    );
    bundle.kill("KILL").wait_for("stopped").delete();
    bundle.assert_gone();
}

#[test]
fn a_path_of_the_document() {
    let parent = unique("parent");
    let mut bundle = Bundle::new();
    bundle.set("linux.cgroupsPath", json!(format!("/{parent}/inner"))).up();
    let inner = PathBuf::from(CGROUP).join(&parent).join("inner");
    assert!(pids(&inner).contains(&bundle.pid()));
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    assert!(!inner.exists());
    fs::remove_dir(inner.parent().unwrap()).unwrap();
}

/// A relative path lies beside the caller's own cgroup, as runc has it.
#[test]
fn a_relative_path() {
    let name = unique("relative");
    let mut bundle = Bundle::new();
    bundle
        .set("linux.cgroupsPath", json!(name))
        .without_namespace("cgroup")
        .script("grep ^0: /proc/self/cgroup");
    let out = bundle.run();
    assert!(out.ok().ends_with(&format!("/{name}")), "{out:?}");
}

#[test]
fn without_a_cgroup_namespace() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("cgroup").script("grep ^0: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs");
    let out = bundle.run();
    assert_eq!(out.ok(), format!("0::/{}\n1", bundle.id()), "only the own part is mounted");
}

#[test]
fn all_processes_are_in_it() {
    let mut bundle = Bundle::new();
    bundle.up();
    bundle.exec_detached(&["sleep", "1000"]);
    let listed: Value =
        serde_json::from_str(bundle.locule(&["ps", "--format", "json", bundle.id()]).ok()).unwrap();
    let mut listed: Vec<i64> = listed.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    let mut found: Vec<i64> = pids(&bundle.cgroup()).into_iter().map(i64::from).collect();
    listed.sort_unstable();
    found.sort_unstable();
    assert_eq!((listed.len(), &listed), (3, &found));
}

/// As runc: into the container's own cgroup, whatever its init did, until that takes no process any more.
#[test]
fn exec_stays_while_the_cgroup_takes_processes() {
    let mut bundle = Bundle::new();
    bundle.up();
    let cgroup = bundle.cgroup();
    let inner = cgroup.join("inner");
    fs::create_dir(&inner).unwrap();
    for pid in pids(&cgroup) {
        fs::write(inner.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    assert_eq!(bundle.exec("grep ^0: /proc/self/cgroup").ok(), "0::/");
    // That it goes below once controllers are shared out needs some: tests/vm/suites/limits/nested.sh.
    bundle.exec_with(&["--cgroup", "absent"], &["true"]).refused_with(&["adding pid to cgroup absent"]);
}

/// What the kernel has no controller for is refused by name, before a process of the workload runs.
#[test]
fn limits_without_a_controller_are_refused() {
    let controllers = fs::read_to_string(format!("{CGROUP}/cgroup.controllers")).unwrap();
    for (controller, resources) in [
        ("memory", json!({"memory": {"limit": 100_000_000}})),
        ("memory", json!({"unified": {"memory.high": "100000000"}})),
        ("pids", json!({"pids": {"limit": 10}})),
        ("cpu", json!({"cpu": {"shares": 10}})),
        ("cpuset", json!({"cpu": {"cpus": "0"}})),
        ("io", json!({"blockIO": {"throttleReadBpsDevice": [{"major": 7, "minor": 0, "rate": 5}]}})),
        ("rdma", json!({"rdma": {"mlx5_0": {"hcaHandles": 3}}})),
    ] {
        if controllers.split_whitespace().any(|has| has == controller) {
            continue;
        }
        let mut bundle = Bundle::new();
        bundle.directory("data");
        bundle.mount("/mnt", "bind", "data", &["bind"]).script("touch /mnt/ran");
        bundle.set("linux.resources", resources).run().refused_with(&[controller]);
        bundle.assert_gone();
        assert!(!bundle.path("data/ran").exists(), "{controller}");
    }
}

#[test]
fn unified() {
    let mut bundle = Bundle::new();
    bundle
        .set("linux.resources.unified", json!({"cgroup.max.descendants": "7", "cgroup.max.depth": "3"}))
        .up();
    let read = |file: &str| fs::read_to_string(bundle.cgroup().join(file)).unwrap();
    assert_eq!((read("cgroup.max.descendants").trim(), read("cgroup.max.depth").trim()), ("7", "3"));
    for (unified, words) in [
        (json!({"cgroup.nonsense": "1"}), &["cgroup.nonsense"][..]),
        (json!({"../cgroup.max.depth": "1"}), &["unified", "../cgroup.max.depth"]),
        (json!({"cgroup.max.depth": "deep"}), &["cgroup.max.depth", "deep"]),
    ] {
        let mut bundle = Bundle::new();
        bundle.set("linux.resources.unified", unified).run().refused_with(words);
        bundle.assert_gone();
    }
}

/// hugetlb is the one controller of a hybrid host that v2 may have.
#[test]
fn hugepages() {
    let has = fs::read_to_string(format!("{CGROUP}/cgroup.controllers")).unwrap().contains("hugetlb");
    let mut bundle = Bundle::new();
    bundle.set("linux.resources.hugepageLimits", json!([{"pageSize": "2MB", "limit": 6_291_456}]));
    if !has {
        bundle.run().refused_with(&["hugetlb"]);
        return;
    }
    bundle.up();
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(fs::read_to_string(bundle.cgroup().join(file)).unwrap().trim(), "6291456", "{file}");
    }
}

/// A cgroup that takes no processes is refused by its own reason, and stays as it was.
#[test]
fn a_cgroup_that_shares_out_controllers() {
    let controllers = fs::read_to_string(format!("{CGROUP}/cgroup.controllers")).unwrap();
    let Some(one) = controllers.split_whitespace().next() else { return };
    let name = format!("shared-{}", std::process::id());
    let path = format!("{CGROUP}/{name}");
    fs::write(format!("{CGROUP}/cgroup.subtree_control"), format!("+{one}")).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(format!("{path}/cgroup.subtree_control"), format!("+{one}")).unwrap();
    let mut bundle = Bundle::new();
    bundle.set("linux.cgroupsPath", json!(format!("/{name}")));
    bundle.run().refused_with(&["shares out controllers", &name, "below it"]);
    fs::remove_dir(&path).unwrap();
}

/// A bundle with the nodes of /dev/fuse, which opens where the rules let it, and of /dev/loop7.
fn with_nodes(rules: Value) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.push("linux.devices", json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}));
    bundle.set("linux.resources.devices", rules);
    bundle
}

const READ: &str = "true < /dev/fuse";
const WRITE: &str = "true 2>&1 >> /dev/fuse";

fn rule(allow: bool, access: &str) -> Value {
    json!({"allow": allow, "type": "c", "major": 10, "minor": 229, "access": access})
}

#[test]
fn device_rules() {
    let opens = |bundle: &Bundle, how: &str| bundle.exec(how).status == 0;
    let deny = json!({"allow": false, "access": "rwm"});
    for (rules, read, write) in [
        (json!([deny]), false, false),
        (json!([deny, rule(true, "r")]), true, false),
        (json!([deny, rule(true, "rw")]), true, true),
        (json!([rule(true, "rw"), deny]), false, false),
        (json!([{"allow": true}]), true, true),
        (json!([{"allow": true}, rule(false, "w")]), true, false),
        (json!([deny, {"allow": true, "type": "c", "major": 10, "access": "rw"}]), true, true),
        (
            json!([deny, {"allow": true, "type": "b", "major": 10, "minor": 229, "access": "rw"}]),
            false,
            false,
        ),
        (json!([]), false, false),
    ] {
        let mut bundle = with_nodes(rules.clone());
        bundle.up();
        assert_eq!((opens(&bundle, READ), opens(&bundle, WRITE)), (read, write), "{rules}");
        assert!(
            opens(&bundle, "echo > /dev/null && head -c1 /dev/urandom > /dev/null"),
            "the defaults stay: {rules}"
        );
    }
}

/// Device rules change under a running container.
#[test]
fn device_rules_are_updated() {
    let mut bundle = with_nodes(json!([{"allow": false, "access": "rwm"}]));
    bundle.up();
    assert_ne!(bundle.exec(READ).status, 0);
    for (allow, status) in [(true, 0), (false, 1), (true, 0)] {
        let rules = json!({"devices": [{"allow": false, "access": "rwm"}, rule(allow, "rw")]});
        let file = bundle.file("resources.json", rules.to_string());
        bundle.locule(&["update", "--resources", file.to_str().unwrap(), bundle.id()]).ok();
        assert_eq!(bundle.exec(READ).status, status, "{allow}");
    }
    let nothing = bundle.file("resources.json", "{}");
    bundle.locule(&["update", "--resources", nothing.to_str().unwrap(), bundle.id()]).ok();
    assert_eq!(bundle.exec(READ).status, 0, "an update without rules leaves them");
}

#[test]
fn wrong_device_rules_are_refused() {
    for (rule, word) in
        [(json!({"allow": true, "type": "x"}), "\"x\""), (json!({"allow": true, "access": "z"}), "\"z\"")]
    {
        let bundle = with_nodes(json!([rule]));
        bundle.run().refused_with(&["resources", word]);
        bundle.assert_gone();
    }
}

#[test]
fn freezing() {
    let mut bundle = Bundle::new();
    bundle.up();
    let frozen = || fs::read_to_string(bundle.cgroup().join("cgroup.events")).unwrap().contains("frozen 1");
    bundle.locule(&["pause", bundle.id()]).ok();
    assert!(frozen(), "pause returns when it is so");
    assert_eq!(bundle.state()["status"], "paused");
    bundle.exec("true").refused_with(&["paused"]);
    bundle.locule(&["resume", bundle.id()]).ok();
    assert!(!frozen());
    assert_eq!(bundle.state()["status"], "running");
    assert_eq!(bundle.exec("echo here").ok(), "here");
}

#[test]
fn a_paused_container_is_killed_and_deleted() {
    let mut bundle = Bundle::new();
    bundle.up();
    bundle.locule(&["pause", bundle.id()]).ok();
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    bundle.assert_gone();
}

/// Without a pid namespace of its own, the end of the first process is not the end of all.
#[test]
fn nobody_is_left() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("pid").script("setsid sleep 1000 & setsid sleep 1000 & wait");
    bundle.create().start();
    crate::lane::until("the three run", || pids(&bundle.cgroup()).len() == 3);
    let all = pids(&bundle.cgroup());
    bundle.kill("KILL").wait_for("stopped").delete();
    bundle.assert_gone();
    for pid in all {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
}

/// `run` in the foreground stands for the workload towards its caller.
#[test]
fn run_passes_signals_on() {
    let mut bundle = Bundle::new();
    bundle.script("trap 'exit 3' TERM; touch /dev/shm/ready; while :; do sleep 1000 & wait; done");
    let pid = i32::try_from(bundle.spawn().id()).unwrap();
    crate::lane::until("the trap is set", || bundle.exec("test -e /dev/shm/ready").status == 0);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(bundle.ended().code(), Some(3));
    bundle.assert_gone();
}

#[test]
fn kill_all() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("pid").script("setsid sleep 1000 & setsid sleep 1000 & wait");
    bundle.create().start();
    crate::lane::until("the three run", || pids(&bundle.cgroup()).len() == 3);
    bundle.locule(&["kill", "--all", bundle.id(), "KILL"]).ok();
    crate::lane::until("all are dead", || pids(&bundle.cgroup()).is_empty());
    bundle.wait_for("stopped").delete();
}

#[test]
fn signals() {
    let mut bundle = Bundle::new();
    bundle.script("trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 1000 & wait; done");
    bundle.create().start();
    crate::lane::until("the trap is set", || bundle.stdout() == "ready\n");
    for signal in ["0", "SIGCONT", "CONT"] {
        bundle.kill(signal);
    }
    bundle.locule(&["kill", bundle.id(), "SIGNONSENSE"]).refused_with(&["SIGNONSENSE"]);
    bundle.kill("usr1").wait_for("stopped");
    assert_eq!(bundle.stdout(), "ready\ngot it\n");
    assert_ne!(complete(&mut bundle.command(&["kill", bundle.id(), "KILL"])).status, 0);
}
