//! Who the workload is: capabilities of `exec`, ids that look like names, names that look like ids.
//!
//! Owns the words that other runtimes have misread.

use serde_json::json;

use crate::lane::{Bundle, field};

/// CVE-2016-3697: a user of the image whose name is a number is nobody to a runtime that takes numbers.
#[test]
fn a_number_is_never_looked_up_as_a_name() {
    let mut bundle = Bundle::new();
    bundle.file("rootfs/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\n");
    bundle.file("rootfs/etc/group", "root:x:0:\n1000:x:0:1000\n");
    bundle.set("process.user", json!({"uid": 1000, "gid": 1000}));
    bundle.script("id -u; id -g; id -G; echo $HOME");
    assert_eq!(bundle.run().ok(), "1000\n1000\n1000\n/");
    bundle.up();
    let out = bundle.exec_with(&["--user", "1000:1000"], &["sh", "-c", "id -u; id -g; echo $HOME"]);
    assert_eq!(out.ok(), "1000\n1000\n/");
}

/// CVE-2026-30892: what is not there in `--user` is not 0.
#[test]
fn users_of_exec() {
    let mut bundle = Bundle::new();
    bundle.set("process.user", json!({"uid": 7, "gid": 8})).up();
    let ids = |user: &str| bundle.exec_with(&["--user", user], &["sh", "-c", "echo $(id -u):$(id -g)"]);
    for (user, want) in [("1", "1:8"), ("1:2", "1:2"), ("0", "0:8"), ("0:0", "0:0"), ("65534:1", "65534:1")] {
        assert_eq!(ids(user).ok(), want, "{user}");
    }
    for user in
        [":2", "1:", ":", "a", "1:a", "root", "-1", "+1", " 1", "1 ", "0x1", "4294967295", "4294967296"]
    {
        let out = ids(user);
        assert_eq!(out.status, 255, "{user:?}: {out:?}");
        out.refused();
    }
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2022-24769, CVE-2025-27612: nothing becomes inheritable or
/// ambient by itself, for init, for `exec`, and for `exec --cap`.
#[test]
fn capabilities_are_not_inherited() {
    let mut bundle = Bundle::new();
    bundle.capable(&["CAP_KILL", "CAP_CHOWN"]).script("cat /proc/self/status");
    let check = |status: &str, permitted: &str| {
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(status, set), "0000000000000000", "{set} in {status}");
        }
        assert_eq!(field(status, "CapPrm"), permitted, "{status}");
        assert_eq!(field(status, "CapEff"), permitted, "{status}");
        assert_eq!(field(status, "CapBnd"), permitted, "{status}");
    };
    check(bundle.run().ok(), "0000000000000021");
    bundle.up();
    check(bundle.exec("cat /proc/self/status").ok(), "0000000000000021");
    let out = bundle.exec_with(&["--cap", "CAP_NET_RAW"], &["cat", "/proc/self/status"]);
    check(out.ok(), "0000000000002021");
    // Another user has none but those of the bounding set to gain by files.
    let out = bundle.exec_with(&["--user", "5:5", "--cap", "CAP_NET_RAW"], &["cat", "/proc/self/status"]);
    for set in ["CapInh", "CapAmb", "CapPrm", "CapEff"] {
        assert_eq!(field(out.ok(), set), "0000000000000000", "{set}");
    }
    assert_eq!(bundle.exec("grep Cap /proc/1/status").ok().lines().count(), 5, "init's are as they were");
}

/// CVE-2020-15257-like: a container that shares the host's network finds no abstract socket of ours.
#[test]
fn no_abstract_sockets() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("network").script("cat /proc/net/unix");
    // The network of the lane is this process's; what others of the lane listen on is not the question.
    let out = bundle.run();
    let ours: Vec<&str> =
        out.ok().lines().filter(|line| line.contains('@') && line.contains("locule")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    bundle.args(&["sleep", "1000"]).create();
    let listening = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!listening.lines().any(|line| line.contains('@') && line.contains(bundle.id())), "{listening}");
}
