//! What every test here uses: a tree as a machine sees it, and a container run in it by the example `native`.
//!
//! Owns the tree's directory and the guest's cgroup, and removes both. Runs only where `tests/lane` put it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use locule_runtime::isolation::control::{Answer, Ask, Connection, Newcomer, TREES};
use locule_runtime::spec::Process;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use serde_json::{Value, json};

const CGROUP: &str = "/sys/fs/cgroup";
const MNT: &str = "/mnt";

/// How a container ended and what it said.
#[derive(Debug)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout.trim_end()
    }
}

fn guard() {
    let kind = |path| statfs(path).map(|fs| fs.filesystem_type()).ok();
    let inside = kind(CGROUP) == Some(CGROUP2_SUPER_MAGIC) && kind(MNT) == Some(TMPFS_MAGIC);
    assert!(inside, "run these tests as tests/lane cargo test -p locule-guest");
}

/// The directory of the programs under test.
fn programs() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        own.parent().and_then(Path::parent).unwrap().to_owned()
    })
}

/// The whole program, for comparisons.
pub fn locule() -> PathBuf {
    let path = programs().join("locule");
    assert!(path.exists(), "cargo test --workspace builds it, or cargo build");
    path
}

fn busybox() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = Path::new(MNT).join(format!("guest-bin-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let source = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(source.expect("Debian's package busybox-static is needed"), dir.join("busybox")).unwrap();
        let listed = Command::new(dir.join("busybox")).arg("--list").output().unwrap().stdout;
        for applet in str::from_utf8(&listed).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", dir.join(applet)).unwrap();
        }
        // The shipped build, say.
        let guest = std::env::var("LOCULE_GUEST").unwrap_or(env!("CARGO_BIN_EXE_locule-guest").into());
        fs::copy(guest, dir.join("guest")).unwrap();
        dir
    })
}

/// A tree and the container in it.
#[derive(Debug)]
pub struct Tree {
    pub dir: PathBuf,
    pub config: Value,
    pub cgroup: PathBuf,
    pub env: Vec<(String, String)>,
}

impl Tree {
    /// A tree with busybox, and a container that runs `args`.
    pub fn new(args: &[&str]) -> Tree {
        guard();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("guest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(MNT).join(&name);
        root(&dir.join("root"));
        for sub in ["mounts", "containers"] {
            fs::create_dir(dir.join(sub)).unwrap();
        }
        fs::hard_link(busybox().join("guest"), dir.join("init")).unwrap();
        let cgroup = Path::new(CGROUP).join(&name);
        fs::create_dir(&cgroup).unwrap();
        Tree { dir, cgroup, config: config(args), env: Vec::new() }
    }

    /// The shell command `script`.
    pub fn sh(script: &str) -> Tree {
        Tree::new(&["/bin/sh", "-c", script])
    }

    pub fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// A command that runs it.
    pub fn command(&self) -> Command {
        fs::write(self.dir.join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(programs().join("examples/native"));
        command.args([&self.dir, &self.cgroup, &self.control()]).envs(self.env.iter().cloned());
        command
    }

    /// Runs it with `input` to its end.
    pub fn run_with(&self, input: &[u8]) -> Output {
        let mut child = self.spawn();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = finish(child);
        feeder.join().unwrap();
        output
    }

    /// Runs it to its end.
    pub fn run(&self) -> Output {
        self.run_with(b"")
    }

    /// Starts it, with pipes.
    pub fn spawn(&self) -> Child {
        self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Asks for another container in the same guest, with a root of its own, that runs the shell command `script` and shares
    /// namespaces of these kinds with the one that has this id. The guest finds it by the name `id` among the trees.
    pub fn another(&self, id: &str, script: &str, shares: &[(&str, &str)]) -> Exec {
        use std::os::fd::AsFd;
        let dir = self.dir.join("containers").join(id);
        if !dir.exists() {
            root(&dir);
        }
        let mut document = config(&["/bin/sh", "-c", script]);
        document["root"]["path"] = json!(Path::new(TREES).join(id));
        document["linux"]["cgroupsPath"] = json!(format!("/containers/{id}"));
        let own_name = shares.iter().all(|(kind, _)| *kind != "uts");
        document["hostname"] = if own_name { json!(id) } else { Value::Null };
        let file = self.dir.join(format!("{id}.json"));
        fs::write(&file, document.to_string()).unwrap();
        let file = fs::File::open(file).unwrap();
        let (stdin, to_stdin) = std::io::pipe().unwrap();
        let (stdout, to_stdout) = std::io::pipe().unwrap();
        let (stderr, to_stderr) = std::io::pipe().unwrap();
        let newcomer = Newcomer {
            id: id.to_owned(),
            terminal: false,
            trees: vec![id.to_owned()],
            joins: shares.iter().map(|(kind, owner)| ((*kind).to_owned(), (*owner).to_owned())).collect(),
        };
        let connection = self.connect();
        let tree = fs::File::open(dir).unwrap();
        let fds = [file.as_fd(), stdin.as_fd(), to_stdout.as_fd(), to_stderr.as_fd(), tree.as_fd()];
        connection.ask(&Ask::Create(Box::new(newcomer)), &fds).unwrap();
        Exec { connection, stdin: Some(to_stdin), stdout, stderr }
    }

    /// A connection to its control socket.
    pub fn connect(&self) -> Connection {
        Connection::open(fs::File::open(&self.dir).unwrap()).unwrap()
    }

    /// Executes one more process, with pipes.
    pub fn exec(&self, args: &[&str]) -> Exec {
        self.exec_process(process(args))
    }

    /// Executes one more process, with pipes.
    pub fn exec_process(&self, process: Process) -> Exec {
        use std::os::fd::AsFd;
        let (stdin, to_stdin) = std::io::pipe().unwrap();
        let (stdout, to_stdout) = std::io::pipe().unwrap();
        let (stderr, to_stderr) = std::io::pipe().unwrap();
        let connection = self.connect();
        connection
            .ask(&Ask::Exec(Box::new(process)), &[stdin.as_fd(), to_stdout.as_fd(), to_stderr.as_fd()])
            .unwrap();
        Exec { connection, stdin: Some(to_stdin), stdout, stderr }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Whoever is left is in there.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        remove_cgroup(&self.cgroup);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Those below it first.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    while dir.exists() && fs::remove_dir(dir).is_err() && !std::thread::panicking() {
        std::thread::yield_now();
    }
}

/// A root file system with busybox.
fn root(dir: &Path) {
    for sub in ["etc", "proc", "sys", "dev", "tmp", "root", "run", "bin"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for entry in fs::read_dir(busybox()).unwrap().flatten().filter(|entry| entry.file_name() != "guest") {
        fs::hard_link(entry.path(), dir.join("bin").join(entry.file_name())).unwrap();
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/tmp:/bin/sh\n").unwrap();
}

/// A process under way.
#[derive(Debug)]
pub struct Exec {
    pub connection: Connection,
    pub stdin: Option<std::io::PipeWriter>,
    pub stdout: std::io::PipeReader,
    pub stderr: std::io::PipeReader,
}

impl Exec {
    /// Waits until the container that was asked for is made.
    #[track_caller]
    pub fn created(self) -> Exec {
        match self.connection.answered().unwrap() {
            Some(Answer::Created(_)) => self,
            other => panic!("{other:?}"),
        }
    }

    /// Lets the container go, once it is made.
    #[track_caller]
    pub fn go(self) -> Exec {
        let made = self.created();
        made.connection.ask(&Ask::Start, &[]).unwrap();
        made.started()
    }

    /// What it says next, up to the end of a line.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") && self.stdout.read(&mut byte).unwrap() == 1 {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Waits until it runs.
    #[track_caller]
    pub fn started(self) -> Exec {
        match self.connection.answered().unwrap() {
            Some(Answer::Started) => self,
            other => panic!("{other:?}"),
        }
    }

    /// Its end, and what it said; its input is closed first.
    pub fn finish(mut self) -> (Answer, Vec<u8>, Vec<u8>) {
        self.stdin = None;
        let mut stderr = self.stderr;
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            bytes
        });
        let mut bytes = Vec::new();
        self.stdout.read_to_end(&mut bytes).unwrap();
        let answer = self.connection.answered().unwrap().expect("the monitor lives");
        (answer, bytes, errors.join().unwrap())
    }
}

/// A process that runs `args` with every right of the container.
pub fn process(args: &[&str]) -> Process {
    serde_json::from_value(config(args)["process"].clone()).unwrap()
}

/// Waits for a child and reads what it says.
pub fn finish(mut child: Child) -> Output {
    let mut errors = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        errors.read_to_end(&mut text).unwrap();
        text
    });
    let mut stdout = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout).unwrap();
    }
    let status = child.wait().unwrap();
    Output {
        status: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&reader.join().unwrap()).into_owned(),
    }
}

fn config(args: &[&str]) -> Value {
    let caps = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"]);
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "/root", "readonly": false},
        "hostname": "inner",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": true,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "ro"]},
        ],
        "linux": {
            "cgroupsPath": "/container",
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}
