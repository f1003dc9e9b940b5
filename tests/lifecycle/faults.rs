//! System calls that fail: one after the other in the calls that make a container.
//!
//! Owns the choice of failures. Shares the tracer of `crash`, and its sample of moments.

use std::fs;
use std::process::Stdio;

use crate::crash::{Moment, moments, sleeper, traced};
use crate::lane::{Bundle, complete, until};
use crate::leaks::Leaks;

/// Without these no process gets anywhere, and no program checks for their failure.
const VITAL: [&str; 14] = [
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "brk",
    "getrandom",
    "close",
    "exit_group",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "arch_prctl",
    "execve",
];

/// Calls of the clean-up itself: what these leave is for `delete --force`.
const CLEANING: [&str; 6] = ["unlinkat", "getdents64", "pidfd_send_signal", "wait4", "rmdir", "poll"];

#[track_caller]
fn fails_or_not(bundle: &Bundle, leaks: &Leaks, words: &[&str], (name, nth): &Moment) {
    let error = if name.starts_with("open") { "EMFILE" } else { "ENOSPC" };
    let inject = format!("inject={name}:error={error}:when={nth}");
    let options = ["-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject];
    let said = bundle.path("said");
    let mut command = traced(bundle, &options, words);
    let status = command.stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap()).status().unwrap();
    let told = fs::read_to_string(&said).unwrap();
    let when = format!("by {} with {name} {nth} failing ({status}: {told})", words[0]);
    if !status.success() {
        assert!(status.code().is_some(), "died {when}");
        // What cannot be written cannot be told.
        assert!(told.lines().count() == 1 && told.starts_with("locule: ") || name == "write", "{when}");
        // `run` at its end cleans up as `delete` does, and may fail as that may.
        let over = words[0] == "run" && bundle.locule(&["state", bundle.id()]).stdout.contains("\"stopped\"");
        if !over && !CLEANING.contains(&name.as_str()) {
            leaks.none(&when);
        }
    }
    let deleted = bundle.locule(&["delete", "--force", bundle.id()]);
    assert_eq!((deleted.status, deleted.stderr.as_str()), (0, ""), "{when}");
    leaks.none(&format!("after a forced deletion, {when}"));
}

fn sweep(bundle: &Bundle, words: &[&str]) {
    let leaks = Leaks::of(bundle);
    let moments = moments(bundle, words);
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    for moment in moments.iter().filter(|(name, _)| !VITAL.contains(&name.as_str())) {
        fails_or_not(bundle, &leaks, words, moment);
    }
}

#[test]
fn create() {
    let bundle = sleeper();
    sweep(&bundle, &["create", bundle.id()]);
}

#[test]
fn run_detached() {
    let bundle = sleeper();
    sweep(&bundle, &["run", "--detach", "--pid-file", "pid", bundle.id()]);
}

#[test]
fn run() {
    let mut bundle = sleeper();
    bundle.args(&["true"]);
    sweep(&bundle, &["run", bundle.id()]);
}

#[test]
fn exec() {
    let bundle = sleeper();
    bundle.create().start();
    let words = ["exec", bundle.id(), "true"];
    let processes = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap().lines().count();
    for moment in moments(&bundle, &words) {
        let (name, nth) = &moment;
        if VITAL.contains(&name.as_str()) {
            continue;
        }
        let inject = format!("inject={name}:error=ENOSPC:when={nth}");
        let options = ["-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject];
        let out = complete(&mut traced(&bundle, &options, &words));
        assert!(out.status == 0 || out.stderr.lines().count() == 1 || name == "write", "{moment:?}: {out:?}");
        assert!([0, 255].contains(&out.status), "{moment:?}: {out:?}");
        until(&format!("{moment:?} leaves init alone"), || processes() == 1);
        assert_eq!(bundle.state()["status"], "running", "{moment:?}");
    }
}
