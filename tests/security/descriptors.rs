//! Descriptors of the runtime's that a container could use: as a working directory, as a way to a
//! program, or inherited.
//!
//! Owns the names that lead through /proc/self/fd.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::lane::{Bundle, Output};

/// Numbers that the runtime's descriptors have: from the lowest free one on, and those of the seal.
fn numbers() -> impl Iterator<Item = u32> {
    (0..24).chain(400..404)
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime's, for `run` and `exec`.
#[test]
fn a_working_directory_outside() {
    let mut bundle = Bundle::new();
    bundle.args(&["sh", "-c", "ls ../../../../../../etc"]);
    for number in numbers() {
        for path in ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"] {
            bundle.set("process.cwd", json!(format!("{path}/{number}")));
            let out = bundle.run();
            // A descriptor of the container's own root leads nowhere else.
            if out.status != 0 || out.stdout != "group\npasswd\n" {
                out.refused_with(&["working directory"]);
            }
            bundle.assert_gone();
        }
    }
    bundle.set("process.cwd", json!("/"));
    symlink("/proc/self/fd/7", bundle.rootfs("seven")).unwrap();
    bundle.up();
    let paths = numbers().map(|number| format!("/proc/self/fd/{number}"));
    for path in paths.chain(["/seven".to_owned()]) {
        let out = bundle.exec_with(&["--cwd", &path], &["ls", "../../../../../../etc"]);
        if out.status != 0 || out.stdout != "group\npasswd\n" {
            assert_eq!(out.status, 255, "{path}: {out:?}");
            out.refused_with(&["working directory"]);
        }
    }
}

/// CVE-2024-21626 for `create`: the working directory is entered before `create` returns.
#[test]
fn a_working_directory_outside_for_create() {
    let mut bundle = Bundle::new();
    bundle.args(&["sh", "-c", "ls ../../../../../../etc"]);
    for number in numbers() {
        bundle.set("process.cwd", json!(format!("/proc/self/fd/{number}")));
        let out = bundle.try_create(&[]);
        if out.status == 0 {
            bundle.start().wait_for("stopped");
            assert_eq!(bundle.stdout(), "group\npasswd\n", "descriptor {number}");
            bundle.delete();
        } else {
            out.refused_with(&["working directory"]);
        }
    }
}

/// CVE-2024-21626, attack 3: the program itself is named by way of a descriptor, which execve(2)
/// follows while descriptors that are only closed on execution are still open.
///
/// With `CLOSE_RANGE_CLOEXEC` in the place of closing, as it was once, the host's program ran.
#[test]
fn a_program_outside() {
    let mut bundle = Bundle::new();
    // One that is only there on the host.
    let outside = bundle.program("outside", fs::read(bundle.rootfs("bin/busybox")).unwrap());
    let outside = format!("../../../../../../..{}", outside.display());
    let mut all: Vec<String> = numbers().map(|number| format!("/proc/self/fd/{number}/{outside}")).collect();
    for (at, path) in all.clone().iter().enumerate() {
        // As an image would have it, whose entry point looks harmless.
        symlink(path, bundle.rootfs(&format!("entry{at}"))).unwrap();
        all.push(format!("/entry{at}"));
    }
    for path in &all {
        let out = bundle.args(&[path, "echo", "escaped"]).run();
        escaped_not(path, &out, &out.stdout);
        bundle.assert_gone();
    }
    bundle.up();
    for path in &all {
        let out = bundle.exec_with(&[], &[path, "echo", "escaped"]);
        escaped_not(path, &out, &out.stdout);
    }
    bundle.kill("KILL").wait_for("stopped").delete();
    for path in &all {
        bundle.args(&[path, "echo", "escaped"]);
        let out = bundle.try_create(&[]);
        escaped_not(path, &out, &bundle.stdout());
    }
}

#[track_caller]
fn escaped_not(path: &str, out: &Output, shown: &str) {
    assert!(out.status != 0 && shown.is_empty(), "{path}: {out:?}");
    let told = out.refused();
    assert!(told.contains("ENOENT") || told.contains("ENOTDIR"), "{path}: {told}");
}

/// CVE-2024-21626, CVE-2016-9962: nothing but the standard descriptors reaches the workload, even
/// where the caller's own leak (an engine's that forgot close-on-exec).
#[test]
fn nothing_is_inherited() {
    use std::os::fd::AsRawFd;
    let mut bundle = Bundle::new();
    let kept = fs::File::open("/").unwrap();
    let leaked = nix::unistd::dup(&kept).unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    assert!(leaked.as_raw_fd() > 2);
    // The shell's glob holds the directory itself open, as 3.
    let list = "cd /proc/self/fd; for fd in *; do [ -e $fd ] && echo $fd; done; true";
    assert_eq!(bundle.script(list).run().ok(), "0\n1\n2");
    bundle.create().start().wait_for("stopped");
    assert_eq!(bundle.stdout(), "0\n1\n2\n");
    bundle.delete();
    bundle.up();
    assert_eq!(bundle.exec(list).ok(), "0\n1\n2");
}

/// Hooks are foreign programs as well: they get their three descriptors and none of the runtime's.
#[test]
fn hooks_inherit_nothing() {
    let mut bundle = Bundle::new();
    let log = bundle.directory("log");
    bundle.mount("/mnt", "bind", "log", &["bind"]);
    for kind in KINDS {
        let log = if kind == "startContainer" { "/mnt".into() } else { log.display().to_string() };
        let script = format!("PATH=/usr/bin:/bin; ls /proc/self/fd > {log}/{kind}");
        let hook: Value = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]});
        bundle.push(&format!("hooks.{kind}"), hook);
    }
    // An engine's that forgot close-on-exec.
    let kept = fs::File::open("/").unwrap();
    let leaked = nix::unistd::dup(&kept).unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    bundle.args(&["true"]).create().start().wait_for("stopped").delete();
    for kind in KINDS {
        let shown = fs::read_to_string(log.join(kind)).unwrap();
        // ls(1) holds the directory open itself.
        assert_eq!(shown.lines().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{kind}");
    }
}

pub const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// What waits between create and start holds the gate and nothing of the host's.
#[test]
fn what_waits_holds_only_its_gate() {
    let mut bundle = Bundle::new();
    bundle.args(&["true"]).create();
    let dir = format!("/proc/{}/fd", bundle.pid());
    let held: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    let (sockets, rest): (Vec<_>, Vec<_>) = held.iter().partition(|held| held.starts_with("socket:"));
    assert_eq!((sockets.len(), rest.len()), (1, 3), "{held:?}");
}
