//! `exec`: every option of it, exit codes, many at once.
//!
//! Owns the second process of a container. Terminals are in `terminals`, its crashes in `crash`.

use std::fs::{self, File};
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::lane::{Bundle, complete, field, until};
use crate::leaks::Leaks;

fn process(bundle: &Bundle, document: &Value) -> String {
    bundle.file("process.json", document.to_string()).to_str().unwrap().to_owned()
}

#[test]
fn exit_codes() {
    let mut bundle = Bundle::new();
    bundle.program("rootfs/bin/plain", "");
    fs::set_permissions(bundle.rootfs("bin/plain"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    bundle.program("rootfs/bin/garbage", "\x01\x02\x03\x04");
    bundle.up();
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(bundle.exec(script).status, code, "{script}");
    }
    for (program, told) in [
        ("nosuch", "executable file not found in $PATH"),
        ("/nosuch", "no such file or directory"),
        ("/bin/plain", "permission denied"),
        ("/tmp", "permission denied"),
        ("/bin/garbage", "exec format error"),
    ] {
        let out = bundle.exec_with(&[], &[program]);
        assert_eq!(out.status, 255, "a failure is none of the program's codes: {out:?}");
        out.refused_with(&[told]);
        let out = bundle.exec_with(&["--detach", "--pid-file", "pid"], &[program]);
        assert_eq!(out.status, 255, "{out:?}");
        out.refused_with(&[told]);
    }
    let out = bundle.exec_with(&["--cwd", "/nosuch"], &["true"]);
    assert_eq!(out.status, 255, "{out:?}");
    out.refused_with(&["/nosuch", "no such file or directory"]);
    bundle.exec_with(&["--process", "/nosuch.json"], &[]).refused_with(&["/nosuch.json"]);
    bundle.file("bad.json", "{\"args\": [");
    bundle.exec_with(&["--process", "bad.json"], &[]).refused_with(&["bad.json"]);
}

#[test]
fn flags() {
    let mut bundle = Bundle::new();
    bundle.up();
    let told = |options: &[&str], script: &str| {
        let out = bundle.exec_with(options, &["sh", "-c", script]);
        assert_eq!((out.status, out.stderr.as_str()), (0, ""), "{options:?}");
        out.stdout.trim_end().to_owned()
    };
    assert_eq!(told(&["--env", "A=1", "-e", "B=x y"], "echo $A$B"), "1x y");
    assert_eq!(told(&["--cwd", "/tmp"], "pwd"), "/tmp");
    assert_eq!(told(&["--user", "7:8"], "id -u; id -g"), "7\n8");
    assert_eq!(told(&["-u", "7"], "id -u; id -g"), "7\n0");
    assert_eq!(told(&["--additional-gids", "9", "-g", "10,11"], "id -G"), "0 9 10 11");
    let status = "cat /proc/self/status";
    let before = told(&[], status);
    assert_eq!(field(&before, "NoNewPrivs"), "1", "as the default document says");
    let caps = |text: &str, set: &str| u64::from_str_radix(field(text, set), 16).unwrap();
    let net_admin = 1 << 12;
    assert_eq!(caps(&before, "CapEff") & net_admin, 0);
    let with = told(&["--cap", "net_admin", "--cap", "CAP_SYS_TIME"], status);
    assert_eq!(caps(&with, "CapEff"), caps(&before, "CapEff") | net_admin | 1 << 25);
    assert_eq!(caps(&with, "CapBnd"), caps(&before, "CapBnd") | net_admin | 1 << 25);
    assert_eq!(told(&["--",], "echo $0"), "sh");
}

#[test]
fn no_new_privs_and_the_document_of_a_process() {
    let mut bundle = Bundle::new();
    bundle.set("process.noNewPrivileges", json!(false)).up();
    let status = ["cat", "/proc/self/status"];
    assert_eq!(field(&bundle.exec_with(&[], &status).stdout, "NoNewPrivs"), "0");
    assert_eq!(field(&bundle.exec_with(&["--no-new-privs"], &status).stdout, "NoNewPrivs"), "1");

    let document = json!({
        "args": ["sh", "-c", "echo $A $(id -u):$(id -g) $(pwd) $(ulimit -n)"], "cwd": "/tmp",
        "env": ["PATH=/bin", "A=file"], "user": {"uid": 5, "gid": 6},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 77, "soft": 66}], "noNewPrivileges": true,
    });
    let path = process(&bundle, &document);
    assert_eq!(bundle.exec_with(&["--process", &path], &[]).ok(), "file 5:6 /tmp 66");
    assert_eq!(
        bundle.exec_with(&["-p", &path, "--env", "A=flag", "--user", "9"], &[]).ok(),
        "flag 9:6 /tmp 66"
    );
}

#[test]
fn detached_with_a_pid_file() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut bundle = Bundle::new();
    bundle.up();
    let words = ["exec", "-d", "--pid-file", "pid", bundle.id(), "sh", "-c", "echo begun; exec sleep 1000"];
    let mut command = bundle.command(&words);
    let out = File::create(bundle.path("exec-out")).unwrap();
    assert!(command.stdout(out).stderr(Stdio::null()).status().unwrap().success());
    let pid = fs::read_to_string(bundle.path("pid")).unwrap();
    assert!(!pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()), "{pid:?}");
    until("begun", || fs::read_to_string(bundle.path("exec-out")).unwrap() == "begun\n");
    until("in the cgroup", || {
        let procs = fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap();
        procs.lines().any(|line| line == pid)
    });
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap(),
            fs::read_link(format!("/proc/{}/ns/{kind}", bundle.pid())).unwrap(),
            "{kind}"
        );
    }
    let missing = bundle.exec_with(&["-d", "--pid-file", "/no/such/dir/pid"], &["sleep", "1000"]);
    missing.refused_with(&["/no/such/dir/pid", "no such file or directory"]);
    let procs = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap().lines().count();
    until("the refused one is gone", || procs() == 3);
    // Its zombie would keep the pid namespace, and with it init, from ending.
    bundle.kill("KILL");
    let orphan = Pid::from_raw(pid.parse().unwrap());
    assert_eq!(waitpid(orphan, None).unwrap(), WaitStatus::Signaled(orphan, Signal::SIGKILL, false));
    bundle.wait_for("stopped").delete().assert_gone();
}

#[test]
fn descriptors() {
    let mut bundle = Bundle::new();
    bundle.file("given", "handed over\n");
    bundle.up();
    let line = format!("exec 3<{0}/given 4<{0}/given; exec \"$@\"", bundle.path("").display());
    let root = bundle.root();
    let call = |options: &[&str], words: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line, "sh", crate::lane::LOCULE, "--root"]).arg(&root).arg("exec");
        command.args(options).arg(bundle.id()).args(words).stdin(Stdio::null());
        complete(&mut command)
    };
    assert_eq!(call(&["--preserve-fds", "1"], &["sh", "-c", "cat <&3"]).ok(), "handed over");
    // ls has the directory open itself.
    let list = ["ls", "/proc/self/fd"];
    assert_eq!(call(&["--preserve-fds", "1"], &list).ok(), "0\n1\n2\n3\n4");
    assert_eq!(call(&[], &list).ok(), "0\n1\n2\n3");
}

#[test]
fn a_cgroup_below_the_containers() {
    let mut bundle = Bundle::new();
    bundle.without_namespace("cgroup").up();
    fs::create_dir(bundle.cgroup().join("sub")).unwrap();
    let place = format!("0::/{}/sub\n", bundle.id());
    for option in ["sub", "/sub", ":sub"] {
        let out = bundle.exec_with(&["--cgroup", option], &["cat", "/proc/self/cgroup"]);
        assert!(out.stdout.ends_with(&place), "{option}: {out:?}");
    }
    bundle
        .exec_with(&["--cgroup", "nosuch"], &["true"])
        .refused_with(&["nosuch", "no such file or directory"]);
    bundle.exec_with(&["--cgroup", "../.."], &["true"]).refused_with(&["leads out"]);
}

#[test]
fn into_a_paused_container() {
    let mut bundle = Bundle::new();
    bundle.up();
    bundle.locule(&["pause", bundle.id()]).ok();
    let procs = || fs::read_to_string(bundle.cgroup().join("cgroup.procs")).unwrap().lines().count();
    let before = procs();
    bundle.exec_with(&[], &["true"]).refused_with(&["paused", "--ignore-paused"]);
    let words = ["exec", "--ignore-paused", bundle.id(), "echo", "at last"];
    let mut command = bundle.command(&words);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    until("it waits with the others", || procs() == before + 1);
    bundle.locule(&["resume", bundle.id()]).ok();
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"at last\n"[..]));
}

#[test]
fn into_a_created_container() {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]).create();
    assert_eq!(bundle.exec("echo early").ok(), "early");
    bundle.start();
    assert_eq!(bundle.state()["status"], "running");
}

#[test]
fn twenty_at_once_keep_their_codes() {
    let mut bundle = Bundle::new();
    bundle.up();
    let bundle = &bundle;
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20)
            .map(|number| {
                let mut command = bundle.command(&[
                    "exec",
                    bundle.id(),
                    "sh",
                    "-c",
                    &format!("echo {number}; exit {number}"),
                ]);
                scope.spawn(move || (number, complete(&mut command)))
            })
            .collect();
        for call in calls {
            let (number, out) = call.join().unwrap();
            assert_eq!((out.status, out.stdout), (number, format!("{number}\n")));
        }
    });
}

#[test]
fn the_containers_end_ends_it() {
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    fs::create_dir(bundle.root()).unwrap();
    bundle.up();
    let mut command = bundle.command(&["exec", bundle.id(), "sh", "-c", "echo in; exec sleep 1000"]);
    let out = bundle.path("exec-out");
    let mut child = command.stdout(File::create(&out).unwrap()).stderr(Stdio::null()).spawn().unwrap();
    until("it runs", || fs::read_to_string(&out).unwrap() == "in\n");
    bundle.kill("KILL").wait_for("stopped");
    assert_eq!(child.wait().unwrap().code(), Some(137));
    bundle.delete().assert_gone();
    fs::remove_dir(bundle.root()).unwrap();
    leaks.none("by an exec that its container took along");
}
