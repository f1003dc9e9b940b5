//! `hooks`: all six kinds, their order, their namespaces, their input, and what a failing one does.
//!
//! Owns what hooks see and when they run.

use std::fs;

use serde_json::{Value, json};

use crate::lane::Bundle;

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs a script of sh(1).
fn sh(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]})
}

/// A bundle whose directory `log` is /mnt inside, and /mnt or its own path for hooks.
fn bundle() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.directory("log");
    bundle.mount("/mnt", "bind", "log", &["bind"]);
    bundle
}

/// The directory `log` as a hook of that kind sees it.
fn log(bundle: &Bundle, kind: &str) -> String {
    if kind == "startContainer" { "/mnt".into() } else { bundle.path("log").display().to_string() }
}

fn read(bundle: &Bundle, file: &str) -> String {
    fs::read_to_string(bundle.path("log").join(file)).unwrap_or_default()
}

#[test]
fn order_state_and_namespaces() {
    let mut bundle = bundle();
    for kind in KINDS {
        let log = log(&bundle, kind);
        let script = format!(
            "cat > {log}/{kind}; readlink /proc/self/ns/mnt > {log}/{kind}.ns; echo {kind} >> {log}/order"
        );
        bundle.push(&format!("hooks.{kind}"), sh(&script));
        bundle.push(&format!("hooks.{kind}"), sh(&format!("echo {kind} again >> {log}/order")));
    }
    bundle.set("annotations", json!({"key": "value"}));
    bundle.script(
        "until grep -q 'poststart again' /mnt/order; do sleep 0.01; done; echo workload >> /mnt/order",
    );
    bundle.create();
    assert_eq!(
        read(&bundle, "order"),
        "prestart\nprestart again\ncreateRuntime\ncreateRuntime again\ncreateContainer\ncreateContainer again\n"
    );
    let pid = bundle.pid();
    let inside = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    bundle.start().wait_for("stopped").delete();
    let order = read(&bundle, "order");
    let rest = order.split_once("createContainer again\n").unwrap().1;
    assert_eq!(
        rest,
        "startContainer\nstartContainer again\npoststart\npoststart again\nworkload\npoststop\npoststop again\n"
    );
    for (kind, status, in_container) in [
        ("prestart", "creating", false),
        ("createRuntime", "creating", false),
        ("createContainer", "creating", true),
        ("startContainer", "created", true),
        ("poststart", "running", false),
        ("poststop", "stopped", false),
    ] {
        let state: Value = serde_json::from_str(&read(&bundle, kind)).unwrap();
        assert_eq!(
            (state["id"].as_str(), state["status"].as_str()),
            (Some(bundle.id()), Some(status)),
            "{kind}"
        );
        assert_eq!(state["ociVersion"], bundle.config()["ociVersion"], "{kind}");
        assert_eq!(state["annotations"], json!({"key": "value"}), "{kind}");
        assert_eq!(
            state["bundle"].as_str().unwrap(),
            bundle.path("").to_str().unwrap().trim_end_matches('/')
        );
        match kind {
            "poststop" => assert!(state["pid"].is_null() || state["pid"] == 0, "{state}"),
            _ if in_container => assert_eq!(state["pid"], 1, "{kind}: the pid within the container"),
            _ => assert_eq!(state["pid"], pid, "{kind}"),
        }
        let namespace = read(&bundle, &format!("{kind}.ns"));
        assert_eq!(namespace.trim() == inside.to_str().unwrap(), in_container, "{kind}");
    }
}

/// config.md: createContainer sees the container's mounts before the root changes, startContainer after.
#[test]
fn what_the_inner_hooks_see() {
    let mut bundle = bundle();
    let outside = log(&bundle, "createContainer");
    let rootfs = bundle.rootfs("").display().to_string();
    let script = format!("grep -c ' {rootfs}proc ' /proc/self/mountinfo > {outside}/mounts");
    bundle.push("hooks.createContainer", sh(&script));
    bundle.push("hooks.startContainer", sh("ls / > /mnt/root; hostname >> /mnt/root"));
    bundle.script("true").run().ok();
    assert_eq!(read(&bundle, "mounts"), "1\n");
    assert!(read(&bundle, "root").starts_with("bin\ndev\n") && read(&bundle, "root").ends_with("\nlocule\n"));
}

#[test]
fn environment_and_arguments() {
    let mut bundle = bundle();
    let log = log(&bundle, "prestart");
    bundle.set(
        "hooks.prestart",
        json!([{"path": "/bin/sh", "args": ["name", "-c", format!("echo \"$0 $1\" > {log}/args; env >> {log}/args"), "zero", "one two"],
            "env": ["A=1", "B=x=y"]}]),
    );
    bundle.script("true").run().ok();
    let args = read(&bundle, "args");
    assert!(
        args.starts_with("zero one two\n") && args.contains("\nA=1\n") && args.contains("B=x=y"),
        "{args}"
    );
    assert!(!args.contains("HOME=") && !args.contains("CARGO"), "the caller's environment: {args}");
}

/// A hook without args is called with its path.
#[test]
fn a_hook_without_arguments() {
    let mut bundle = bundle();
    let out = bundle.path("log/ran").display().to_string();
    let hook = bundle.program("hook", format!("#!/bin/sh\necho \"$0 $#\" > {out}\n"));
    bundle.set("hooks.createRuntime", json!([{"path": hook}])).script("true").run().ok();
    assert_eq!(read(&bundle, "ran"), format!("{} 0\n", hook.display()));
}

/// runtime.md, lifecycle: a failing hook before the start stops the container, and poststop hooks run.
#[test]
fn a_failing_hook_undoes_the_creation() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = bundle();
        let log = log(&bundle, kind);
        bundle.push(&format!("hooks.{kind}"), sh("echo bad news >&2; exit 3"));
        bundle.push(&format!("hooks.{kind}"), sh(&format!("touch {log}/second")));
        bundle.push("hooks.poststop", sh(&format!("touch {log}/poststop")));
        bundle.script("touch /mnt/workload");
        bundle.try_create(&[]).refused_with(&[kind, "exit status 3", "bad news"]);
        bundle.assert_gone();
        let left: Vec<_> =
            fs::read_dir(bundle.path("log")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["poststop"], "{kind}");
    }
}

#[test]
fn a_failing_start_hook_keeps_the_workload_from_running() {
    let mut bundle = bundle();
    bundle.push("hooks.startContainer", sh("exit 4")).script("touch /mnt/workload").create();
    bundle.locule(&["start", bundle.id()]).refused_with(&["startContainer", "exit status 4"]);
    bundle.wait_for("stopped").delete();
    bundle.assert_gone();
    assert!(!bundle.path("log/workload").exists());
    let out = bundle.run();
    out.refused_with(&["startContainer", "exit status 4"]);
    bundle.assert_gone();
}

#[test]
fn a_failing_poststart_hook_stops_the_container() {
    let mut bundle = bundle();
    bundle.push("hooks.poststart", sh("exit 5")).script("sleep 1000").create();
    bundle.locule(&["start", bundle.id()]).refused_with(&["poststart", "exit status 5"]);
    bundle.wait_for("stopped").delete();
    bundle.assert_gone();
}

/// runtime.md: a failing poststop hook is a warning, and the later ones run.
#[test]
fn a_failing_poststop_hook_keeps_nothing() {
    let mut bundle = bundle();
    let log = log(&bundle, "poststop");
    bundle.push("hooks.poststop", sh("exit 6")).push("hooks.poststop", sh(&format!("touch {log}/second")));
    bundle.script("true").create().start().wait_for("stopped").delete();
    bundle.assert_gone();
    assert!(bundle.path("log/second").exists());
}

#[test]
fn time_is_limited() {
    let mut bundle = bundle();
    let mut hook = sh("sleep 1000");
    hook["timeout"] = json!(1);
    bundle.push("hooks.createRuntime", hook.clone());
    bundle.try_create(&[]).refused_with(&["createRuntime", "1 s"]);
    bundle.assert_gone();
    hook["timeout"] = json!(0);
    bundle.set("hooks.createRuntime", json!([hook])).run().refused_with(&["createRuntime[0].timeout"]);
}

#[test]
fn wrong_hooks_are_refused() {
    for kind in KINDS {
        let mut bundle = bundle();
        bundle.push(&format!("hooks.{kind}"), json!({"path": "bin/sh"}));
        bundle.run().refused_with(&[&format!("hooks.{kind}[0].path"), "absolute"]);
        bundle.assert_gone();
    }
    let mut bundle = bundle();
    bundle
        .push("hooks.createRuntime", json!({"path": "/absent/hook"}))
        .run()
        .refused_with(&["/absent/hook", "ENOENT"]);
    bundle.assert_gone();
}

/// A hook may ask the runtime about the container that is being made.
#[test]
fn a_hook_may_ask_for_the_state() {
    let mut bundle = bundle();
    let script = format!(
        "{} --root {} state {} > {}/asked",
        crate::lane::LOCULE,
        bundle.root().display(),
        bundle.id(),
        log(&bundle, "prestart")
    );
    bundle.push("hooks.prestart", sh(&script)).script("true").run().ok();
    let state: Value = serde_json::from_str(&read(&bundle, "asked")).unwrap();
    assert_eq!(state["status"], "creating");
}

#[test]
fn without_its_own_environment_start_container_has_the_workloads() {
    let mut bundle = bundle();
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo $WORD $HOME > /mnt/inherited"]});
    bundle.push("hooks.startContainer", hook).push("process.env", json!("WORD=told"));
    bundle.push("hooks.startContainer", sh("echo \"<$WORD>\" > /mnt/own"));
    bundle.script("true").run().ok();
    assert_eq!((read(&bundle, "inherited"), read(&bundle, "own")), ("told /root\n".into(), "<>\n".into()));
}

#[test]
fn create_container_starts_in_the_root() {
    let mut bundle = bundle();
    let log = bundle.path("log").display().to_string();
    bundle.file("rootfs/etc/mark", "of the image");
    bundle.push("hooks.createContainer", sh(&format!("cat ./etc/mark > {log}/mark")));
    bundle.script("true").run().ok();
    assert_eq!(read(&bundle, "mark"), "of the image");
}
