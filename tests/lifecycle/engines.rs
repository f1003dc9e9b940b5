//! Engines' own calls, word for word: argv, environment, working directory, descriptors.
//!
//! Owns one script an engine, after the sources of containerd's shim, conmon, Podman, CRI-O, dockerd,
//! BuildKit and buildah: what `runtime/src/contract.rs` promises them. The engines themselves run in the VM lane.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::lane::{Bundle, LOCULE, Output, complete, field, until};
use crate::leaks::Leaks;
use crate::pty::ConsoleSocket;

/// A call of the binary with nothing of the test's environment.
fn bare(bundle: &Bundle, env: &[(&str, &str)], words: &[&str]) -> Command {
    // Writes the document.
    let _ = bundle.command(&[]);
    let mut command = Command::new(LOCULE);
    command.args(words).env_clear().envs(env.iter().copied());
    command.current_dir(bundle.path("")).stdin(Stdio::null());
    command
}

fn ends(command: &mut Command) -> Option<i32> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().code()
}

fn pid_in(bundle: &Bundle, file: &str) -> Pid {
    let text = fs::read_to_string(bundle.path(file)).unwrap();
    assert!(text.bytes().all(|b| b.is_ascii_digit()), "digits alone: {text:?}");
    Pid::from_raw(text.parse().unwrap())
}

/// Waits until a shell has set its trap; before, SIGTERM does nothing to the first process of a pid namespace.
fn catches_term(pid: Pid) {
    until("a trap", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        u64::from_str_radix(field(&status, "SigCgt"), 16).unwrap() & 1 << (15 - 1) != 0
    });
}

struct Shim<'a> {
    bundle: &'a Bundle,
    prefix: Vec<String>,
    log: String,
}

const SHIM_ENV: [(&str, &str); 6] = [
    ("NAMESPACE", "default"),
    ("TTRPC_ADDRESS", "/run/containerd/containerd.sock.ttrpc"),
    ("GRPC_ADDRESS", "/run/containerd/containerd.sock"),
    ("MAX_SHIM_VERSION", "2"),
    ("GOMAXPROCS", "4"),
    ("OTEL_SERVICE_NAME", "containerd-shim-locule"),
];

impl Shim<'_> {
    fn new(bundle: &Bundle) -> Shim<'_> {
        let log = bundle.path("log.json").to_str().unwrap().to_owned();
        let root = bundle.path("runc/default").to_str().unwrap().to_owned();
        let prefix = ["--root", &root, "--log", &log, "--log-format", "json"].map(str::to_owned).to_vec();
        Shim { bundle, prefix, log }
    }

    fn command(&self, words: &[&str]) -> Command {
        let prefix: Vec<&str> = self.prefix.iter().map(String::as_str).collect();
        bare(self.bundle, &SHIM_ENV, &[&prefix[..], words].concat())
    }

    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        let out = complete(&mut self.command(words));
        assert_eq!((out.status, out.stderr.as_str()), (0, ""), "{words:?}");
        out.stdout
    }

    /// What the shim quotes: the last error record of the log.
    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        let before = self.records().len();
        let out = complete(&mut self.command(words));
        assert_ne!(out.status, 0, "{words:?}");
        let records = self.records();
        assert_eq!(records.len(), before + 1, "one record a failure: {records:?}");
        records.last().unwrap()["msg"].as_str().unwrap().to_owned()
    }

    fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn containerds_shim() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    bundle.script("trap 'exit 9' TERM; echo up; while :; do sleep 1000 & wait; done");
    bundle.set("linux.cgroupsPath", json!(format!("/default/{}", bundle.id())));
    let shim = Shim::new(&bundle);
    let (id, dir) = (bundle.id(), bundle.path("").to_str().unwrap().trim_end_matches('/').to_owned());
    let pid_file = format!("{dir}/init.pid");

    let mut create = shim.command(&["create", "--bundle", &dir, "--pid-file", &pid_file, id]);
    create
        .stdout(File::create(bundle.path("stdout")).unwrap())
        .stderr(File::create(bundle.path("stderr")).unwrap());
    assert!(create.status().unwrap().success(), "{}", bundle.stderr());
    let init = pid_in(&bundle, "init.pid");
    let cgroup = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    assert!(
        cgroup.contains(&format!("0::/default/{id}\n")),
        "the place is final when create returns: {cgroup}"
    );
    assert_eq!(shim.ok(&["start", id]), "");
    until("up", || bundle.stdout() == "up\n");

    let process = json!({"args": ["sh", "-c", "exit 21"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let file = bundle.file("runc-process123", process.to_string());
    let exec_pid = format!("{dir}/exec1.pid");
    let words = ["exec", "--process", file.to_str().unwrap(), "--detach", "--pid-file", &exec_pid, id];
    assert_eq!(ends(&mut shim.command(&words)), Some(0));
    let pid = pid_in(&bundle, "exec1.pid");
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 21), "an orphan of the shim's");

    let pids: Vec<i32> = serde_json::from_str(&shim.ok(&["ps", "--format", "json", id])).unwrap();
    assert!(pids.contains(&init.as_raw()));
    shim.ok(&["pause", id]);
    shim.ok(&["resume", id]);
    let mut update = shim.command(&["update", "--resources=-", id]);
    update.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = update.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{}").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert!(
        shim.fails(&["checkpoint", "--image-path", "i", "--work-path", "w", id]).contains("not there yet")
    );
    let restore = [
        "restore",
        "--image-path",
        "i",
        "--work-path",
        "w",
        "--detach",
        "--pid-file",
        &pid_file,
        "-no-subreaper",
        "--bundle",
        &dir,
        id,
    ];
    assert!(shim.fails(&restore).contains("not there yet"));

    shim.ok(&["kill", id, "15"]);
    assert_eq!(waitpid(init, None).unwrap(), WaitStatus::Exited(init, 9));
    assert!(shim.fails(&["kill", id, "15"]).contains("container not running"));
    shim.ok(&["kill", "--all", id, "9"]);
    shim.ok(&["delete", id]);
    assert!(shim.fails(&["delete", id]).contains("does not exist"));
    assert!(shim.fails(&["kill", id, "9"]).contains("does not exist"));
    // The shim's own clean-up after every task.
    shim.ok(&["delete", "--force", id]);
    let _ = fs::remove_dir(format!("/sys/fs/cgroup/default/{id}"));
    let _ = fs::remove_dir("/sys/fs/cgroup/default");
    leaks.none("by containerd's shim");
}

#[test]
fn containerds_shim_with_a_terminal_and_a_leaked_socket() {
    let mut bundle = Bundle::new();
    bundle.set("process.terminal", json!(true));
    bundle.script("ls /proc/self/fd | tr '\\n' ' '; echo; read x; exit $x");
    let shim = Shim::new(&bundle);
    let (id, dir) = (bundle.id(), bundle.path("").to_str().unwrap().to_owned());
    let console = ConsoleSocket::new(&bundle, "pty.sock");
    let listener = UnixListener::bind(bundle.path("shim.sock")).unwrap();
    // A shell hands its descriptor 0 on as 3, as the shim's listening socket leaks.
    let words =
        ["create", "--bundle", &dir, "--pid-file", "init.pid", "--console-socket", console.path(), id];
    let inner = shim.command(&words);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 3<&0 </dev/null; exec \"$@\"", "sh", LOCULE]).args(inner.get_args());
    command.env_clear().envs(SHIM_ENV).current_dir(&dir);
    command.stdin(std::os::fd::OwnedFd::from(listener));
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success() && said.is_empty(), "{said}");
    let mut terminal = console.receive();
    shim.ok(&["start", id]);
    // ls has the directory itself as 3.
    terminal.until("0 1 2 3 \r\n");
    terminal.write("4\n");
    let state = || complete(&mut shim.command(&["state", id])).stdout;
    until("stopped", || state().contains("\"stopped\""));
    shim.ok(&["delete", id]);
}

#[test]
fn the_shims_errors() {
    let mut bundle = Bundle::new();
    let id = bundle.id().to_owned();
    let dir = bundle.path("").to_str().unwrap().to_owned();
    for (property, value, told) in [
        ("process.args", json!(["nowhere"]), "executable file not found in $PATH"),
        ("process.cwd", json!("/proc/nowhere"), "no such file or directory"),
        ("root.path", json!("nowhere"), "no such file or directory"),
        ("process.args", json!(["/bin/nowhere"]), "no such file or directory"),
        ("process.args", json!(["/etc/passwd"]), "permission denied"),
        ("process.args", json!(["/etc"]), "permission denied"),
    ] {
        let before = bundle.config().clone();
        bundle.set(property, value);
        let shim = Shim::new(&bundle);
        let text = shim.fails(&["create", "--bundle", &dir, "--pid-file", "init.pid", &id]);
        assert!(text.contains(told), "{text}");
        assert!(!bundle.path("init.pid").exists());
        shim.ok(&["delete", "--force", &id]);
        bundle.edit(|config| *config = before);
    }
    bundle.args(&["sleep", "1000"]);
    let shim = Shim::new(&bundle);
    assert_eq!(
        ends(&mut shim.command(&["create", "--bundle", &dir, "--pid-file", "init.pid", &id])),
        Some(0)
    );
    shim.ok(&["start", &id]);
    let process =
        json!({"args": ["nowhere"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    bundle.file("process.json", process.to_string());
    let text = shim.fails(&["exec", "--process", "process.json", "--detach", "--pid-file", "e.pid", &id]);
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    assert!(!bundle.path("e.pid").exists());
    // A running one is not deleted without force, and says so.
    assert!(shim.fails(&["delete", &id]).contains("not stopped"));
    shim.ok(&["delete", "--force", &id]);
}

#[test]
fn the_shim_deletes_what_was_never_started() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut bundle = Bundle::new();
    let leaks = Leaks::of(&bundle);
    bundle.args(&["sleep", "1000"]);
    let shim = Shim::new(&bundle);
    let (id, dir) = (bundle.id(), bundle.path("").to_str().unwrap().to_owned());
    // Clean-up comes before anything was made as well: there is no state root yet.
    shim.ok(&["delete", "--force", id]);
    let words = ["create", "--bundle", &dir, "--pid-file", "init.pid", "--no-pivot", "--no-new-keyring", id];
    assert_eq!(ends(&mut shim.command(&words)), Some(0));
    let init = pid_in(&bundle, "init.pid");
    assert_eq!(shim.ok(&["ps", "--format", "json", id]), format!("[{init}]\n"));
    shim.ok(&["delete", id]);
    assert_eq!(waitpid(init, None).unwrap(), WaitStatus::Signaled(init, Signal::SIGKILL, false));
    assert!(shim.fails(&["start", id]).contains("does not exist"));
    leaks.none("by a container that was never started");
}

/// conmon: a subreaper without a terminal, `XDG_RUNTIME_DIR` its only word on where state lies.
fn conmon(bundle: &Bundle, words: &[&str]) -> Command {
    let run = bundle.path("run").to_str().unwrap().to_owned();
    let root = bundle.root().to_str().unwrap().to_owned();
    let log = bundle.path("oci-log").to_str().unwrap().to_owned();
    let global = ["--root", &root, "--log-format=json", "--log", &log];
    let env =
        [("XDG_RUNTIME_DIR", run.as_str()), ("PATH", "/usr/bin:/bin"), ("_CONTAINERS_USERNS_CONFIGURED", "")];
    bare(bundle, &env, &[&global, words].concat())
}

/// Podman's own calls: `XDG_RUNTIME_DIR` alone.
fn podman(bundle: &Bundle, words: &[&str]) -> Output {
    let root = bundle.root().to_str().unwrap().to_owned();
    complete(&mut bare(bundle, &[("XDG_RUNTIME_DIR", "/run/user/0")], &[&["--root", &root], words].concat()))
}

#[test]
fn conmon_and_podman() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut bundle = Bundle::new();
    bundle.script("trap 'exit 5' TERM; while :; do sleep 1000 & wait; done");
    // --cgroups=split: an absolute path in a tree that somebody else made.
    let service = format!("/sys/fs/cgroup/{}.service", bundle.id());
    fs::create_dir(&service).unwrap();
    bundle.set("linux.cgroupsPath", json!(format!("/{0}.service/libpod-payload-{0}", bundle.id())));
    let (id, dir) = (bundle.id(), bundle.path("").to_str().unwrap().to_owned());

    let words = ["create", "--bundle", &dir, "--pid-file", "pidfile", id];
    assert_eq!(ends(&mut conmon(&bundle, &words)), Some(0));
    let init = pid_in(&bundle, "pidfile");
    podman(&bundle, &["start", id]).ok();
    let process = json!({"args": ["sh", "-c", "exit 6"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    bundle.file("exec-process", process.to_string());
    let words = ["exec", "--pid-file", "exec.pid", "--process", "exec-process", "--detach", id];
    assert_eq!(ends(&mut conmon(&bundle, &words)), Some(0));
    let pid = pid_in(&bundle, "exec.pid");
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 6));
    podman(&bundle, &["pause", id]).ok();
    podman(&bundle, &["resume", id]).ok();
    bundle.file("resources.json", "{}");
    podman(&bundle, &["update", "--resources=resources.json", id]).ok();
    catches_term(init);
    podman(&bundle, &["kill", id, "15"]).ok();
    assert_eq!(waitpid(init, None).unwrap(), WaitStatus::Exited(init, 5));
    podman(&bundle, &["kill", "--all", id, "9"]).ok();
    podman(&bundle, &["delete", "--force", id]).ok();
    fs::remove_dir(&service).expect("the service's cgroup is empty and still there");

    // The log is one JSON value.
    bundle.set("linux.cgroupsPath", json!(null)).args(&["nowhere"]);
    let id = bundle.id();
    assert_eq!(
        ends(&mut conmon(&bundle, &["create", "--bundle", &dir, "--pid-file", "pidfile", id])),
        Some(1)
    );
    let log = fs::read_to_string(bundle.path("oci-log")).unwrap();
    let record: Value = serde_json::from_str(&log).unwrap();
    assert!(record["msg"].as_str().unwrap().contains("executable file not found in"), "{record}");

    // Probes.
    let out = podman(&bundle, &["restore", "--lsm-mount-context"]);
    assert!(out.status != 0 && out.stderr.contains("flag needs an argument"), "{out:?}");
    assert_ne!(podman(&bundle, &["checkpoint", "--help"]).status, 0, "no support is claimed");
    assert!(podman(&bundle, &["--version"]).ok().starts_with("locule version "));
}

#[test]
fn podman_without_cgroups() {
    let mut bundle = Bundle::new();
    bundle.args(&["sleep", "1000"]).set("linux.cgroupsPath", json!(null));
    let (id, dir) = (bundle.id(), bundle.path("").to_str().unwrap().to_owned());
    let words = ["--cgroup-manager", "disabled", "create", "--bundle", &dir, "--pid-file", "pidfile", id];
    assert_eq!(ends(&mut conmon(&bundle, &words)), Some(0));
    let init = pid_in(&bundle, "pidfile");
    let placed = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    assert_eq!(placed, fs::read_to_string("/proc/self/cgroup").unwrap(), "the caller's own");
    podman(&bundle, &["start", id]).ok();
    podman(&bundle, &["pause", id]).refused_with(&["no cgroup"]);
    assert_eq!(podman(&bundle, &["ps", "--format", "json", id]).ok(), format!("[{init}]"));
    podman(&bundle, &["kill", "--all", id, "9"]).ok();
    until("stopped", || podman(&bundle, &["state", id]).stdout.contains("\"stopped\""));
    podman(&bundle, &["kill", "--all", id, "9"]).ok();
    podman(&bundle, &["delete", "--force", id]).ok();
}

#[test]
fn cri_o() {
    let mut bundle = Bundle::new();
    bundle.script("trap 'exit 5' TERM; while :; do sleep 1000 & wait; done");
    let root = bundle.root().to_str().unwrap().to_owned();
    let env = [("CRI_O_EXTERNAL", "1"), ("XDG_RUNTIME_DIR", "/run/user/0"), ("PATH", "/usr/bin:/bin")];
    let (id, dir) = (bundle.id(), bundle.path("").to_str().unwrap().to_owned());
    let call = |words: &[&str]| bare(&bundle, &env, &[&["--root", root.as_str()], words].concat());
    assert_eq!(ends(&mut call(&["create", "--bundle", &dir, "--pid-file", "pidfile", id])), Some(0));
    complete(&mut call(&["start", id])).ok();
    let state: Value = serde_json::from_str(complete(&mut call(&["state", id])).ok()).unwrap();
    assert_eq!(
        (state["status"].as_str(), state["pid"].as_i64()),
        (Some("running"), Some(pid_in(&bundle, "pidfile").as_raw().into()))
    );
    let created = state["created"].as_str().unwrap();
    assert!(created.starts_with("20") && created.ends_with('Z') && created.contains('T'), "{created}");
    // In the foreground, with the exit code passed on.
    let process = json!({"args": ["sh", "-c", "cat; exit 7"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let file = bundle.file("exec-process", process.to_string());
    let mut exec = call(&["exec", "--process", file.to_str().unwrap(), id]);
    exec.stdin(File::open(bundle.file("input", "through\n")).unwrap());
    let out = complete(&mut exec);
    assert_eq!((out.status, out.stdout.as_str()), (7, "through\n"));
    for (args, told) in [
        (json!(["nowhere"]), "executable file not found in $PATH"),
        (json!(["/bin/nowhere"]), "no such file or directory"),
        (json!(["/etc/passwd"]), "permission denied"),
        (json!(["/etc"]), "permission denied"),
    ] {
        let process = json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
        bundle.file("exec-process", process.to_string());
        let out = complete(&mut call(&["exec", "--process", "exec-process", id]));
        assert_eq!((out.status, out.stderr.contains(told)), (255, true), "{}", out.stderr);
    }
    let mut update = call(&["update", "--resources", "-", id]);
    update.stdin(File::open(bundle.file("resources", "{}")).unwrap());
    complete(&mut update).ok();
    catches_term(pid_in(&bundle, "pidfile"));
    complete(&mut call(&["kill", id, "15"])).ok();
    until("stopped", || complete(&mut call(&["state", id])).stdout.contains("\"stopped\""));
    complete(&mut call(&["kill", id, "KILL"])).refused_with(&["container not running"]);
    complete(&mut call(&["delete", "--force", id])).ok();
    complete(&mut call(&["delete", "--force", id])).ok();
    complete(&mut call(&["state", id])).refused_with(&["does not exist"]);
}

#[test]
fn features_for_all() {
    let bundle = Bundle::new();
    // Without a right: the caller may be anybody.
    let features = bare(&bundle, &[], &["features"]);
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
    command.arg(features.get_program()).args(features.get_args()).env_clear().stdin(Stdio::null());
    let out = complete(&mut command);
    assert_eq!((out.status, out.stderr.as_str()), (0, ""));
    let features: Value = serde_json::from_str(&out.stdout).unwrap();
    for version in ["ociVersionMin", "ociVersionMax"] {
        assert!(!features[version].as_str().unwrap().is_empty(), "CRI-O voids the document");
    }
    let options: Vec<&str> =
        features["mountOptions"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
    assert!(options.contains(&"rro") && options.contains(&"ridmap"), "{options:?}");
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("user")));
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    assert!(features["hooks"].as_array().unwrap().contains(&json!("prestart")));
    assert!(features["annotations"]["org.locule.version"].is_string());
    assert!(!features["potentiallyUnsafeConfigAnnotations"].as_array().unwrap().is_empty());
}

#[test]
fn dockerds_probe_and_wrapper() {
    let mut bundle = Bundle::new();
    let out = complete(&mut bare(&bundle, &[], &["--version"]));
    let mut lines = out.ok().lines();
    assert!(lines.next().unwrap().contains("version"));
    if let Some(commit) = option_env!("LOCULE_COMMIT") {
        assert_eq!(lines.next(), Some(format!("commit: {commit}").as_str()), "docker version shows it");
    }
    // runtimeArgs make it a script.
    let root = bundle.root().to_str().unwrap().to_owned();
    let wrapper = bundle.program("locule", format!("#!/bin/sh\nexec {LOCULE} --debug \"$@\"\n"));
    bundle.script("exit 3");
    let _ = bundle.command(&[]);
    let mut command = Command::new(&wrapper);
    command.args(["--root", &root, "--log", "log.json", "--log-format", "json", "run", bundle.id()]);
    command.current_dir(bundle.path("")).stdin(Stdio::null());
    assert_eq!(complete(&mut command).status, 3);
    // Docker 26's network hook reads the state and opens the namespace of that pid.
    let out = bundle.path("netns");
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net > {}",
        out.display()
    );
    bundle.set(
        "hooks.prestart",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}]),
    );
    bundle.script("readlink /proc/self/ns/net");
    let run = bundle.run();
    assert_eq!(run.ok(), fs::read_to_string(out).unwrap().trim());
}

#[test]
fn buildkit() {
    let mut bundle = Bundle::new();
    bundle.script("cat /etc/passwd | head -1; exit 4");
    let root = bundle.root().to_str().unwrap().to_owned();
    let dir = bundle.path("").to_str().unwrap().to_owned();
    let log = bundle.path("runc-log.json").to_str().unwrap().to_owned();
    let prefix = ["--root", &root, "--log", &log, "--log-format", "json"];
    let env = [("PATH", "/usr/bin:/bin")];
    let words = [&prefix[..], &["run", "--bundle", &dir, "--keep", bundle.id()]].concat();
    let out = complete(&mut bare(&bundle, &env, &words));
    assert_eq!((out.status, out.stdout.as_str()), (4, "root:x:0:0:root:/root:/bin/sh\n"));
    assert!(!bundle.path("runc-log.json").exists(), "no error, no log");
    let words = [&prefix[..], &["delete", bundle.id()]].concat();
    complete(&mut bare(&bundle, &env, &words)).ok();
    bundle.assert_gone();
}

#[test]
fn buildah() {
    let mut bundle = Bundle::new();
    bundle.script("trap 'exit 8' TERM; echo up; while :; do sleep 1000 & wait; done");
    let root = bundle.root().to_str().unwrap().to_owned();
    let dir = bundle.path("").to_str().unwrap().to_owned();
    let env = [("PATH", "/usr/bin:/bin")];
    let call = |words: &[&str]| bare(&bundle, &env, &[&["--root", root.as_str()], words].concat());
    let id = bundle.id();
    let mut create = call(&["create", "--bundle", &dir, "--pid-file", "pid", "--no-new-keyring", id]);
    create.stdout(File::create(bundle.path("stdout")).unwrap()).stderr(Stdio::null());
    assert!(create.status().unwrap().success());
    let status = || {
        let out = complete(&mut call(&["state", id]));
        let state: Value = serde_json::from_str(out.ok()).unwrap();
        state["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(), "created");
    complete(&mut call(&["start", id])).ok();
    until("up", || bundle.stdout() == "up\n");
    assert_eq!(status(), "running");
    // Without a signal's name.
    complete(&mut call(&["kill", id])).ok();
    until("stopped", || status() == "stopped");
    complete(&mut call(&["delete", id])).ok();
}
