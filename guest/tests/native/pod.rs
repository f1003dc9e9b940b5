//! Several containers in one guest, driven frame by frame: each call reaches the one that it names, and what is removed
//! leaves nothing.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use locule_channel::document::{Create, Exec, Failure, FailureKind, HostHello, Processes, Remove, Update};
use locule_channel::{Decoder, Ending, Frame, INIT, Scope, Side, Stream, VERSION};
use serde_json::{Value, json};

use crate::lane::{Tree, process};

// Nobody but the guest itself may be in its cgroup, or that could give no controllers to children.
const SPAWN: &str = r#"
exec unshare --pid --fork --kill-child --mount --uts --ipc --net sh -ec '
echo 0 >"$2/cgroup.procs"
mount --rbind "$1" "$1"
exec unshare --cgroup chroot "$1" /init --channel-fd "$3"' guest "$1" "$2" "$3""#;

/// A guest and the host's side of its channel.
struct Guest {
    tree: Tree,
    child: Child,
    channel: UnixStream,
    decoder: Decoder,
    /// Heard, but not asked for yet.
    heard: Vec<Frame>,
}

impl Guest {
    /// A guest whose first container runs the shell command `script`.
    fn new(script: &str) -> Guest {
        let tree = Tree::sh(script);
        let (channel, theirs) = UnixStream::pair().unwrap();
        channel.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let theirs = locule_runtime::sys::process::inheritable(OwnedFd::from(theirs), 500).unwrap();
        let child = Command::new("sh")
            .args(["-ec", SPAWN, "guest"])
            .args([&tree.dir, &tree.cgroup])
            .arg(theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let decoder = Decoder::new(Side::Guest);
        let mut guest = Guest { tree, child, channel, decoder, heard: Vec::new() };
        guest.say(Frame::HostHello(HostHello { version: VERSION, ..HostHello::default() }));
        guest
    }

    /// The same, with the first container at work.
    fn at_work(script: &str) -> (Guest, i32) {
        let mut guest = Guest::new(script);
        let config = guest.tree.config.clone();
        let pid = guest.run(INIT, "first", config);
        (guest, pid)
    }

    fn say(&mut self, frame: Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        self.channel.write_all(&bytes).unwrap();
    }

    /// The next frame that `wanted` takes, whatever comes before it.
    #[track_caller]
    fn hear<T>(&mut self, wanted: impl Fn(&Frame) -> Option<T>) -> T {
        if let Some(at) = self.heard.iter().position(|frame| wanted(frame).is_some()) {
            return wanted(&self.heard.remove(at)).unwrap();
        }
        let mut buffer = [0; 65536];
        loop {
            while let Some(frame) = self.decoder.next().unwrap() {
                match wanted(&frame) {
                    Some(told) => return told,
                    None => self.heard.push(frame),
                }
            }
            let length =
                self.channel.read(&mut buffer).unwrap_or_else(|err| panic!("{err}: {:?}", self.heard));
            assert_ne!(length, 0, "the guest has gone: {:?}", self.heard);
            self.decoder.feed(&buffer[..length]);
        }
    }

    /// Makes a container.
    fn create(&mut self, session: u32, id: &str, config: Value) -> Result<i32, Failure> {
        self.say(Frame::Create { session, create: Create { id: id.into(), config, notify: false } });
        self.hear(|frame| match frame {
            Frame::Created { session: id, running } if *id == session => Some(Ok(running.pid)),
            Frame::Failed { id, failure } if *id == session => Some(Err(failure.clone())),
            _ => None,
        })
    }

    /// Makes a container and lets it go.
    #[track_caller]
    fn run(&mut self, session: u32, id: &str, config: Value) -> i32 {
        let pid = self.create(session, id, config).unwrap();
        self.say(Frame::Start { session });
        self.hear(|frame| {
            matches!(frame, Frame::Started { session: id, .. } if *id == session).then_some(())
        });
        pid
    }

    /// The configuration of a container that runs `script` in a tree of its own.
    fn other(&self, number: u32, script: &str) -> Value {
        let root = self.tree.dir.join(format!("containers/{number}.root"));
        if !root.exists() {
            let from = self.tree.dir.join("root");
            let copied = Command::new("cp").args(["-a", "--link"]).args([&from, &root]).status().unwrap();
            assert!(copied.success());
        }
        let mut config = self.tree.config.clone();
        config["root"]["path"] = json!(format!("/containers/{number}.root"));
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["hostname"] = json!("second");
        config["linux"]["cgroupsPath"] = json!("/second");
        config
    }

    /// A request's answer.
    fn ask(&mut self, frame: Frame) -> Result<Value, Failure> {
        let (Frame::Stats { request, .. }
        | Frame::Ps { request, .. }
        | Frame::Update { request, .. }
        | Frame::Remove { request, .. }) = frame
        else {
            panic!("{frame:?} is no request")
        };
        self.say(frame);
        self.hear(|frame| match frame {
            Frame::Done { request: id, answer } if *id == request => Some(Ok(answer.clone())),
            Frame::Failed { id, failure } if *id == request => Some(Err(failure.clone())),
            _ => None,
        })
    }

    fn remove(&mut self, container: u32, trees: &[&str]) -> Result<Value, Failure> {
        let trees = trees.iter().map(|name| (*name).to_owned()).collect();
        self.ask(Frame::Remove { request: 900, remove: Remove { container, trees } })
    }

    /// The commands that run in a container.
    fn commands(&mut self, container: u32) -> Vec<String> {
        let answer = self.ask(Frame::Ps { request: 901, container }).unwrap();
        let list: Processes = serde_json::from_value(answer).unwrap();
        list.processes.into_iter().map(|process| process.command).collect()
    }

    /// Waits until just these run: what a shell executes is a shell at first.
    #[track_caller]
    fn runs(&mut self, container: u32, wanted: &[&str]) {
        let begin = std::time::Instant::now();
        loop {
            let seen = self.commands(container);
            if seen == wanted {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "{seen:?} run, not {wanted:?}");
        }
    }

    /// Executes one more process.
    fn exec(&mut self, session: u32, container: u32, script: &str) -> Result<(), Failure> {
        let process = serde_json::to_value(process(&["/bin/sh", "-c", script])).unwrap();
        self.say(Frame::Exec { session, exec: Exec { process, container, cgroup: None } });
        self.hear(|frame| match frame {
            Frame::Started { session: id, .. } if *id == session => Some(Ok(())),
            Frame::Failed { id, failure } if *id == session => Some(Err(failure.clone())),
            _ => None,
        })
    }

    /// What a process says until `end`.
    #[track_caller]
    fn output(&mut self, session: u32, end: &str) -> String {
        let mut text = String::new();
        while !text.contains(end) {
            text += &self.hear(|frame| match frame {
                Frame::Data { session: id, stream: Stream::Stdout | Stream::Stderr, bytes }
                    if *id == session =>
                {
                    Some(String::from_utf8_lossy(bytes).into_owned())
                }
                _ => None,
            });
        }
        text
    }

    /// How a process ended, and whether for lack of memory.
    #[track_caller]
    fn end(&mut self, session: u32) -> (Ending, bool) {
        let told = self.hear(|frame| match frame {
            Frame::Exited { session: id, ending, out_of_memory } if *id == session => {
                Some((*ending, *out_of_memory))
            }
            _ => None,
        });
        self.hear(|frame| matches!(frame, Frame::Flushed { session: id } if *id == session).then_some(()));
        for wanted in [Stream::Stdout, Stream::Stderr] {
            self.hear(|frame| {
                matches!(frame, Frame::Eof { session: id, stream } if (*id, *stream) == (session, wanted))
                    .then_some(())
            });
        }
        told
    }

    /// The guest's process 1, as the host calls it.
    fn process_1(&self) -> u32 {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// A path in the guest.
    fn inside(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.process_1()).into()
    }

    /// Sends the machine off.
    fn shutdown(mut self) {
        self.say(Frame::Shutdown);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const KILLED: (Ending, bool) = (Ending::Signal(9), false);

#[test]
fn two_containers_run_beside_each_other_and_each_is_reached_by_its_number() {
    let (mut guest, _) = Guest::at_work("echo one; exec sleep 2001");
    let config = guest.other(5, "echo two; exec sleep 2002");
    guest.run(5, "second", config);
    assert_eq!(guest.output(INIT, "\n"), "one\n");
    assert_eq!(guest.output(5, "\n"), "two\n");
    for (session, container, name) in [(6, INIT, "inner\n"), (7, 5, "second\n")] {
        guest.exec(session, container, "hostname").unwrap();
        assert_eq!(guest.output(session, "\n"), name);
        assert_eq!(guest.end(session), (Ending::Code(0), false));
    }
    guest.runs(INIT, &["sleep 2001"]);
    guest.runs(5, &["sleep 2002"]);
    assert!(guest.ask(Frame::Stats { request: 8, container: 5 }).unwrap().get("cpu").is_some());
    guest.say(Frame::Signal { session: 5, scope: Scope::All, signal: 9 });
    assert_eq!(guest.end(5), KILLED);
    guest.runs(INIT, &["sleep 2001"]);
    // It is there until it is removed, and its number no other's.
    assert!(guest.commands(5).is_empty());
    guest.remove(5, &[]).unwrap();
    guest.shutdown();
}

#[test]
fn what_is_removed_leaves_nothing_and_can_be_made_again() {
    let (mut guest, _) = Guest::at_work("exec sleep 2003");
    for round in 0..3 {
        let config = guest.other(5, "echo up; exec sleep 2004");
        guest.run(5, "second", config);
        guest.output(5, "up\n");
        guest.exec(6, 5, "echo up; exec sleep 2005").unwrap();
        guest.output(6, "up\n");
        // As a mount that the host's share announced, which the kernel makes where a path is walked.
        std::fs::create_dir_all(guest.tree.dir.join("containers/5.more")).unwrap();
        let mounted = Command::new("nsenter")
            .args(["-m", "-r", "-t", &guest.process_1().to_string()])
            .args(["/root/bin/busybox", "mount", "-t", "tmpfs", "more", "/containers/5.more"])
            .status()
            .unwrap();
        assert!(mounted.success());
        for path in ["/run/locule/bundle-5", "/run/locule/state/second", "/sys/fs/cgroup/second"] {
            assert!(guest.inside(path).exists(), "{path}");
        }
        guest.remove(5, &["5.root", "5.more", "5.none"]).unwrap();
        assert_eq!((guest.end(5), guest.end(6)), (KILLED, KILLED), "{round}");
        for path in ["/run/locule/bundle-5", "/run/locule/state/second", "/sys/fs/cgroup/second"] {
            assert!(!guest.inside(path).exists(), "{path}");
        }
        let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", guest.process_1())).unwrap();
        assert!(!mounts.contains("/containers/5."), "{mounts}");
        std::fs::remove_dir(guest.tree.dir.join("containers/5.more")).unwrap();
    }
    guest.runs(INIT, &["sleep 2003"]);
    guest.shutdown();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut guest = Guest::new("exec sleep 2006");
    let kind = |told: Result<i32, Failure>| told.unwrap_err().kind;
    let config = guest.other(5, "exec sleep 2007");
    assert_eq!(kind(guest.create(5, "second", config.clone())), FailureKind::State);
    let first = guest.tree.config.clone();
    guest.run(INIT, "first", first.clone());
    assert_eq!(kind(guest.create(INIT, "third", first)), FailureKind::Exists);
    assert_eq!(kind(guest.create(5, "first", config.clone())), FailureKind::Exists);
    let mut broken = config.clone();
    broken["process"]["args"] = json!(["nowhere"]);
    let failure = guest.create(5, "second", broken).unwrap_err();
    assert!(
        failure.kind == FailureKind::CommandNotFound && !failure.message.contains("second"),
        "{failure:?}"
    );
    assert!(!guest.inside("/run/locule/bundle-5").exists());
    let create = Create { id: "second".into(), config: config.clone(), notify: true };
    guest.say(Frame::Create { session: 5, create });
    guest.hear(|frame| {
        matches!(frame, Frame::Failed { id: 5, failure } if failure.kind == FailureKind::Unsupported)
            .then_some(())
    });
    guest.run(5, "second", config.clone());
    assert_eq!(kind(guest.create(5, "third", config.clone())), FailureKind::Exists);
    assert_eq!(kind(guest.create(6, "second", config)), FailureKind::Exists);
    // Nobody is called 7.
    let none = |told: Result<Value, Failure>| {
        let failure = told.unwrap_err();
        assert!(failure.message.ends_with("the guest has no container"), "{failure:?}");
        assert_eq!(failure.kind, FailureKind::State);
    };
    none(guest.exec(8, 7, "true").map(|()| Value::Null));
    none(guest.ask(Frame::Stats { request: 8, container: 7 }));
    none(guest.ask(Frame::Ps { request: 8, container: 7 }));
    none(guest.ask(Frame::Update { request: 8, update: Update { container: 7, resources: json!({}) } }));
    guest.remove(7, &["7.root"]).expect("of one that is not there the trees alone");
    guest.remove(INIT, &[]).unwrap_err();
    guest.runs(INIT, &["sleep 2006"]);
    guest.runs(5, &["sleep 2007"]);
    guest.shutdown();
}

#[test]
fn a_breach_is_refused_with_a_word() {
    let process = serde_json::to_value(process(&["/bin/true"])).unwrap();
    let exec = |session| Frame::Exec {
        session,
        exec: Exec { process: process.clone(), container: INIT, cgroup: None },
    };
    let tree = |name: &str| Frame::Remove {
        request: 8,
        remove: Remove { container: 5, trees: vec!["5.root".into(), name.into()] },
    };
    for frame in [exec(5), tree(""), tree("."), tree(".."), tree("../root"), tree("a/b"), tree("a\0")] {
        let (mut guest, _) = Guest::at_work("exec sleep 2008");
        let config = guest.other(5, "exec sleep 2009");
        guest.run(5, "second", config);
        guest.say(frame);
        guest.hear(|frame| matches!(frame, Frame::Refused { .. }).then_some(()));
    }
}

#[test]
fn one_that_joins_the_namespaces_of_the_first_sees_its_processes() {
    let (mut guest, pid) = Guest::at_work("echo up; exec sleep 2010");
    guest.output(INIT, "up\n");
    let mut config = guest.other(5, "hostname; ps; echo end; exec sleep 2011");
    config.as_object_mut().unwrap().remove("hostname");
    for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
        let kind = namespace["type"].as_str().unwrap().to_owned();
        if ["pid", "ipc", "uts"].contains(&&*kind) {
            namespace["path"] = json!(format!("/proc/{pid}/ns/{kind}"));
        }
    }
    guest.run(5, "second", config);
    let text = guest.output(5, "\nend\n");
    assert!(text.starts_with("inner\n"), "{text}");
    assert!(text.contains("1 root") && text.contains("sleep 2010"), "{text}");
    guest.runs(INIT, &["sleep 2010"]);
    guest.remove(5, &["5.root"]).unwrap();
    assert_eq!(guest.end(5), KILLED);
    guest.runs(INIT, &["sleep 2010"]);
    guest.shutdown();
}

#[test]
fn a_lack_of_memory_is_told_of_the_one_that_lacks_it() {
    let (mut guest, _) = Guest::at_work("exec sleep 2012");
    let controllers = std::fs::read_to_string(guest.inside("/sys/fs/cgroup/cgroup.controllers")).unwrap();
    if !controllers.contains("memory") {
        eprintln!("skipped: this lane has no memory controller");
        return;
    }
    let mut config = guest.other(5, "x=x; while :; do x=$x$x; done");
    config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    guest.run(5, "second", config);
    guest.hear(|frame| matches!(frame, Frame::OutOfMemory { container: 5, kills: 1 }).then_some(()));
    assert_eq!(guest.end(5), (Ending::Signal(9), true));
    guest.exec(6, INIT, "kill -9 $$").unwrap();
    assert_eq!(guest.end(6), KILLED);
    guest.shutdown();
}

#[test]
fn a_shutdown_ends_all() {
    let (mut guest, _) = Guest::at_work("echo up; exec sleep 2013");
    let config = guest.other(5, "sleep 2014 & echo up; exec sleep 2015");
    guest.run(5, "second", config);
    guest.output(5, "up\n");
    guest.say(Frame::Shutdown);
    assert_eq!((guest.end(INIT), guest.end(5)), (KILLED, KILLED));
    assert_eq!(guest.child.wait().unwrap().code(), Some(0));
}
