//! What is told about containers: list, ps, events, check, update, logs.
//!
//! Owns the forms of these answers for containers that exist.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::lane::Bundle;

#[test]
fn list_and_ps() {
    let mut bundle = Bundle::new();
    bundle.up();
    let (id, pid) = (bundle.id().to_owned(), bundle.pid());
    let listed: Value = serde_json::from_str(bundle.locule(&["list", "--format", "json"]).ok()).unwrap();
    let own = &listed.as_array().unwrap()[0];
    assert_eq!((own["id"].as_str(), own["status"].as_str()), (Some(id.as_str()), Some("running")));
    assert_eq!(own["pid"], pid);
    assert_eq!(bundle.locule(&["list", "-q"]).ok(), id);
    let table = bundle.locule(&["list"]).ok().to_owned();
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..3], [id.as_str(), &pid.to_string(), "running"]);
    assert_eq!(words[5], "root");

    let pids: Vec<i32> = serde_json::from_str(bundle.locule(&["ps", "--format", "json", &id]).ok()).unwrap();
    let procs = fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap();
    let mut known: Vec<i32> = procs.lines().map(|line| line.parse().unwrap()).collect();
    let mut told = pids.clone();
    known.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, known);
    let table = bundle.locule(&["ps", &id]).ok().to_owned();
    assert!(table.starts_with("UID") && table.lines().count() == pids.len() + 1, "{table}");
    let table = bundle.locule(&["ps", &id, "-o", "pid,comm"]).ok().to_owned();
    assert!(table.lines().any(|line| line.split_whitespace().next() == Some(&pid.to_string())), "{table}");
    bundle.locule(&["ps", &id, "-o", "comm"]).refused_with(&["PID column"]);
}

#[test]
fn a_broken_neighbour_does_not_spoil_the_list() {
    let mut bundle = Bundle::new();
    bundle.up();
    for (name, state) in
        [("empty", None), ("torn", Some("{\"version\":1,")), ("future", Some("{\"version\":7}"))]
    {
        let dir = bundle.directory(&format!("state/{name}"));
        if let Some(state) = state {
            fs::write(dir.join("state.json"), state).unwrap();
        }
    }
    let out = bundle.locule(&["list", "-f", "json"]);
    let listed: Value = serde_json::from_str(out.ok()).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    for name in ["empty", "torn", "future"] {
        assert!(out.stderr.contains(name), "{out:?}");
        bundle.locule(&["delete", "--force", name]).ok();
    }
}

#[test]
fn events() {
    let mut bundle = Bundle::new();
    bundle.up();
    let once: Value = serde_json::from_str(bundle.locule(&["events", "--stats", bundle.id()]).ok()).unwrap();
    assert_eq!((once["type"].as_str(), once["id"].as_str()), (Some("stats"), Some(bundle.id())));
    assert!(once["data"].is_object());

    let mut command = bundle.command(&["events", "--interval", "20ms", bundle.id()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    bundle.kill("KILL").wait_for("stopped");
    for line in lines {
        let _: Value = serde_json::from_str(&line.unwrap()).unwrap();
    }
    assert!(child.wait().unwrap().success(), "the stream ends with the container");
}

#[test]
fn check_touches_nothing() {
    let mut bundle = Bundle::new();
    fs::write(bundle.path("config.json"), bundle.config().to_string()).unwrap();
    let out = bundle.locule(&["check", "."]);
    assert_eq!(out.status, 0, "{out:?}");
    bundle.set("process.args", json!([]));
    let out = bundle.locule(&["check", "."]);
    assert_ne!(out.status, 0, "{out:?}");
    assert!(!bundle.root().exists() && !bundle.cgroup().exists());
}

#[test]
fn update_of_what_this_tree_has_not() {
    let mut bundle = Bundle::new();
    bundle.up();
    bundle.locule(&["update", "--memory", "64m", bundle.id()]).refused_with(&["memory"]);
    let file = bundle.file("limits.json", "{}");
    bundle.locule(&["update", "--resources", file.to_str().unwrap(), bundle.id()]).ok();
    bundle.file("limits.json", "{\"pids\": {\"limit\": \"many\"}}");
    bundle.locule(&["update", "-r", "limits.json", bundle.id()]).refused_with(&["limits.json"]);
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn one_error_record_for_a_failure_anywhere() {
    let mut bundle = Bundle::new();
    // In the creator, before anything is made; in init; in a hook; at execve.
    let failures: [(&str, Value); 4] = [
        ("root.path", json!("nowhere")),
        ("process.cwd", json!("/dev/null")),
        ("hooks.createContainer", json!([{"path": "/bin/false"}])),
        ("process.args", json!(["nowhere"])),
    ];
    for (property, value) in failures {
        let before = bundle.config().clone();
        bundle.set(property, value);
        for format in ["json", "text"] {
            let log = bundle.path("log");
            let _ = fs::remove_file(&log);
            let words =
                ["--log", log.to_str().unwrap(), "--log-format", format, "create", "-b", ".", bundle.id()];
            let out = bundle.locule(&words);
            out.refused();
            let text = fs::read_to_string(&log).unwrap();
            assert_eq!(text.lines().count(), 1, "{property}: {text}");
            if format == "json" {
                let record: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(record["level"], "error");
                assert_eq!(out.stderr.trim_end(), format!("locule: {}", record["msg"].as_str().unwrap()));
            } else {
                assert!(text.contains(" level=error msg=\""), "{text}");
            }
        }
        bundle.edit(|config| *config = before);
    }
}
