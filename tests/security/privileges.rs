//! Least privilege of the runtime's own processes: which of them stay, for how long, with what.
//!
//! Owns the look at them from the host.

use std::fs;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::descriptors::KINDS;
use crate::lane::{Bundle, field, until};
use crate::peek::{SECRET, assert_no_secret};

fn status(pid: impl std::fmt::Display) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

/// Processes of the binary with the container's id in their words.
fn ours(bundle: &Bundle) -> Vec<i32> {
    let words = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect::<Vec<_>>()
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let words = words(*pid);
        words.first().is_some_and(|word| word.ends_with("locule"))
            && words.iter().any(|word| word == bundle.id())
    })
    .collect()
}

/// After `create` only init is there, with the workload's rights; after `start` nothing of ours.
#[test]
fn nothing_stays() {
    let mut bundle = Bundle::new();
    bundle.set("process.user", json!({"uid": 1000, "gid": 1000}));
    bundle.set("hooks.poststart", json!([{"path": "/bin/true"}])).args(&["sleep", "1000"]).create();
    let pid = bundle.pid();
    assert_eq!(ours(&bundle), [pid]);
    let text = status(pid);
    assert_eq!(field(&text, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&text, "NoNewPrivs"), "1");
    // Those of the document, which execve(2) takes from this user.
    for (set, want) in [("CapBnd", "20000420"), ("CapPrm", "20000420"), ("CapInh", "0"), ("CapAmb", "0")] {
        assert_eq!(field(&text, set), format!("{want:0>16}"), "{set}");
    }
    bundle.start();
    assert_eq!(ours(&bundle), [0; 0]);
    bundle.exec_detached(&["sleep", "1000"]);
    assert_eq!(ours(&bundle), [0; 0]);
}

/// The one that stays beside an `exec` in the foreground has given up all capabilities but the one by
/// which it passes signals on to another user's process, and still does pass them on.
#[test]
fn exec_keeps_no_rights() {
    let mut bundle = Bundle::new();
    bundle.up();
    let script = "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let mut exec = bundle.command(&["exec", "--user", "1000:1000", bundle.id(), "sh", "-c", script]);
    let out = bundle.path("exec.out");
    let mut exec = exec.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    until("it runs", || fs::read_to_string(&out).unwrap() == "up\n");
    // Right after the workload has begun.
    until("rights are given up", || field(&status(exec.id()), "CapPrm") == "0000000000000020");
    assert_eq!(field(&status(exec.id()), "CapEff"), "0000000000000020");
    kill(Pid::from_raw(exec.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(exec.wait().unwrap().code(), Some(3));
    assert_eq!(fs::read_to_string(&out).unwrap(), "up\ntold\n");
}

/// CVE-2016-10124: input can be pushed into the caller's terminal (`TIOCSTI`) by who has it as the
/// controlling one: workloads are in a session of their own, which has no terminal but its own.
#[test]
fn sessions_are_their_own() {
    let mut bundle = Bundle::new();
    // Number, session and terminal of proc_pid_stat(5).
    let script = "read -r self name state parent group session terminal rest </proc/$$/stat
        echo $((session == self)) $terminal";
    bundle.script(script);
    assert_eq!(bundle.run().ok(), "1 0");
    bundle.up();
    assert_eq!(bundle.exec(script).ok(), "1 0");
    assert_eq!(bundle.exec_with(&["--user", "5:5"], &["sh", "-c", script]).ok(), "1 0");
}

/// No environment of the caller's is seen by the workload, by init while it waits, or by a hook.
#[test]
fn the_callers_environment() {
    let mut bundle = Bundle::new();
    let log = bundle.directory("log");
    bundle.mount("/mnt", "bind", "log", &["bind"]);
    for kind in KINDS {
        let log = if kind == "startContainer" { "/mnt".into() } else { log.display().to_string() };
        // Its own, and that of who waits for it.
        let script = format!("(env; cat /proc/self/environ /proc/$PPID/environ) > {log}/{kind}; true");
        let hook: Value =
            json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", "OWN=1"]});
        bundle.push(&format!("hooks.{kind}"), hook);
    }
    bundle.script("env; cat /proc/self/environ /proc/1/environ; echo $SECRET");
    let call = |words: &[&str]| {
        let mut command = bundle.command(&[words, &[bundle.id()]].concat());
        command.env("SECRET", SECRET).stdout(fs::File::create(bundle.path("stdout")).unwrap());
        assert!(command.stderr(Stdio::null()).status().unwrap().success(), "{words:?}");
    };
    call(&["create"]);
    assert_no_secret(&format!("/proc/{}", bundle.pid()));
    let out = bundle.path("stdout");
    let kept = fs::read(&out).unwrap();
    assert!(kept.is_empty());
    bundle.command(&["start", bundle.id()]).env("SECRET", SECRET).status().unwrap();
    bundle.wait_for("stopped");
    bundle.command(&["delete", bundle.id()]).env("SECRET", SECRET).status().unwrap();
    bundle.assert_gone();
    for kind in KINDS {
        let text = String::from_utf8_lossy(&fs::read(log.join(kind)).unwrap()).into_owned();
        assert!(text.contains("OWN=1"), "{kind}: {text}");
        // The callers of the outer ones are on the host, where who may read their environment may.
        let inner = matches!(kind, "createContainer" | "startContainer");
        let environment = if inner { text.as_str() } else { text.split("SECRET").next().unwrap() };
        assert!(!environment.contains(SECRET), "{kind}: {text}");
    }
    call(&["run"]);
    assert!(!bundle.stdout().contains(SECRET), "{}", bundle.stdout());
    let mut bundle = Bundle::new();
    bundle.up();
    let mut exec = bundle.command(&["exec", bundle.id(), "sh", "-c", "env; cat /proc/self/environ"]);
    let shown = exec.env("SECRET", SECRET).output().unwrap();
    assert!(shown.status.success() && !String::from_utf8_lossy(&shown.stdout).contains(SECRET), "{shown:?}");
}
