//! Hooks and failure: what still runs, in which order, and what is left.
//!
//! Owns hooks that fail or hang; those that succeed are in `tests/host`.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lane::{Bundle, until};
use crate::leaks::Leaks;

const STAGES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Hooks of every stage that write its name; the one of `failing` fails then.
fn bundle(failing: &str) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]).set("root.readonly", json!(false));
    fs::create_dir(bundle.root()).unwrap();
    let log = bundle.file("hooks.log", "");
    // Two stages run in the container's mount namespace, one of them in its root.
    bundle.file("rootfs/hooks.log", "");
    for stage in STAGES {
        let file = if stage == "startContainer" { "/hooks.log" } else { log.to_str().unwrap() };
        let code = i32::from(stage == failing);
        let script = format!("echo {stage} >> {file}; exit {code}");
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]);
        bundle.set(&format!("hooks.{stage}"), hook);
    }
    bundle
}

fn ran(bundle: &Bundle) -> Vec<String> {
    let read = |path| fs::read_to_string(path).unwrap();
    let text = read(bundle.path("hooks.log")) + &read(bundle.rootfs("hooks.log"));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_failure_before_start_undoes_the_creation_and_ends_with_poststop() {
    for (failing, before) in [
        ("prestart", &["prestart"][..]),
        ("createRuntime", &["prestart", "createRuntime"]),
        ("createContainer", &["prestart", "createRuntime", "createContainer"]),
    ] {
        for verb in ["create", "run"] {
            let bundle = bundle(failing);
            let leaks = Leaks::of(&bundle);
            let out = bundle.locule(&[verb, bundle.id()]);
            out.refused_with(&[failing, "hook #0: /bin/sh", "exit status 1"]);
            assert_eq!(ran(&bundle), [before, &["poststop"]].concat(), "{verb}");
            leaks.none(&format!("by {verb} with a failing {failing} hook"));
        }
    }
}

#[test]
fn a_failure_at_start_stops_the_container() {
    let bundle = bundle("startContainer");
    bundle.create();
    bundle.locule(&["start", bundle.id()]).refused_with(&["startContainer", "exit status 1"]);
    bundle.wait_for("stopped");
    bundle.delete().assert_gone();
    assert_eq!(ran(&bundle), ["prestart", "createRuntime", "createContainer", "poststop", "startContainer"]);
}

#[test]
fn a_failure_after_start_stops_the_container() {
    let bundle = bundle("poststart");
    bundle.create();
    bundle.locule(&["start", bundle.id()]).refused_with(&["poststart", "exit status 1"]);
    bundle.wait_for("stopped");
    bundle.delete().assert_gone();
    assert_eq!(
        ran(&bundle),
        ["prestart", "createRuntime", "createContainer", "poststart", "poststop", "startContainer"]
    );
}

#[test]
fn a_failing_poststop_is_a_warning() {
    let bundle = bundle("poststop");
    bundle.create();
    let out = bundle.locule(&["delete", bundle.id()]);
    assert_eq!(out.status, 0, "{out:?}");
    assert!(out.stderr.starts_with("locule: warning: ") && out.stderr.contains("poststop"), "{out:?}");
    bundle.assert_gone();
}

#[test]
fn a_missing_hook_is_named() {
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    fs::create_dir(bundle.root()).unwrap();
    bundle.set("hooks", json!({"createRuntime": [{"path": "/no/such/hook"}]}));
    bundle.run().refused_with(&["createRuntime", "/no/such/hook", "no such file or directory"]);
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by a missing hook");
    bundle.set("hooks", json!({"createRuntime": [{"path": "relative"}]}));
    bundle.run().refused_with(&["relative"]);
}

#[test]
fn a_forced_deletion_waits_for_no_hook() {
    for stage in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new();
        bundle.args(&["true"]);
        fs::create_dir(bundle.root()).unwrap();
        let leaks = Leaks::of(&bundle);
        let mark = bundle.path("hanging");
        let script = format!("echo > {}; exec sleep 1000", mark.display());
        let hook: Value =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]);
        bundle.set("hooks", json!({stage: hook}));
        let mut command = bundle.command(&["create", bundle.id()]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the hook hangs", || mark.exists());
        assert_eq!(bundle.state()["status"], "creating");
        bundle.locule(&["start", "--", "nobody"]).refused();
        bundle.locule(&["delete", "--force", bundle.id()]).ok();
        assert!(!child.wait().unwrap().success());
        leaks.none(&format!("by a deletion in a {stage} hook"));
    }
}
