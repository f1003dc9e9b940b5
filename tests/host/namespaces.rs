//! `linux.namespaces`: each kind new, absent and joined by path.
//!
//! Owns which namespace a process is in. What user and time namespaces hold has modules of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::lane::{Bundle, namespace_of, until};

/// Types of the specification and their names in /proc/PID/ns.
const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn own(kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap()
}

#[test]
fn all_eight_are_new() {
    let mut bundle = Bundle::new();
    bundle.mapped().namespace(json!({"type": "time"})).up();
    for (kind, name) in KINDS {
        assert_ne!(namespace_of(bundle.pid(), name).unwrap(), own(name), "{kind}");
    }
    let out =
        bundle.exec("cd /proc/self/ns; for n in pid net mnt ipc uts user cgroup time; do readlink $n; done");
    let inside: Vec<_> = out.ok().lines().map(PathBuf::from).collect();
    let init: Vec<_> = KINDS.iter().map(|(_, name)| namespace_of(bundle.pid(), name).unwrap()).collect();
    assert_eq!(inside, init, "exec enters all of them");
}

#[test]
fn one_that_is_not_listed_is_the_callers() {
    for (kind, name) in KINDS {
        let mut bundle = Bundle::new();
        bundle.without_namespace(kind);
        if kind == "uts" {
            bundle.set("hostname", json!(null));
        }
        if kind == "network" {
            // sysfs can be mounted in a network namespace of its own user namespace alone; root may.
            bundle.set("linux.sysctl", json!({}));
        }
        bundle.up();
        assert_eq!(namespace_of(bundle.pid(), name).unwrap(), own(name), "{kind}");
    }
}

/// Its tree is its own all the same: the host has no mount more, and exec finds the way in.
#[test]
fn without_a_mount_namespace_the_host_sees_no_mounts() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("mount").up();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.rootfs("dev").to_str().unwrap()), "{mounts}");
    assert_eq!(bundle.exec("test -c /dev/null && test -d /proc/1 && pwd").ok().trim(), "/");
    let mut bundle = Bundle::new();
    bundle.without_namespace("mount").set("linux.rootfsPropagation", json!("shared"));
    bundle.try_create(&[]).refused_with(&["needs a mount namespace"]);
}

#[test]
fn each_kind_is_joined_by_path() {
    let mut first = Bundle::new();
    first.namespace(json!({"type": "time"})).up();
    let pid = first.pid();
    for (kind, name) in KINDS {
        if kind == "mount" || kind == "user" {
            continue;
        }
        let mut second = Bundle::new();
        if kind == "uts" {
            second.set("hostname", json!("joined"));
        }
        second.namespace(json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")})).up();
        for (other, name) in KINDS {
            let same = namespace_of(second.pid(), name).unwrap() == namespace_of(pid, name).unwrap();
            assert_eq!(same, other == kind || other == "user", "{other} while joining {kind}");
        }
        let seen = second.exec(&format!("readlink /proc/self/ns/{name}"));
        assert_eq!(
            seen.ok(),
            namespace_of(pid, name).unwrap().to_str().unwrap(),
            "exec after joining {kind}"
        );
        if kind == "uts" {
            assert_eq!(first.exec("hostname").ok(), "joined");
        }
    }
}

#[test]
fn a_pid_namespace_is_shared() {
    let mut first = Bundle::new();
    first.up();
    let mut second = Bundle::new();
    let path = format!("/proc/{}/ns/pid", first.pid());
    second.namespace(json!({"type": "pid", "path": path})).script("readlink /proc/1/ns/ipc; echo $$");
    let out = second.run();
    let lines: Vec<_> = out.ok().lines().collect();
    assert_eq!(lines[0], namespace_of(first.pid(), "ipc").unwrap().to_str().unwrap());
    assert_ne!(lines[1], "1");
    first.wait_for("running");
}

#[test]
fn a_user_namespace_is_joined() {
    let mut first = Bundle::new();
    first.mapped().up();
    let pid = first.pid();
    let mut second = Bundle::new();
    second.namespace(json!({"type": "user", "path": format!("/proc/{pid}/ns/user")})).up();
    for (kind, name) in KINDS {
        let same = namespace_of(second.pid(), name).unwrap() == namespace_of(pid, name).unwrap();
        assert_eq!(same, kind == "user" || kind == "time", "{kind}");
    }
    let out = second.exec("cat /proc/self/uid_map; id -u");
    assert_eq!(out.ok().split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536", "0"]);
}

/// As a pod does: everything but the mounts is that of a first container in a user namespace.
#[test]
fn all_are_joined_with_their_user_namespace() {
    let mut first = Bundle::new();
    first.mapped().namespace(json!({"type": "time"})).up();
    let pid = first.pid();
    let mut second = Bundle::new();
    second.set("hostname", json!(null));
    for (kind, name) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        second.namespace(json!({"type": kind, "path": format!("/proc/{pid}/ns/{name}")}));
    }
    second.up();
    for (kind, name) in KINDS {
        let same = namespace_of(second.pid(), name).unwrap() == namespace_of(pid, name).unwrap();
        assert_eq!(same, kind != "mount", "{kind}");
    }
    assert_eq!(second.exec("echo here").ok(), "here");
    second.kill("KILL").wait_for("stopped").delete();
    first.wait_for("running");
}

#[test]
fn a_new_user_namespace_with_a_joined_network() {
    let mut first = Bundle::new();
    first.up();
    let mut second = Bundle::new();
    let path = format!("/proc/{}/ns/net", first.pid());
    second.mapped().namespace(json!({"type": "network", "path": path}));
    // sysfs shows the network namespace, which the new user namespace does not own.
    second.edit(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["destination"] != "/sys" && mount["destination"] != "/sys/fs/cgroup")
    });
    second.up();
    assert_eq!(namespace_of(second.pid(), "net").unwrap(), namespace_of(first.pid(), "net").unwrap());
    assert_ne!(namespace_of(second.pid(), "user").unwrap(), own("user"));
}

#[test]
fn a_mount_namespace_is_joined() {
    let bundle_of = |pid: u32| {
        let mut bundle = Bundle::new();
        bundle.namespace(json!({"type": "mount", "path": format!("/proc/{pid}/ns/mnt")}));
        bundle.script("readlink /proc/self/ns/mnt; ls /");
        bundle
    };
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = holder.id();
    until("the holder has its namespace", || {
        namespace_of(pid as i32, "mnt").is_ok_and(|ns| ns != own("mnt"))
    });
    let meant = namespace_of(pid as i32, "mnt").unwrap();
    let out = bundle_of(pid).run();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(out.ok().starts_with(meant.to_str().unwrap()) && out.ok().contains("\nbin\n"), "{out:?}");
}

#[test]
fn wrong_namespaces_are_refused() {
    let net = "/proc/self/ns/net";
    for (namespace, words) in [
        (json!({"type": "flat"}), &["flat", "unknown"][..]),
        (json!({"type": "ipc", "path": "/absent"}), &["/absent", "ENOENT"]),
        (json!({"type": "ipc", "path": net}), &[net, "another kind"]),
        (json!({"type": "ipc", "path": "/etc/passwd"}), &["/etc/passwd", "not a namespace"]),
        (json!({"type": "ipc", "path": "ns/ipc"}), &["ns/ipc", "absolute"]),
    ] {
        let mut bundle = Bundle::new();
        bundle.namespace(namespace).run().refused_with(words);
        bundle.assert_gone();
    }
    let mut bundle = Bundle::new();
    bundle.push("linux.namespaces", json!({"type": "ipc"})).run().refused_with(&["ipc", "twice"]);
}

#[test]
fn loopback_is_up() {
    let out = Bundle::new().script("ip -o addr show lo").run();
    assert!(out.ok().contains("127.0.0.1/8"), "{out:?}");
}

/// The root of a container that joins a mount namespace is its own; who lives there notices nothing.
#[test]
fn a_mount_namespace_is_joined_without_harm() {
    let mut first = Bundle::new();
    first.up();
    let mounts = || fs::read_to_string(format!("/proc/{}/mountinfo", first.pid())).unwrap();
    let before = mounts();
    let mut second = Bundle::new();
    second.namespace(json!({"type": "mount", "path": format!("/proc/{}/ns/mnt", first.pid())}));
    second.file("rootfs/mine", "second");
    second.up();
    assert_eq!(namespace_of(second.pid(), "mnt").unwrap(), namespace_of(first.pid(), "mnt").unwrap());
    assert_eq!(second.exec("cat /mine").ok(), "second");
    assert_eq!(mounts(), before);
    second.locule(&["delete", "--force", second.id()]).ok();
    assert_eq!(mounts(), before);
    first.exec("true").ok();
}
