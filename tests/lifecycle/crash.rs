//! kill -9 of locule between any two of its system calls: what `delete --force` then makes of it.
//!
//! Owns the tracer. `strace` counts the calls of one run and kills the next run at one of them, the
//! caller or, with `-f`, a process that it made. A sample of the moments is tried, and all of them
//! with `LOCULE_MOMENTS=all` in the environment (`make faults`).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::lane::{Bundle, LOCULE, complete, until};
use crate::leaks::Leaks;

/// How many moments of a call are tried, spread evenly over it.
const SAMPLE: usize = 48;

/// A call that takes longer hangs; it is no measure of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The nth system call of a name.
pub type Moment = (String, usize);

/// The call under a tracer that does what `options` say.
pub fn traced(bundle: &Bundle, options: &[&str], words: &[&str]) -> Command {
    // Writes the document.
    let _ = bundle.command(&[]);
    let mut command = Command::new("strace");
    command.args(["-qq", "-e", "signal=none"]).args(options).arg(LOCULE);
    command.arg("--root").arg(bundle.root()).args(words).current_dir(bundle.path("")).stdin(Stdio::null());
    command
}

/// Runs a traced call to its end; one that hangs is killed and fails the test.
#[track_caller]
pub fn ended(mut command: Command, when: &str) -> ExitStatus {
    let mut child = command.spawn().expect("Debian's package strace is needed");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("it hangs {when}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The moments of a call that succeeds; with `-f` in `options` those of the processes that it makes
/// too, up to where they execute the workload.
pub fn moments(bundle: &Bundle, options: &[&str], words: &[&str]) -> Vec<Moment> {
    let trace = bundle.path("trace");
    let options = [options, &["-o", trace.to_str().unwrap()]].concat();
    let mut command = traced(bundle, &options, words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = ended(command, "with nothing done to it");
    assert!(status.success(), "{words:?}: {status}");
    let mut all = counted(&fs::read_to_string(&trace).unwrap());
    assert!(all.len() > SAMPLE / 2, "{words:?} made {} calls", all.len());
    if all_moments() {
        return all;
    }
    let step = all.len().div_ceil(SAMPLE);
    let last = all.pop();
    all.into_iter().step_by(step).chain(last).collect()
}

/// Whether every moment is tried.
pub fn all_moments() -> bool {
    std::env::var("LOCULE_MOMENTS").is_ok_and(|which| which == "all")
}

/// The calls of a trace, counted by name and process as strace does for `when=`.
fn counted(text: &str) -> Vec<Moment> {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut workloads: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    let mut first = None;
    let mut all = Vec::new();
    for line in text.lines() {
        // With -f a line begins with its process.
        let (process, line) = match line.split_once(' ') {
            Some((pid, rest)) if pid.bytes().all(|b| b.is_ascii_digit()) => (pid, rest.trim_start()),
            _ => ("", line),
        };
        let Some((name, _)) = line.split_once('(') else { continue };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        if workloads.contains(&process) {
            continue;
        }
        let count = counts.entry((process, name)).or_default();
        *count += 1;
        // The first one executes the binary, a later one of another process the workload.
        if *first.get_or_insert(process) == process {
            if all.is_empty() && name == "execve" && *count == 1 {
                continue;
            }
        } else if name == "execve" {
            workloads.push(process);
        }
        if seen.insert((name, *count)) {
            all.push((name.to_owned(), *count));
        }
    }
    all
}

/// Runs the call and kills it when it is about to make that system call; whether it came to that.
///
/// How often a call looks for something that it waits for is not the same each time.
fn killed_at(bundle: &Bundle, options: &[&str], words: &[&str], (name, nth): &Moment) -> bool {
    let (only, inject) = (format!("trace={name}"), format!("inject={name}:signal=KILL:when={nth}"));
    let options = [options, &["-o", "/dev/null", "-e", &only, "-e", &inject]].concat();
    let mut command = traced(bundle, &options, words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    !ended(command, &format!("killed at {name} {nth}")).success()
}

/// `delete --force` succeeds, leaves nothing, and the name is free again.
#[track_caller]
fn cleaned(bundle: &Bundle, leaks: &Leaks, when: &str) {
    let listed = bundle.locule(&["list"]);
    assert_eq!(listed.status, 0, "{when}: {listed:?}");
    let deleted = bundle.locule(&["delete", "--force", bundle.id()]);
    assert_eq!((deleted.status, deleted.stderr.as_str()), (0, ""), "{when}");
    leaks.none(when);
}

/// A bundle whose container lasts.
pub fn sleeper() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]);
    fs::create_dir(bundle.root()).unwrap();
    bundle
}

/// Kills `words` at each moment, with `before` to get to where it starts from; with `-f` in `options`
/// also the processes that it makes.
fn sweep(bundle: &Bundle, options: &[&str], words: &[&str], before: impl Fn()) {
    let leaks = Leaks::of(bundle);
    before();
    let moments = moments(bundle, options, words);
    cleaned(bundle, &leaks, "by the call that was counted");
    let mut killed = 0;
    for moment in &moments {
        before();
        killed += usize::from(killed_at(bundle, options, words, moment));
        cleaned(bundle, &leaks, &format!("by {} killed at {moment:?}", words[0]));
    }
    assert!(killed > moments.len() / 2, "{killed} of {} were killed", moments.len());
    bundle.create();
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    leaks.none("by a container of the same name at the end");
}

#[test]
fn create() {
    let bundle = sleeper();
    sweep(&bundle, &[], &["create", "--pid-file", "pid", bundle.id()], || {});
}

#[test]
fn create_with_a_user_namespace_and_hooks() {
    let mut bundle = sleeper();
    bundle.namespace(serde_json::json!({"type": "user"}));
    let map = serde_json::json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    bundle.set("linux.uidMappings", map.clone()).set("linux.gidMappings", map);
    bundle.set("hooks.createRuntime", serde_json::json!([{"path": "/bin/true"}]));
    bundle.set("hooks.createContainer", serde_json::json!([{"path": "/bin/true"}]));
    sweep(&bundle, &[], &["create", bundle.id()], || {});
}

#[test]
fn run_detached() {
    let bundle = sleeper();
    sweep(&bundle, &[], &["run", "--detach", bundle.id()], || {});
}

/// The creator, and init at every step of its own; the other one must then cope or die as well.
#[test]
fn run_and_its_init() {
    let mut bundle = sleeper();
    bundle.args(&["true"]);
    bundle.set("hooks.createContainer", serde_json::json!([{"path": "/bin/true"}]));
    sweep(&bundle, &["-f"], &["run", bundle.id()], || {});
}

/// With a step between creator and init, as there are clock offsets.
#[test]
fn run_and_the_step_between() {
    let mut bundle = sleeper();
    bundle.args(&["true"]).namespace(serde_json::json!({"type": "time"}));
    bundle.set("linux.timeOffsets", serde_json::json!({"boottime": {"secs": 5, "nanosecs": 0}}));
    sweep(&bundle, &["-f"], &["run", "--keep", bundle.id()], || {});
}

#[test]
fn start() {
    let bundle = sleeper();
    sweep(&bundle, &[], &["start", bundle.id()], || {
        bundle.create();
    });
}

#[test]
fn delete() {
    let bundle = sleeper();
    sweep(&bundle, &[], &["delete", "--force", bundle.id()], || {
        bundle.create().start();
    });
}

#[test]
fn delete_of_what_has_stopped() {
    let bundle = sleeper();
    sweep(&bundle, &[], &["delete", bundle.id()], || {
        bundle.create().start().kill("KILL").wait_for("stopped");
    });
}

#[test]
fn a_killed_start_leaves_a_plain_state() {
    let bundle = sleeper();
    bundle.create();
    let moments = moments(&bundle, &[], &["start", bundle.id()]);
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    for moment in &moments {
        bundle.create();
        let _ = killed_at(&bundle, &[], &["start", bundle.id()], moment);
        // Init may still be on its way out.
        until("a status that lasts", || {
            bundle.state()["status"] != "created" || {
                let again = bundle.locule(&["start", bundle.id()]);
                again.status == 0 || again.stderr.contains("stopped") || again.stderr.contains("not running")
            }
        });
        bundle.locule(&["delete", "--force", bundle.id()]).ok();
    }
}

#[test]
fn exec() {
    let bundle = sleeper();
    bundle.create().start();
    let processes = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap().lines().count();
    for words in
        [&["exec", bundle.id(), "true"][..], &["exec", "--detach", "--pid-file", "p", bundle.id(), "true"]]
    {
        for moment in moments(&bundle, &["-f"], words) {
            let _ = killed_at(&bundle, &["-f"], words, &moment);
            until(&format!("exec killed at {moment:?} leaves init alone"), || processes() == 1);
            assert_eq!(bundle.state()["status"], "running", "{moment:?}");
        }
    }
    bundle.exec("true").ok();
}

/// A creation that asks for another's cgroup, killed anywhere, is deleted without harm to the other.
#[test]
fn a_killed_creation_costs_no_neighbour() {
    let mut neighbour = sleeper();
    let path = format!("/{}", neighbour.id());
    neighbour.set("linux.cgroupsPath", serde_json::json!(path)).create().start();
    let mut bundle = sleeper();
    let own = format!("/{}", bundle.id());
    let words = ["create", &own[1..]];
    bundle.set("linux.cgroupsPath", serde_json::json!(own));
    let moments = moments(&bundle, &[], &words);
    bundle.locule(&["delete", "--force", bundle.id()]).ok();
    bundle.set("linux.cgroupsPath", serde_json::json!(path));
    for (name, nth) in &moments {
        let (only, inject) = (format!("trace={name}"), format!("inject={name}:signal=KILL:when={nth}"));
        let options = ["-o", "/dev/null", "-e", &only, "-e", &inject];
        // Past the refusal there is nothing left to be killed at.
        let ended = complete(&mut traced(&bundle, &options, &words));
        assert_ne!(ended.status, 0);
        bundle.locule(&["delete", "--force", bundle.id()]).ok();
        assert_eq!(neighbour.state()["status"], "running", "after a creation killed at {name} {nth}");
    }
}
