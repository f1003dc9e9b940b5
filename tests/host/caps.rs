//! `process.capabilities`: the five sets.
//!
//! Owns what /proc/self/status says of them.

use serde_json::json;

use crate::lane::{Bundle, Output, field};

const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;
const NET_RAW: u64 = 1 << 13;

/// Effective, permitted, inheritable, bounding and ambient set.
#[track_caller]
fn sets(out: &Output) -> [u64; 5] {
    ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"]
        .map(|name| u64::from_str_radix(field(out.ok(), name), 16).unwrap())
}

fn bundle(sets: serde_json::Value) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.set("process.capabilities", sets).args(&["cat", "/proc/self/status"]);
    bundle
}

#[test]
fn of_root() {
    let mut bundle = bundle(json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_NET_RAW"],
    }));
    let all = KILL | CHOWN | NET_RAW;
    // execve(2) gives root what is permitted, and what is in the bounding set unless no_new_privs forbids it.
    assert_eq!(sets(&bundle.run()), [KILL | CHOWN, KILL | CHOWN, NET_RAW, all, 0]);
    bundle.set("process.noNewPrivileges", json!(false));
    assert_eq!(sets(&bundle.run()), [all, all, NET_RAW, all, 0]);
}

#[test]
fn none_at_all() {
    assert_eq!(sets(&bundle(json!({})).run()), [0; 5]);
    assert_eq!(sets(&bundle(json!(null)).run()), [0; 5]);
    let out = bundle(json!({})).script("chown 1 /dev/shm 2>&1").run();
    assert!(out.stdout.contains("Operation not permitted"), "{out:?}");
}

#[test]
fn of_another_user() {
    let mut bundle = bundle(json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_KILL", "CAP_CHOWN"],
    }));
    let out = bundle.set("process.user.uid", json!(1000)).run();
    assert_eq!(sets(&out), [0, 0, 0, KILL | CHOWN, 0], "execve(2) takes what is not ambient");
}

#[test]
fn ambient() {
    let names = json!(["CAP_KILL", "CAP_CHOWN"]);
    let mut bundle = bundle(json!({
        "bounding": names, "permitted": names, "effective": names, "inheritable": names, "ambient": ["CAP_CHOWN"],
    }));
    bundle.set("process.user.uid", json!(1000));
    assert_eq!(sets(&bundle.run()), [CHOWN, CHOWN, KILL | CHOWN, KILL | CHOWN, CHOWN]);
    assert_eq!(bundle.script("touch /dev/shm/x; chown 7 /dev/shm/x; stat -c %u /dev/shm/x").run().ok(), "7");
}

/// config.md, capabilities: a value that cannot be mapped is warned of and must not fail the container.
#[test]
fn unknown_names_warn() {
    let names = json!(["CAP_KILL", "CAP_TIME_TRAVEL"]);
    let mut bundle = bundle(json!({"bounding": names, "permitted": names, "effective": names}));
    let log = bundle.path("log");
    let out = bundle.global("--log").global(log.to_str().unwrap()).run();
    assert_eq!(sets(&out), [KILL, KILL, 0, KILL, 0]);
    let told = std::fs::read_to_string(log).unwrap() + &out.stderr;
    assert!(told.contains("CAP_TIME_TRAVEL"), "{told}");
}

#[test]
fn impossible_sets_are_refused_by_name() {
    bundle(json!({"bounding": ["CAP_KILL"], "permitted": [], "effective": ["CAP_KILL"]}))
        .run()
        .refused_with(&["process.capabilities.effective", "CAP_KILL"]);
}

#[test]
fn more_by_exec() {
    let mut bundle = Bundle::new();
    bundle.up();
    let all = ["CapEff", "CapBnd"].map(|name| {
        let out = bundle.exec_with(&["--cap", "CAP_NET_RAW"], &["cat", "/proc/self/status"]);
        u64::from_str_radix(field(out.ok(), name), 16).unwrap()
    });
    assert!(all.iter().all(|set| set & NET_RAW != 0), "{all:x?}");
    let out = bundle.exec("cat /proc/self/status");
    assert_eq!(u64::from_str_radix(field(out.ok(), "CapBnd"), 16).unwrap() & NET_RAW, 0);
}
