//! What every test of the lane uses: bundles, and the binary run on them.
//!
//! Owns the directory of each bundle, its state root and its container, and removes all three.
//! Never runs outside the private namespaces that `tests/lane` makes.

#![allow(unsafe_code, reason = "a received descriptor is taken over")]

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::statfs::{self, CGROUP2_SUPER_MAGIC, TMPFS_MAGIC};
use serde_json::{Map, Value, json};

/// The binary under test.
pub const LOCULE: &str = env!("CARGO_BIN_EXE_locule");
/// Where the lane's cgroup v2 tree is.
pub const CGROUP: &str = "/sys/fs/cgroup";
/// The lane's tmpfs.
const MNT: &str = "/mnt";
/// A call that takes longer hangs; it is no measure of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a call ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 and the signal's number for a call that was killed.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output, without the last newline, of a call that must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout.trim_end()
    }

    /// The standard error, one line, of a call that must have failed.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert_ne!(self.status, 0, "{self:?}");
        let told = self.stderr.trim_end();
        assert!(told.starts_with("locule: ") && !told.contains('\n'), "{self:?}");
        told
    }

    /// Fails unless the call failed and its error holds all of `words`.
    #[track_caller]
    pub fn refused_with(&self, words: &[&str]) {
        let told = self.refused();
        for word in words {
            assert!(told.contains(word), "no {word:?} in: {told}");
        }
    }
}

/// Fails unless this process is in the lane; says how to get there.
pub fn guard() {
    static INSIDE: OnceLock<Result<(), String>> = OnceLock::new();
    let inside = INSIDE.get_or_init(|| {
        let lacks = |what: &str| Err(format!("{what}: run these tests as tests/lane cargo test --test host"));
        if !nix::unistd::geteuid().is_root() {
            return lacks("the host lane needs root");
        }
        if fs::read_link("/proc/self/ns/mnt").ok() == fs::read_link("/proc/1/ns/mnt").ok() {
            return lacks("this is not a mount namespace of the lane");
        }
        let kind = |path| statfs::statfs(path).map(|fs| fs.filesystem_type()).ok();
        if kind(CGROUP) != Some(CGROUP2_SUPER_MAGIC) {
            return lacks("no cgroup v2 tree is on /sys/fs/cgroup");
        }
        if kind(MNT) != Some(TMPFS_MAGIC) {
            return lacks("no tmpfs is on /mnt");
        }
        Ok(())
    });
    if let Err(why) = inside {
        panic!("{why}");
    }
}

/// A name that no other test of this machine has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("host-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The directory that all bundles link their programs from.
fn programs() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = Path::new(MNT).join(unique("programs"));
        fs::create_dir(&dir).unwrap();
        let source = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(source.expect("Debian's package busybox-static is needed"), dir.join("busybox")).unwrap();
        let listed = Command::new(dir.join("busybox")).arg("--list").output().unwrap().stdout;
        for applet in str::from_utf8(&listed).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", dir.join(applet)).unwrap();
        }
        dir
    })
}

/// What `locule spec` writes, without the terminal.
fn default_config() -> &'static Value {
    static READ: OnceLock<Value> = OnceLock::new();
    READ.get_or_init(|| {
        let dir = Path::new(MNT).join(unique("spec"));
        fs::create_dir(&dir).unwrap();
        let made = Command::new(LOCULE).args(["spec", "--bundle"]).arg(&dir).status().unwrap();
        assert!(made.success(), "locule spec: {made}");
        let mut config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config
    })
}

/// A bundle and the one container that is made from it.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    id: String,
    config: Value,
    globals: Vec<String>,
    children: Vec<Child>,
    mounted: Vec<PathBuf>,
}

impl Bundle {
    /// A bundle with the default document and busybox's programs, and an id for its container.
    pub fn new() -> Bundle {
        guard();
        let id = unique("box");
        let dir = Path::new(MNT).join(&id);
        let rootfs = dir.join("rootfs");
        for sub in ["etc", "proc", "sys", "dev", "tmp", "root", "var", "run", "mnt"] {
            fs::create_dir_all(rootfs.join(sub)).unwrap();
        }
        fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\n").unwrap();
        // Links to one inode, in a directory of the bundle's own that a test may write to.
        fs::create_dir(rootfs.join("bin")).unwrap();
        for entry in fs::read_dir(programs()).unwrap() {
            let entry = entry.unwrap();
            fs::hard_link(entry.path(), rootfs.join("bin").join(entry.file_name())).unwrap();
        }
        Bundle {
            dir,
            id,
            config: default_config().clone(),
            globals: Vec::new(),
            children: Vec::new(),
            mounted: Vec::new(),
        }
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A path in the bundle's directory.
    pub fn path(&self, inner: &str) -> PathBuf {
        self.dir.join(inner)
    }

    /// A path in the root file system.
    pub fn rootfs(&self, inner: &str) -> PathBuf {
        self.dir.join("rootfs").join(inner.trim_start_matches('/'))
    }

    /// The directory that holds the containers' state (`--root`).
    pub fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Makes a directory of the bundle, and those above it.
    pub fn directory(&self, inner: &str) -> PathBuf {
        let path = self.dir.join(inner);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a file of the bundle, and makes the directories above it.
    pub fn file(&self, inner: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.join(inner);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes an executable file of the bundle.
    pub fn program(&self, inner: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(inner, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Mounts something on a directory of the bundle, in the lane's mount namespace.
    pub fn mounted(&mut self, inner: &str, options: &[&str]) -> PathBuf {
        let path = self.directory(inner);
        host("mount", &[options, &[path.to_str().unwrap()]].concat());
        self.mounted.push(path.clone());
        path
    }

    /// The document.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Changes the document.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) -> &mut Self {
        change(&mut self.config);
        self
    }

    /// Sets one property of the document, named as in `linux.resources.unified`.
    pub fn set(&mut self, property: &str, value: Value) -> &mut Self {
        *self.property(property) = value;
        self
    }

    /// Adds an element to a list of the document; an absent list is made.
    pub fn push(&mut self, property: &str, value: Value) -> &mut Self {
        let list = self.property(property);
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().expect("a list").push(value);
        self
    }

    fn property(&mut self, name: &str) -> &mut Value {
        name.split('.').fold(&mut self.config, |at, key| {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            &mut at[key]
        })
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        let mount = json!({"destination": destination, "type": kind, "source": source, "options": options});
        self.push("mounts", mount)
    }

    /// Adds a namespace, or replaces the one of that type.
    pub fn namespace(&mut self, namespace: Value) -> &mut Self {
        let kind = namespace["type"].as_str().expect("a type").to_owned();
        self.without_namespace(&kind).push("linux.namespaces", namespace)
    }

    /// Gives it a user namespace, whose root is the host's id 100000.
    pub fn mapped(&mut self) -> &mut Self {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        self.namespace(json!({"type": "user"}))
            .set("linux.uidMappings", map.clone())
            .set("linux.gidMappings", map)
    }

    /// Takes a namespace away.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Self {
        self.property("linux.namespaces").as_array_mut().unwrap().retain(|other| other["type"] != kind);
        self
    }

    /// Gives the workload all capabilities that a container can be given here.
    pub fn capable(&mut self, names: &[&str]) -> &mut Self {
        for set in ["bounding", "effective", "permitted"] {
            self.set(&format!("process.capabilities.{set}"), json!(names));
        }
        self
    }

    /// Lets the workload be `sh -c text`.
    pub fn script(&mut self, text: &str) -> &mut Self {
        self.args(&["sh", "-c", text])
    }

    /// Sets the workload.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("process.args", json!(args))
    }

    /// Adds a global option to each further call of the binary.
    pub fn global(&mut self, option: &str) -> &mut Self {
        self.globals.push(option.to_owned());
        self
    }

    /// A call of the binary with the bundle as its directory; the document is written first.
    pub fn command(&self, words: &[&str]) -> Command {
        fs::write(self.path("config.json"), serde_json::to_vec_pretty(&self.config).unwrap()).unwrap();
        let mut command = Command::new(LOCULE);
        command.arg("--root").arg(self.root()).args(&self.globals).args(words);
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Calls the binary and waits for its end.
    #[track_caller]
    pub fn locule(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        complete(&mut command)
    }

    /// `run` in the foreground.
    #[track_caller]
    pub fn run(&self) -> Output {
        self.run_with(&[])
    }

    /// `run` in the foreground with options.
    #[track_caller]
    pub fn run_with(&self, options: &[&str]) -> Output {
        self.locule(&[&["run"], options, &[&self.id]].concat())
    }

    /// Starts `run` and leaves it running; at the end of the bundle it is killed.
    pub fn spawn(&mut self) -> &mut Child {
        let child = self
            .command(&["run", &self.id])
            .stdout(File::create(self.path("stdout")).unwrap())
            .stderr(File::create(self.path("stderr")).unwrap())
            .spawn()
            .unwrap();
        self.children.push(child);
        self.children.last_mut().unwrap()
    }

    /// Waits for the end of what [`Bundle::spawn`] started last.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        self.children.pop().unwrap().wait().unwrap()
    }

    /// `create`, whether it succeeds or not. What the container writes goes to the files
    /// [`Bundle::stdout`] and [`Bundle::stderr`] read: the container would keep pipes open.
    #[track_caller]
    pub fn try_create(&self, options: &[&str]) -> Output {
        let mut command = self.command(&[&["create"], options, &[&self.id]].concat());
        self.to_files(&mut command)
    }

    /// `create`, which must succeed.
    #[track_caller]
    pub fn create(&self) -> &Self {
        let made = self.try_create(&[]);
        assert_eq!(made.status, 0, "{made:?}");
        self
    }

    /// `start`, which must succeed.
    #[track_caller]
    pub fn start(&self) -> &Self {
        self.locule(&["start", &self.id]).ok();
        self
    }

    /// `create` and `start` of a workload that stays until it is killed.
    #[track_caller]
    pub fn up(&mut self) -> &Self {
        // PID 1 ignores signals that it has no handler for.
        self.script("trap exit TERM; while :; do sleep 1000 & wait; done").create().start()
    }

    /// `exec` of `sh -c text`.
    #[track_caller]
    pub fn exec(&self, text: &str) -> Output {
        self.exec_with(&[], &["sh", "-c", text])
    }

    /// `exec` of any words with options.
    #[track_caller]
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Output {
        self.locule(&[&["exec"], options, &[self.id.as_str()], args].concat())
    }

    /// `exec --detach`, which must succeed; what the process says goes nowhere.
    #[track_caller]
    pub fn exec_detached(&self, args: &[&str]) {
        let mut command = self.command(&[&["exec", "--detach", &self.id], args].concat());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{status}");
    }

    /// `kill`, which must succeed.
    #[track_caller]
    pub fn kill(&self, signal: &str) -> &Self {
        self.locule(&["kill", &self.id, signal]).ok();
        self
    }

    /// `delete`, which must succeed.
    #[track_caller]
    pub fn delete(&self) -> &Self {
        self.locule(&["delete", &self.id]).ok();
        self
    }

    /// What `state` prints.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(self.locule(&["state", &self.id]).ok()).unwrap()
    }

    /// The pid of the container's init.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.state()["pid"].as_i64().unwrap()).unwrap()
    }

    /// A file of the init's directory in /proc, as the host sees it.
    #[track_caller]
    pub fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap()
    }

    /// Waits until the container has `status`.
    #[track_caller]
    pub fn wait_for(&self, status: &str) -> &Self {
        until(&format!("{} is {status}", self.id), || self.state()["status"] == status);
        self
    }

    /// What a created container wrote so far on its standard output.
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.path("stdout")).unwrap_or_default()
    }

    /// The same of its standard error.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// The directory of the container's cgroup, where the document names no other.
    pub fn cgroup(&self) -> PathBuf {
        Path::new(CGROUP).join(&self.id)
    }

    /// Fails unless nothing is left of the container.
    #[track_caller]
    pub fn assert_gone(&self) {
        assert!(!self.root().join(&self.id).exists(), "the state is left");
        assert!(!self.cgroup().exists(), "the cgroup is left");
        let state = self.locule(&["state", &self.id]);
        assert_ne!(state.status, 0, "{state:?}");
    }

    #[track_caller]
    fn to_files(&self, command: &mut Command) -> Output {
        command.stdout(File::create(self.path("stdout")).unwrap());
        command.stderr(File::create(self.path("stderr")).unwrap());
        let status = finish(command.spawn().unwrap()).status;
        Output { status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.root().exists() {
            let _ = self.command(&["delete", "--force", &self.id]).stderr(Stdio::null()).status();
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for path in self.mounted.iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(path).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs a program of the host, which must succeed, and returns what it prints.
#[track_caller]
pub fn host(program: &str, args: &[&str]) -> String {
    complete(Command::new(program).args(args).stdin(Stdio::null())).ok().to_owned()
}

/// Runs `command` to its end with its output in memory.
#[track_caller]
pub fn complete(command: &mut Command) -> Output {
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Waits for a child and for the end of its output; a call that hangs is killed and fails the test.
#[track_caller]
fn finish(child: Child) -> Output {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(ended) = receiver.recv_timeout(PATIENCE) else {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        panic!("the call hangs");
    };
    let ended = ended.unwrap();
    let signalled = std::os::unix::process::ExitStatusExt::signal(&ended.status).map(|number| 128 + number);
    Output {
        status: ended.status.code().or(signalled).unwrap(),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// Waits for `condition`, which some other process brings about.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A UNIX socket at `path` that waits for one message with one descriptor.
pub fn listen(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap()
}

/// Waits for a connection, and for the first message on it and the descriptor that comes along.
pub fn receive(listener: &UnixListener) -> (Vec<u8>, OwnedFd) {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let (stream, _) = listener.accept().unwrap();
    let mut text = vec![0; 1 << 16];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let fds: Vec<RawFd> = message
        .cmsgs()
        .unwrap()
        .filter_map(|part| match part {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    let length = message.bytes;
    text.truncate(length);
    assert_eq!(fds.len(), 1, "{}", String::from_utf8_lossy(&text));
    // SAFETY: the kernel made this descriptor for us just now.
    (text, unsafe { OwnedFd::from_raw_fd(fds[0]) })
}

/// The value of `field` in a text such as /proc/self/status.
#[track_caller]
pub fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {name} in: {text}"))
        .trim()
}

/// A line of mountinfo.
#[derive(Debug, Clone)]
pub struct MountInfo {
    /// The mounted directory within its file system.
    pub root: String,
    /// Where it is mounted.
    pub target: String,
    /// Options of the mount.
    pub options: Vec<String>,
    /// Propagation, as `shared:12` and `master:3`.
    pub tags: Vec<String>,
    /// The file system's type.
    pub kind: String,
    /// Options of the superblock.
    pub superblock: Vec<String>,
}

impl MountInfo {
    /// Reads one line.
    pub fn parse(line: &str) -> MountInfo {
        let words: Vec<&str> = line.split(' ').collect();
        let end = words.iter().position(|word| *word == "-").unwrap();
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        MountInfo {
            root: words[3].to_owned(),
            target: words[4].to_owned(),
            options: list(words[5]),
            tags: words[6..end].iter().map(|tag| (*tag).to_owned()).collect(),
            kind: words[end + 1].to_owned(),
            superblock: list(words[end + 3]),
        }
    }

    /// Whether the mount has an option.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|other| other == option)
    }

    /// Whether the superblock has an option.
    pub fn superblock_has(&self, option: &str) -> bool {
        self.superblock.iter().any(|other| other == option)
    }

    /// Whether a tag of that kind is there.
    pub fn tagged(&self, kind: &str) -> bool {
        self.tags.iter().any(|tag| tag.split(':').next() == Some(kind))
    }
}

/// The topmost mount on `target` in a mountinfo text.
#[track_caller]
pub fn mount_at(mountinfo: &str, target: &str) -> MountInfo {
    mountinfo
        .lines()
        .map(MountInfo::parse)
        .rfind(|mount| mount.target == target)
        .unwrap_or_else(|| panic!("nothing is mounted on {target}: {mountinfo}"))
}

/// The namespace that a process is in, as a link under /proc names it.
pub fn namespace_of(pid: i32, kind: &str) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}"))
}
