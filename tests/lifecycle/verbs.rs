//! The state machine: what each verb does in each state, the words of refusals, exit codes.
//!
//! Owns create, start, state, kill, delete, run, pause and resume; `exec` has a module of its own.

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::lane::{Bundle, complete, field, until};
use crate::leaks::Leaks;

#[test]
fn the_whole_life() {
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    fs::create_dir(bundle.root()).unwrap();
    bundle.script("trap 'exit 3' TERM; echo begun; while :; do sleep 1 & wait; done").create();
    let created = bundle.state();
    assert_eq!(
        (created["status"].as_str(), created["id"].as_str(), created["bundle"].as_str()),
        (Some("created"), Some(bundle.id()), bundle.path("").to_str().map(|path| path.trim_end_matches('/')))
    );
    assert_eq!(bundle.stdout(), "", "nothing of the workload runs before start");
    bundle.start();
    until("the workload has begun", || bundle.stdout() == "begun\n");
    let running = bundle.state();
    assert_eq!((&running["status"], &running["pid"]), (&json!("running"), &created["pid"]));
    bundle.kill("TERM").wait_for("stopped");
    assert_eq!(bundle.state()["pid"], 0);
    bundle.delete().assert_gone();
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by a whole life");
}

#[test]
fn every_verb_in_every_state() {
    let mut bundle = Bundle::new();
    let id = bundle.id().to_owned();
    let refused = |bundle: &Bundle, words: &[&str], told: &str| bundle.locule(words).refused_with(&[told]);
    let known = ["state", "start", "kill", "delete", "ps", "pause", "resume", "events", "update"];
    fs::create_dir(bundle.root()).unwrap();
    for verb in known {
        let words = if verb == "update" { vec![verb, "--pids-limit=9", &id] } else { vec![verb, &id] };
        refused(&bundle, &words, "does not exist");
    }
    refused(&bundle, &["exec", &id, "true"], "does not exist");

    bundle.script("trap 'exit 0' TERM; echo begun; while :; do sleep 1 & wait; done").create();
    refused(&bundle, &["create", &id], "already exists");
    refused(&bundle, &["run", &id], "already exists");
    refused(&bundle, &["resume", &id], "container not paused");

    bundle.start();
    refused(&bundle, &["start", &id], "running already");
    until("the trap is set", || bundle.stdout() == "begun\n");
    refused(&bundle, &["create", &id], "already exists");
    refused(&bundle, &["delete", &id], "not stopped");
    refused(&bundle, &["resume", &id], "container not paused");

    bundle.locule(&["pause", &id]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    refused(&bundle, &["pause", &id], "paused");
    refused(&bundle, &["start", &id], "paused already");
    refused(&bundle, &["delete", &id], "not stopped");
    refused(&bundle, &["exec", &id, "true"], "paused");
    bundle.locule(&["resume", &id]).ok();
    assert_eq!(bundle.state()["status"], "running");

    bundle.kill("TERM").wait_for("stopped");
    for (words, told) in [
        (&["start", &id][..], "it has stopped"),
        (&["kill", &id, "TERM"], "container not running"),
        (&["kill", &id, "KILL"], "container not running"),
        (&["pause", &id], "container not running"),
        (&["resume", &id], "container not paused"),
        (&["exec", &id, "true"], "stopped container"),
        (&["events", "--stats", &id], "container not running"),
        (&["update", "--pids-limit=9", &id], "container not running"),
        (&["create", &id], "already exists"),
    ] {
        refused(&bundle, words, told);
    }
    bundle.locule(&["kill", "--all", &id, "9"]).ok();
    assert_eq!(bundle.locule(&["ps", "--format", "json", &id]).ok(), "[]");
    bundle.delete().assert_gone();
}

#[test]
fn a_created_container_ends_by_a_signal() {
    let bundle = Bundle::new();
    bundle.create().kill("TERM").wait_for("stopped").delete();
}

#[test]
fn a_created_container_can_be_deleted() {
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    fs::create_dir(bundle.root()).unwrap();
    let pid = bundle.args(&["sleep", "1000"]).create().pid();
    bundle.delete().assert_gone();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "init lives on: {stat}");
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by the deletion of a created container");
}

#[test]
fn delete_force_takes_any_state() {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]);
    let id = bundle.id().to_owned();
    let force = |bundle: &Bundle| {
        let out = bundle.locule(&["delete", "--force", &id]);
        assert_eq!((out.status, out.stdout.as_str(), out.stderr.as_str()), (0, "", ""));
    };
    force(&bundle);
    bundle.create();
    force(&bundle);
    bundle.create().start();
    force(&bundle);
    bundle.create().start();
    bundle.locule(&["pause", &id]).ok();
    force(&bundle);
    bundle.create().start().kill("KILL").wait_for("stopped");
    force(&bundle);
    bundle.assert_gone();

    // What a crash, or somebody else, made of the state.
    let state = bundle.root().join(&id);
    for content in [None, Some(""), Some("{"), Some("{}"), Some("{\"version\":99}"), Some("[1]")] {
        fs::create_dir(&state).unwrap();
        if let Some(content) = content {
            fs::write(state.join("state.json"), content).unwrap();
        }
        bundle.locule(&["state", &id]).refused_with(&[&id]);
        bundle.locule(&["list"]).ok();
        bundle.locule(&["delete", &id]).refused();
        force(&bundle);
        assert!(!state.exists(), "{content:?}");
    }
}

#[test]
fn signals_by_number_and_name() {
    let mut bundle = Bundle::new();
    bundle.script(
        "for s in HUP INT QUIT USR1 USR2 TERM WINCH; do trap \"echo $s\" $s; done; trap 'echo RT; exit 9' 36
         echo ready; while :; do sleep 1000 & wait; done",
    );
    bundle.create().start();
    let mut expected = "ready\n".to_owned();
    until("ready", || bundle.stdout() == expected);
    for (word, signal) in [
        ("1", "HUP"),
        ("HUP", "HUP"),
        ("SIGHUP", "HUP"),
        ("sigusr1", "USR1"),
        ("usr2", "USR2"),
        ("12", "USR2"),
        ("SIGWINCH", "WINCH"),
        ("15", "TERM"),
        ("", "TERM"),
        ("SIGRTMIN+2", "RT"),
    ] {
        let words = ["kill", bundle.id(), word];
        bundle.locule(if word.is_empty() { &words[..2] } else { &words }).ok();
        expected = format!("{expected}{signal}\n");
        until(word, || bundle.stdout() == expected);
    }
    bundle.wait_for("stopped");
}

#[test]
fn kill_all_reaches_every_process() {
    let mut bundle = Bundle::new();
    bundle.script(
        "trap 'echo first' USR1
         sh -c 'trap \"echo second\" USR1; echo up; while :; do sleep 1000 & wait; done' &
         while :; do wait; done",
    );
    bundle.create().start();
    until("up", || bundle.stdout() == "up\n");
    bundle.kill("USR1");
    until("init alone", || bundle.stdout() == "up\nfirst\n");
    bundle.locule(&["kill", "--all", bundle.id(), "USR1"]).ok();
    until("both", || {
        let said = bundle.stdout();
        said.matches("first").count() == 2 && said.matches("second").count() == 1
    });
    bundle.locule(&["kill", "-a", bundle.id(), "KILL"]).ok();
    bundle.wait_for("stopped");
    assert_eq!(fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap(), "");
}

#[test]
fn without_a_pid_namespace_the_end_is_for_all() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("pid").script("sleep 1000 & sleep 1000 & exec sleep 1000").create().start();
    let procs = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap();
    until("three processes", || procs().lines().count() == 3);
    bundle.kill("TERM").wait_for("stopped");
    assert_eq!(procs().lines().count(), 2, "a signal is init's alone");
    bundle.locule(&["kill", "--all", bundle.id(), "9"]).ok();
    until("nobody", || procs().is_empty());
    bundle.delete().assert_gone();

    bundle.create().start();
    until("three processes", || procs().lines().count() == 3);
    bundle.kill("KILL");
    until("nobody", || procs().is_empty());
    bundle.wait_for("stopped").delete().assert_gone();

    bundle.create().start();
    until("three processes", || procs().lines().count() == 3);
    bundle.kill("TERM").wait_for("stopped").delete().assert_gone();
}

#[test]
fn paused_processes_stand_still_and_can_be_killed() {
    let mut bundle = Bundle::new();
    bundle.set("root.readonly", json!(false));
    bundle.script("n=0; while :; do n=$((n+1)); echo $n > /tmp/n; done").create().start();
    until("it counts", || bundle.rootfs("tmp/n").exists());
    bundle.locule(&["pause", bundle.id()]).ok();
    assert!(fs::read_to_string(bundle.cgroup().join("cgroup.events")).unwrap().contains("frozen 1"));
    bundle.locule(&["resume", bundle.id()]).ok();
    assert!(fs::read_to_string(bundle.cgroup().join("cgroup.events")).unwrap().contains("frozen 0"));
    bundle.locule(&["pause", bundle.id()]).ok();
    bundle.kill("KILL").wait_for("stopped").delete().assert_gone();
}

#[test]
fn run_exits_as_the_workload_does() {
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    fs::create_dir(bundle.root()).unwrap();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 0), ("exit 255", 255)] {
        let out = bundle.script(script).run();
        // PID 1 is immune to its own signals.
        assert_eq!((out.status, out.stderr.as_str()), (code, ""), "{script}");
        bundle.assert_gone();
    }
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by run");
    bundle.without_namespace("pid");
    for (script, code) in [("kill -9 $$", 137), ("kill -TERM $$", 143), ("kill -SEGV $$", 139)] {
        assert_eq!(bundle.script(script).run().status, code, "{script}");
        bundle.assert_gone();
    }
}

#[test]
fn run_passes_signals_on() {
    let mut bundle = Bundle::new();
    bundle.script("trap 'exit 7' USR1; trap 'exit 8' TERM; echo up; while :; do sleep 1000 & wait; done");
    for (signal, code) in [(Signal::SIGUSR1, 7), (Signal::SIGTERM, 8)] {
        let mut command = bundle.command(&["run", bundle.id()]);
        let mut child = command.stdout(File::create(bundle.path("stdout")).unwrap()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        until("up", || bundle.stdout() == "up\n");
        kill(pid, signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{signal}");
        bundle.assert_gone();
    }
}

#[test]
fn run_keep_and_detach() {
    let mut bundle = Bundle::new();
    assert_eq!(bundle.script("exit 5").run_with(&["--keep"]).status, 5);
    assert_eq!(bundle.state()["status"], "stopped");
    bundle.delete().assert_gone();

    bundle.args(&["sleep", "1000"]);
    let mut command = bundle.command(&["run", "--detach", "--pid-file", "pid", bundle.id()]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    assert_eq!(bundle.state()["status"], "running");
    assert_eq!(fs::read_to_string(bundle.path("pid")).unwrap(), bundle.pid().to_string(), "digits alone");
    assert!(!bundle.path(".pid").exists());
    bundle.kill("KILL").wait_for("stopped").delete().assert_gone();
}

#[test]
fn a_program_that_cannot_be_executed() {
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    fs::create_dir(bundle.root()).unwrap();
    bundle.file("rootfs/bin/plain", "no program");
    bundle.program("rootfs/bin/garbage", "\x01\x02\x03\x04");
    bundle.program("rootfs/bin/orphan", "#!/no/such/interpreter\n");
    for (program, code, told) in [
        ("nosuch", 127, "executable file not found in $PATH"),
        ("", 127, "executable file not found in $PATH"),
        ("/nosuch", 127, "no such file or directory"),
        ("/bin/sh/x", 127, "not a directory"),
        ("/bin/orphan", 127, "no such file or directory"),
        ("/bin/plain", 126, "permission denied"),
        ("plain", 126, "permission denied"),
        ("/bin", 126, "permission denied"),
        ("/bin/garbage", 126, "exec format error"),
    ] {
        let out = bundle.args(&[program]).run();
        assert_eq!(out.status, code, "{program}: {out:?}");
        out.refused_with(&[told]);
        let _ = fs::remove_file(bundle.path("pid"));
        let made = bundle.try_create(&["--pid-file", "pid"]);
        match program {
            // Only execve(2) itself can tell.
            "/bin/orphan" | "/bin/garbage" => {
                assert_eq!(made.status, 0, "{made:?}");
                let pid = bundle.pid();
                assert_ne!(pid, 0);
                bundle.locule(&["start", bundle.id()]).refused_with(&[told]);
                bundle.wait_for("stopped").delete();
            }
            _ => {
                assert_eq!(made.status, 1, "{program}: {made:?}");
                made.refused_with(&[told]);
                assert!(!bundle.path("pid").exists(), "{program}");
            }
        }
        bundle.assert_gone();
    }
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by programs that cannot be executed");
}

#[test]
fn init_is_the_callers_to_reap() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut bundle = Bundle::new();
    let pid = Pid::from_raw(bundle.script("exit 42").create().pid());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert_eq!(field(&status, "PPid"), std::process::id().to_string(), "no process of locule in between");
    bundle.start();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 42));
    bundle.wait_for("stopped").delete();

    // The same through a step between, which namespaces to join and a user namespace need.
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    bundle.namespace(json!({"type": "user"}));
    bundle.set("linux.uidMappings", map.clone()).set("linux.gidMappings", map);
    let pid = Pid::from_raw(bundle.create().pid());
    bundle.start();
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 42));

    // A process of a detached exec as well.
    let mut bundle = Bundle::new();
    bundle.up();
    let words = ["exec", "--detach", "--pid-file", "pid", bundle.id(), "sh", "-c", "exit 43"];
    let status = bundle.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success());
    let pid = Pid::from_raw(fs::read_to_string(bundle.path("pid")).unwrap().parse().unwrap());
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 43));
}

#[test]
fn descriptors_pass_only_when_handed_over() {
    let mut bundle = Bundle::new();
    bundle.script("ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> \\(.*\\)/\\1 \\2/p'");
    // As containerd's shim leaks its socket: descriptors 3 and 4 without close-on-exec.
    let leaky = |bundle: &Bundle, options: &str| {
        let line = format!("exec 3<{0}/given 4<{0}/more; exec \"$@\"", bundle.path("").display());
        let inner = bundle.command(&["run"]);
        let mut words: Vec<String> = inner.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
        words.extend(options.split_whitespace().map(str::to_owned));
        words.push(bundle.id().to_owned());
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line, "sh", crate::lane::LOCULE]).args(words).current_dir(bundle.path(""));
        command.stdin(Stdio::null());
        complete(&mut command)
    };
    bundle.file("given", "given");
    bundle.file("more", "more");
    // ls itself has one open for the directory.
    let out = leaky(&bundle, "");
    let beyond =
        |text: &str| text.lines().filter(|line| line.contains("given") || line.contains("more")).count();
    assert_eq!((out.status, beyond(&out.stdout)), (0, 0), "{out:?}");
    assert_eq!(out.stdout.lines().filter(|line| !line.contains("/proc/")).count(), 3, "{out:?}");
    let out = leaky(&bundle, "--preserve-fds 1");
    assert_eq!((out.status, beyond(&out.stdout)), (0, 1), "{out:?}");
    assert!(out.stdout.contains("\n3 ") && out.stdout.contains("given"), "{out:?}");
    let out = leaky(&bundle, "--preserve-fds 2");
    assert_eq!((out.status, beyond(&out.stdout)), (0, 2), "{out:?}");
    let out = leaky(&bundle, "--preserve-fds 3");
    out.refused_with(&["descriptor 5 is not open"]);
    bundle.assert_gone();
}

#[test]
fn activated_sockets_are_passed_on() {
    let mut bundle = Bundle::new();
    bundle.script("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3");
    let given = bundle.file("given", "handed over\n");
    let words: Vec<String> = bundle
        .command(&["run", bundle.id()])
        .get_args()
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    let line = format!(
        "exec 3<{}; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$@\"",
        given.display()
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line, "sh", crate::lane::LOCULE]).args(words).current_dir(bundle.path(""));
    let out = complete(&mut command);
    assert_eq!(out.ok(), "1 1 web\nhanded over", "{out:?}");
    // Meant for another process.
    let mut command = bundle.command(&["run", bundle.id()]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let out = complete(&mut command);
    assert!(out.stdout.starts_with("\n"), "{out:?}");
}

#[test]
fn standard_streams_are_inherited() {
    let mut bundle = Bundle::new();
    bundle.script("cat; echo told >&2");
    let input = bundle.file("input", "from the caller\n");
    let mut command = bundle.command(&["run", bundle.id()]);
    let out = complete(command.stdin(File::open(&input).unwrap()));
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("from the caller\n", "told\n"));
    // Those of create are the workload's, those of start are not.
    let mut command = bundle.command(&["create", bundle.id()]);
    command.stdin(File::open(&input).unwrap());
    command.stdout(File::create(bundle.path("stdout")).unwrap());
    command.stderr(File::create(bundle.path("stderr")).unwrap());
    assert!(command.status().unwrap().success());
    assert_eq!(bundle.locule(&["start", bundle.id()]).ok(), "");
    bundle.wait_for("stopped");
    assert_eq!((bundle.stdout().as_str(), bundle.stderr().as_str()), ("from the caller\n", "told\n"));
}

#[test]
fn a_closed_pipe_ends_the_workload_by_its_own_signal() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("pid").script("while :; do echo x; done");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child =
        bundle.command(&["run", bundle.id()]).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let mut file = File::from(std::os::fd::OwnedFd::from(reader));
    file.read_exact(&mut [0; 2]).unwrap();
    drop(file);
    // busybox's shell reports the error or dies of SIGPIPE; either way the run ends.
    assert!(!child.wait().unwrap().success());
    bundle.assert_gone();
}
