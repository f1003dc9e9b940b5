//! System calls that fail: one after the other in the calls that make, start and delete a container.
//!
//! Owns the choice of failures. Shares the tracer of `crash`, and its sample of moments; each moment
//! fails in one of four ways, and in all of them with `LOCULE_MOMENTS=all` (`make faults`).

use std::fs;
use std::process::Stdio;

use crate::crash::{Moment, all_moments, ended, moments, sleeper, traced};
use crate::lane::{Bundle, complete, until};
use crate::leaks::Leaks;

/// What a full disk, a full table of files, a full memory and a broken disk say.
const ERRORS: [&str; 4] = ["ENOSPC", "EMFILE", "ENOMEM", "EIO"];

/// Without these no process gets anywhere, and no program checks for their failure; umask(2) has none.
const VITAL: [&str; 15] = [
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
    "umask",
];

/// Calls of the clean-up itself: what these leave is for `delete --force`.
const CLEANING: [&str; 6] = ["unlinkat", "getdents64", "pidfd_send_signal", "wait4", "rmdir", "poll"];

/// The ways in which the moment numbered `at` fails.
fn errors(at: usize) -> impl Iterator<Item = &'static str> {
    let all = all_moments();
    ERRORS
        .into_iter()
        .enumerate()
        .filter(move |(way, _)| all || *way == at % ERRORS.len())
        .map(|(_, error)| error)
}

/// Lets one system call of `words` fail. With `undoes` a call that fails leaves nothing.
#[track_caller]
fn fails_or_not(
    bundle: &Bundle,
    leaks: &Leaks,
    (options, words): (&[&str], &[&str]),
    (name, nth): &Moment,
    error: &str,
    undoes: bool,
) {
    let (only, inject) = (format!("trace={name}"), format!("inject={name}:error={error}:when={nth}"));
    let options = [options, &["-o", "/dev/null", "-e", &only, "-e", &inject]].concat();
    let said = bundle.path("said");
    let mut command = traced(bundle, &options, words);
    command.stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap());
    let status = ended(command, &format!("with {name} {nth} failing by {error}"));
    let told = fs::read_to_string(&said).unwrap();
    let when = format!("by {} with {name} {nth} failing by {error} ({status}: {told})", words[0]);
    if !status.success() {
        assert!(status.code().is_some(), "died {when}");
        // What cannot be written cannot be told.
        assert!(told.lines().count() == 1 && told.starts_with("locule: ") || name == "write", "{when}");
        // `run` at its end cleans up as `delete` does, and may fail as that may.
        let over = words[0] == "run" && bundle.locule(&["state", bundle.id()]).stdout.contains("\"stopped\"");
        if undoes && !over && !CLEANING.contains(&name.as_str()) {
            leaks.none(&when);
        }
    }
    let deleted = bundle.locule(&["delete", "--force", bundle.id()]);
    assert_eq!((deleted.status, deleted.stderr.as_str()), (0, ""), "{when}");
    leaks.none(&format!("after a forced deletion, {when}"));
}

/// Lets `words` fail at each moment, with `before` to get to where it starts from.
fn sweep(bundle: &Bundle, options: &[&str], words: &[&str], before: Option<&dyn Fn()>) {
    let leaks = Leaks::of(bundle);
    let ready = || before.iter().for_each(|before| before());
    ready();
    let moments = moments(bundle, options, words);
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    for (at, moment) in moments.iter().enumerate().filter(|(_, (name, _))| !VITAL.contains(&name.as_str())) {
        for error in errors(at) {
            ready();
            fails_or_not(bundle, &leaks, (options, words), moment, error, before.is_none());
        }
    }
}

#[test]
fn create() {
    let bundle = sleeper();
    sweep(&bundle, &[], &["create", bundle.id()], None);
}

#[test]
fn run_detached() {
    let bundle = sleeper();
    sweep(&bundle, &[], &["run", "--detach", "--pid-file", "pid", bundle.id()], None);
}

/// The creator and init.
#[test]
fn run() {
    let mut bundle = sleeper();
    bundle.args(&["true"]);
    sweep(&bundle, &["-f"], &["run", bundle.id()], None);
}

#[test]
fn start() {
    let bundle = sleeper();
    let words = ["start", bundle.id()];
    sweep(
        &bundle,
        &[],
        &words,
        Some(&|| {
            bundle.create();
        }),
    );
}

#[test]
fn delete() {
    let bundle = sleeper();
    let words = ["delete", "--force", bundle.id()];
    sweep(
        &bundle,
        &[],
        &words,
        Some(&|| {
            bundle.create().start();
        }),
    );
}

#[test]
fn exec() {
    let bundle = sleeper();
    bundle.create().start();
    let words = ["exec", bundle.id(), "true"];
    let processes = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap().lines().count();
    for (at, moment) in moments(&bundle, &["-f"], &words).iter().enumerate() {
        let (name, nth) = moment;
        if VITAL.contains(&name.as_str()) {
            continue;
        }
        for error in errors(at) {
            let (only, inject) = (format!("trace={name}"), format!("inject={name}:error={error}:when={nth}"));
            let options = ["-f", "-o", "/dev/null", "-e", &only, "-e", &inject];
            let out = complete(&mut traced(&bundle, &options, &words));
            assert!(
                out.status == 0 || out.stderr.lines().count() == 1 || name == "write",
                "{moment:?} {error}: {out:?}"
            );
            assert!([0, 255].contains(&out.status), "{moment:?} {error}: {out:?}");
            until(&format!("{moment:?} leaves init alone"), || processes() == 1);
            assert_eq!(bundle.state()["status"], "running", "{moment:?}");
        }
    }
}
