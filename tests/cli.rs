//! The binary's command line as its callers see it: words in; text, log records and exit codes out.
//!
//! Needs no privileges and makes no container.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const VERBS: [&str; 29] = [
    "create",
    "start",
    "run",
    "exec",
    "state",
    "list",
    "ps",
    "kill",
    "delete",
    "pause",
    "resume",
    "update",
    "events",
    "spec",
    "check",
    "features",
    "checkpoint",
    "restore",
    "network create",
    "network ls",
    "network show",
    "network rm",
    "network connect",
    "network disconnect",
    "network set",
    "network check",
    "network gc",
    "completion",
    "help",
];

/// A directory of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_locule"));
    command.args(words);
    command
}

fn locule(words: &[&str]) -> Output {
    command(words).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// A failed call with nothing on standard output and one line on standard error.
fn refused(words: &[&str], status: i32) -> String {
    let output = locule(words);
    assert_eq!(output.status.code(), Some(status), "{words:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{words:?}");
    let told = stderr(&output);
    assert!(
        told.starts_with("locule: ") && told.ends_with('\n') && told.lines().count() == 1,
        "{words:?}: {told:?}"
    );
    told.trim_end().strip_prefix("locule: ").unwrap().to_owned()
}

#[test]
fn every_verb_has_help_and_a_manual_page() {
    for verb in VERBS {
        let page = verb.replace(' ', "-");
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("man/locule-{page}.1"));
        assert!(fs::read_to_string(&page).unwrap().contains(".SH SYNOPSIS"), "{verb}");
        let words: Vec<_> = verb.split(' ').collect();
        let with = |before: &[&'static str], after: &[&'static str]| [before, &words, after].concat();
        for asking in [with(&[], &["--help"]), with(&[], &["-h"]), with(&["help"], &[])] {
            let output = locule(&asking);
            // A successful `checkpoint --help` means support to Podman.
            if ["checkpoint", "restore"].contains(&verb) && asking[0] == verb {
                assert_eq!(output.status.code(), Some(1), "{asking:?}");
                assert!(stderr(&output).contains("not there yet"), "{asking:?}");
            } else {
                assert!(output.status.success(), "{asking:?}");
                assert!(
                    stdout(&output).contains(&format!("Usage: locule [global options] {verb}")),
                    "{asking:?}"
                );
                assert_eq!(stderr(&output), "", "{asking:?}");
            }
        }
    }
}

#[test]
fn help_names_every_verb() {
    for words in [&["--help"][..], &["-h"], &["help"], &["h"], &[]] {
        let output = locule(words);
        assert!(output.status.success());
        for verb in VERBS {
            // A noun stands for its verbs, which its own help names.
            let word = verb.split(' ').next().unwrap();
            assert!(stdout(&output).contains(&format!("\n  {word} ")), "{words:?}: {verb}");
        }
    }
    for (noun, name) in VERBS.iter().filter_map(|verb| verb.split_once(' ')) {
        for words in [[noun, "--help"], ["help", noun]] {
            assert!(stdout(&locule(&words)).contains(&format!("\n  {name} ")), "{words:?}: {name}");
        }
    }
}

#[test]
fn version_has_the_lines_that_dockerd_reads() {
    for words in [["--version"], ["-v"], ["-version"]] {
        let output = locule(&words);
        let mut lines = stdout(&output).lines();
        assert_eq!(lines.next(), Some(concat!("locule version ", env!("CARGO_PKG_VERSION"))));
        assert!(lines.any(|line| line == "spec: 1.3.0"));
        assert!(output.status.success() && output.stderr.is_empty());
    }
}

#[test]
fn podman_finds_the_words_it_probes_for() {
    assert_eq!(refused(&["restore", "--lsm-mount-context"], 1), "flag needs an argument: -lsm-mount-context");
    assert!(refused(&["checkpoint", "--help"], 1).contains("not there yet"));
}

#[test]
fn an_unknown_container_does_not_exist() {
    let scratch = Scratch::new("unknown");
    for root in [scratch.path("absent"), scratch.0.to_str().unwrap().to_owned()] {
        for words in
            [&["state", "x"][..], &["start", "x"], &["kill", "x", "9"], &["delete", "x"], &["ps", "x"]]
        {
            let told = refused(&[&["--root", root.as_str()], words].concat(), 1);
            assert!(told.contains("does not exist"), "{words:?}: {told}");
        }
        let output = locule(&["--root", &root, "delete", "--force", "x"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(refused(&["--root", &root, "exec", "x", "ls"], 255).contains("does not exist"));
    }
    assert!(!Path::new(&scratch.path("absent")).exists(), "reading verbs make no root");
}

#[test]
fn containerds_words_are_understood() {
    let scratch = Scratch::new("containerd");
    let (root, log, bundle) = (scratch.path("root"), scratch.path("log.json"), scratch.path("none"));
    let prefix = ["--root", &root, "--log", &log, "--log-format", "json", "--systemd-cgroup"];
    let pid_file = scratch.path("init.pid");
    let calls: [&[&str]; 8] = [
        &["create", "--bundle", &bundle, "--pid-file", &pid_file, "--no-pivot", "x"],
        &["start", "x"],
        &["exec", "--process", "/dev/null", "--detach", "--pid-file", &pid_file, "x"],
        &["kill", "--all", "x", "9"],
        &["pause", "x"],
        &["ps", "--format", "json", "x"],
        &["update", "--resources=-", "x"],
        &["restore", "--image-path", "i", "--detach", "-no-subreaper", "--bundle", &bundle, "x"],
    ];
    for (number, call) in calls.iter().enumerate() {
        let output = locule(&[&prefix, *call].concat());
        assert!(!output.status.success(), "{call:?}");
        let text = fs::read_to_string(&log).unwrap();
        let records: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), number + 1, "{call:?} writes one record: {text}");
        let record = records.last().unwrap();
        assert_eq!(record["level"], "error", "{call:?}");
        let told = record["msg"].as_str().unwrap();
        assert!(!told.contains("flag") && !told.contains("usage"), "{call:?}: {told}");
        assert_eq!(stderr(&output), format!("locule: {told}\n"), "standard error has it too, as with runc");
        assert!(record["time"].as_str().unwrap().ends_with('Z'));
    }
    assert!(!Path::new(&pid_file).exists());
}

#[test]
fn logs_have_the_form_that_was_asked_for() {
    let scratch = Scratch::new("log");
    let (root, log) = (scratch.path("root"), scratch.path("log"));
    refused(&["--root", &root, "--log", &log, "state", "x"], 1);
    let text = fs::read_to_string(&log).unwrap();
    assert!(
        text.starts_with("time=\"20") && text.ends_with("level=error msg=\"container x does not exist\"\n"),
        "{text}"
    );

    let output = locule(&["--root", &root, "--log-format", "json", "state", "x"]);
    let record: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (record["level"].as_str(), record["msg"].as_str()),
        (Some("error"), Some("container x does not exist"))
    );

    let json = scratch.path("json");
    refused(&["--root", &root, "--log", &json, "--log-format=json", "--criu", "/criu", "state", "x"], 1);
    assert_eq!(fs::read_to_string(&json).unwrap().lines().count(), 1, "no warning beside the error");
    locule(&[
        "--root",
        &root,
        "--log",
        &json,
        "--log-format=json",
        "--debug",
        "--criu",
        "/criu",
        "state",
        "x",
    ]);
    assert!(fs::read_to_string(&json).unwrap().contains("\"level\":\"warning\""), "--debug shows it");
}

#[test]
fn wrong_words_are_refused_in_one_line() {
    for (words, told) in [
        (&["bogus"][..], "no command \"bogus\""),
        (&["--bogus"], "flag provided but not defined: -bogus"),
        (&["--root"], "flag needs an argument: -root"),
        (&["--root=", "list"], "an empty path was given"),
        (&["--log-format", "xml", "list"], "unknown value \"xml\" for -log-format: one of text, json"),
        (&["state"], "<container-id> is missing: usage: locule state <container-id>"),
        (&["state", "a", "b"], "one word too many: b"),
        (&["state", "--all", "a"], "flag provided but not defined: -all"),
        (&["kill", "a", "NOSIG"], "unknown signal \"NOSIG\""),
        (&["create", "--preserve-fds", "-1", "a"], "invalid value '-1'"),
        (&["update", "--memory", "1x", "a"], "\"1x\" is no size"),
        (&["update", "-r", "-", "--memory", "1", "a"], "cannot be used together with --"),
        (&["events", "--interval", "5", "a"], "\"5\" is no duration"),
        (&["ps", "--format", "xml", "a"], "invalid value 'xml'"),
    ] {
        let line = refused(words, 1);
        assert!(line.contains(told), "{words:?}: {line}");
    }
    assert!(refused(&["exec", "a"], 255).contains("the command is missing"));
}

#[test]
fn spec_writes_once() {
    let scratch = Scratch::new("spec");
    let bundle = scratch.path("b");
    assert!(refused(&["spec", "--bundle", &bundle], 1).contains("ENOENT"));
    fs::create_dir(&bundle).unwrap();
    for words in [&["spec", "--bundle", &bundle][..], &["spec", "--rootless", "-b", &bundle]] {
        let output = locule(words);
        assert!(output.status.success(), "{}", stderr(&output));
        let path = Path::new(&bundle).join("config.json");
        let text = fs::read(&path).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(document["ociVersion"], "1.3.0");
        assert_eq!(document["linux"].get("uidMappings").is_some(), words.contains(&"--rootless"));
        assert!(refused(words, 1).contains("remove it first"));
        assert_eq!(fs::read(&path).unwrap(), text, "the file is not touched");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn features_is_one_document_and_silent() {
    let output = command(&["features"]).env_clear().output().unwrap();
    assert!(output.status.success());
    assert_eq!(stderr(&output), "");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["linux"].is_object());
}

#[test]
fn completions_are_those_of_the_tree() {
    for (shell, file) in [("bash", "locule.bash"), ("zsh", "_locule"), ("fish", "locule.fish")] {
        let output = locule(&["completion", shell]);
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions").join(file);
        assert_eq!(output.stdout, fs::read(committed).unwrap(), "{shell}");
        assert!(
            VERBS.iter().flat_map(|verb| verb.split(' ')).all(|word| stdout(&output).contains(word)),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["features"]).stdout(writer).output().unwrap();
    assert_eq!(stderr(&output), "");
    assert!(!output.status.success());
}

#[test]
fn closed_standard_descriptors_are_not_taken_by_files() {
    let scratch = Scratch::new("closed");
    let log = scratch.path("log");
    // The log is opened while 2 is closed; what goes to standard error must not end up in it.
    let status = Command::new("sh")
        .args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-", env!("CARGO_BIN_EXE_locule")])
        .args(["--root", &scratch.path("root"), "--log", &log, "state", "x"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with("time=") && text.lines().count() == 1, "{text}");
}

#[test]
fn list_of_nothing() {
    let scratch = Scratch::new("list");
    let empty = scratch.0.to_str().unwrap();
    assert_eq!(stdout(&locule(&["--root", empty, "list", "-f", "json"])), "[]\n");
    assert_eq!(stdout(&locule(&["--root", empty, "list", "--quiet"])), "");
    assert!(stdout(&locule(&["--root", empty, "list"])).starts_with("ID          PID         STATUS"));
    assert!(
        refused(&["--root", &scratch.path("absent"), "list"], 1).contains("ENOENT"),
        "a given root must be there"
    );
    // Without --root, a host on which nothing ever ran has an empty list.
    let output = command(&["list", "-q"]).env("XDG_RUNTIME_DIR", &scratch.0).output().unwrap();
    assert!(output.status.success());
}

#[test]
fn resources_come_from_standard_input() {
    let scratch = Scratch::new("stdin");
    let mut child = command(&["--root", &scratch.path("root"), "update", "-r", "-", "x"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"memory\": {\"limit\": \"much\"}}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(stderr(&output).contains("reading resources from standard input"), "{}", stderr(&output));
}
