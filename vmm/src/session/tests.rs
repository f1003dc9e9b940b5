//! The session with a guest that says what the test has it say.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locule_channel::document::{Failure, FailureKind, GuestHello, HostHello, Running};
use locule_channel::{Ending, Frame, INIT, Link, Scope, Side, Stream, VERSION};
use locule_runtime::error::{Error, Kind, Result};
use locule_runtime::isolation::control::{Answer, Ask, CONTROL, Connection, Newcomer};
use locule_runtime::sys::socket;
use serde_json::Value;

use super::{Session, Status, Trees};

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

fn kills(connection: &Connection) -> u64 {
    match connection.answered().unwrap() {
        Some(Answer::Kills(kills)) => kills,
        other => panic!("{other:?}"),
    }
}

/// A guest that says what the test has it say, and the host's session with it.
struct Told {
    guest: Link,
    dir: tempfile::TempDir,
    session: std::thread::JoinHandle<Status>,
    shown: Arc<Mutex<Vec<String>>>,
}

/// What is shown of other containers, by name.
struct Shown(Arc<Mutex<Vec<String>>>);

impl Trees for Shown {
    fn add(&mut self, name: &str, _: OwnedFd) -> Result<()> {
        if name == "bad" {
            return Err(Error::invalid("no such tree"));
        }
        self.0.lock().unwrap().push(name.to_owned());
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        self.0.lock().unwrap().retain(|shown| shown != name);
    }
}

impl Told {
    /// The container `first` is made, as process 41 of the guest.
    fn new() -> Told {
        let dir = tempfile::tempdir().unwrap();
        let listener = socket::listen_at(File::open(dir.path()).unwrap(), CONTROL).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let trees = Shown(shown.clone());
        let session = std::thread::spawn(move || {
            let mut session =
                Session::new(ours.into(), [null(), null(), null()], false, Some(listener), None).unwrap();
            session.take_others(trees);
            session.greet(HostHello::default()).unwrap();
            session.create("first", Value::Null).unwrap();
            session.run_until_exit().unwrap()
        });
        let mut told = Told { guest: Link::new(theirs.into(), Side::Host).unwrap(), dir, session, shown };
        told.say(Frame::GuestHello(GuestHello { version: VERSION, ..GuestHello::default() }));
        told.hear(|frame| matches!(frame, Frame::Create { session: INIT, .. }));
        told.say(Frame::Created { session: INIT, running: Running { pid: 41, ..Running::default() } });
        told
    }

    fn say(&mut self, frame: Frame) {
        self.guest.send(&frame).unwrap();
        self.guest.flush();
    }

    /// The next frame that is meant. What the host says arrives in its own time.
    fn hear(&mut self, meant: impl Fn(&Frame) -> bool) -> Frame {
        let mut buffer = [0; 4096];
        loop {
            while let Some(frame) = self.guest.receive().unwrap() {
                if meant(&frame) {
                    return frame;
                }
            }
            self.guest.fill(&mut buffer);
            std::thread::yield_now();
        }
    }

    fn caller(&self) -> Connection {
        Connection::open(File::open(self.dir.path()).unwrap()).unwrap()
    }

    /// The process of `session` ends, with nothing left of what it wrote.
    fn end(&mut self, session: u32, ending: Ending, out_of_memory: bool) {
        self.say(Frame::Exited { session, ending, out_of_memory });
        self.say(Frame::Flushed { session });
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.say(Frame::Eof { session, stream });
        }
    }

    fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap().clone()
    }

    /// Asks for a container that brings `trees`, and joins the first one's ipc namespace.
    fn ask_for(&self, id: &str, trees: &[&str]) -> Connection {
        let document =
            serde_json::json!({"linux": {"namespaces": [{"type": "pid"}, {"type": "ipc", "path": "/x"}]}});
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(document.to_string().as_bytes()).unwrap();
        file.rewind().unwrap();
        let mut fds = vec![OwnedFd::from(file)];
        fds.extend((0..3 + trees.len()).map(|_| null()));
        let newcomer = Newcomer {
            id: id.to_owned(),
            trees: trees.iter().map(|name| (*name).to_owned()).collect(),
            joins: vec![("ipc".into(), "first".into())],
            ..Newcomer::default()
        };
        let caller = self.caller();
        caller
            .ask(&Ask::Create(Box::new(newcomer)), &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>())
            .unwrap();
        caller
    }

    /// The guest is asked to make container `id`; its number.
    fn hear_of(&mut self, id: &str) -> u32 {
        match self.hear(|frame| matches!(frame, Frame::Create { .. })) {
            Frame::Create { session, create } => {
                assert_eq!((create.id.as_str(), create.notify), (id, false));
                assert_eq!(create.config["linux"]["namespaces"][1]["path"], "/proc/41/ns/ipc");
                session
            }
            other => panic!("{other:?}"),
        }
    }

    /// The guest is asked to remove container `number`, with the trees that nobody has any more, and does; then to look for
    /// these once more.
    fn hear_removal(&mut self, number: u32, trees: &[&str]) {
        self.hear_of_end(number, trees);
        self.hear_of_end(number, trees);
    }

    fn hear_of_end(&mut self, number: u32, trees: &[&str]) {
        match self.hear(|frame| matches!(frame, Frame::Remove { .. })) {
            Frame::Remove { request, remove } => {
                assert_eq!(
                    (remove.container, remove.trees),
                    (number, trees.iter().map(|name| (*name).to_owned()).collect())
                );
                self.say(Frame::Done { request, answer: Value::Null });
            }
            other => panic!("{other:?}"),
        }
    }
}

fn answer(caller: &Connection) -> Answer {
    caller.answered().unwrap().unwrap()
}

#[test]
fn another_container_comes_and_goes() {
    let mut told = Told::new();
    let one = told.ask_for("one", &["root1", "volume"]);
    let number = told.hear_of("one");
    told.say(Frame::Created { session: number, running: Running { pid: 50, warnings: vec!["so".into()] } });
    assert!(matches!(answer(&one), Answer::Created(warnings) if warnings == ["so"]));
    let two = told.ask_for("two", &["root2", "volume"]);
    let second = told.hear_of("two");
    told.say(Frame::Created { session: second, running: Running::default() });
    assert!(matches!(answer(&two), Answer::Created(_)));
    assert_eq!(told.shown(), ["root1", "volume", "root2"], "what both bring is there once");

    one.ask(&Ask::Start, &[]).unwrap();
    told.hear(|frame| *frame == Frame::Start { session: number });
    told.say(Frame::Started { session: number, running: Running::default() });
    assert!(matches!(answer(&one), Answer::Started));
    one.ask(&Ask::Signal(15), &[]).unwrap();
    told.hear(|frame| *frame == Frame::Signal { session: number, scope: Scope::Process, signal: 15 });

    // What is asked behind `In` is about that one.
    let asker = told.caller();
    asker.ask(&Ask::In("one".into()), &[]).unwrap();
    asker.ask(&Ask::Processes, &[]).unwrap();
    told.hear(|frame| matches!(frame, Frame::Ps { container, .. } if *container == number));
    let stranger = told.caller();
    stranger.ask(&Ask::In("three".into()), &[]).unwrap();
    assert!(matches!(answer(&stranger), Answer::Failed(err) if err.kind() == Kind::NotRunning));
    let watcher = told.caller();
    watcher.ask(&Ask::In("one".into()), &[]).unwrap();
    watcher.ask(&Ask::Kills(Some(0)), &[]).unwrap();
    told.say(Frame::OutOfMemory { container: second, kills: 7 });
    told.say(Frame::OutOfMemory { container: number, kills: 2 });
    assert_eq!(kills(&watcher), 2, "another's kills are not its own");

    // Who waits for the end hears of it when nothing is left.
    let waits = told.caller();
    waits.ask(&Ask::Gone("one".into()), &[]).unwrap();
    told.end(number, Ending::Code(5), false);
    told.hear_removal(number, &["root1"]);
    assert!(matches!(answer(&one), Answer::Exited(5)));
    assert!(matches!(answer(&waits), Answer::Done));
    assert_eq!(told.shown(), ["volume", "root2"]);

    // Killed: its process on the host is gone, and so is what it stood for.
    drop(two);
    told.hear(|frame| *frame == Frame::Signal { session: second, scope: Scope::Process, signal: 9 });
    told.hear_removal(second, &["root2", "volume"]);
    let waits = told.caller();
    waits.ask(&Ask::Gone("two".into()), &[]).unwrap();
    assert!(matches!(answer(&waits), Answer::Done));
    assert!(told.shown().is_empty());

    told.end(INIT, Ending::Code(0), false);
    assert_eq!(told.session.join().unwrap().ending, Ending::Code(0));
}

#[test]
fn what_is_no_container_leaves_nothing() {
    let mut told = Told::new();
    assert!(
        matches!(answer(&told.ask_for("first", &["root"])), Answer::Failed(err) if err.kind() == Kind::Exists)
    );
    assert!(matches!(answer(&told.ask_for("one", &["root", "bad"])), Answer::Failed(_)));
    assert!(told.shown().is_empty());
    let caller = told.caller();
    caller.ask(&Ask::Create(Box::new(Newcomer { id: "one".into(), ..Newcomer::default() })), &[]).unwrap();
    assert!(matches!(answer(&caller), Answer::Failed(err) if err.kind() == Kind::Invalid));
    let caller = told.caller();
    caller.ask(&Ask::Start, &[]).unwrap();
    assert!(matches!(answer(&caller), Answer::Failed(_)));

    // The guest cannot make it.
    let one = told.ask_for("one", &["root"]);
    let number = told.hear_of("one");
    let failure = Failure { kind: FailureKind::CommandNotFound, message: "no such program".into() };
    told.say(Frame::Failed { id: number, failure: failure.clone() });
    assert!(matches!(answer(&one), Answer::Failed(err) if err.kind() == Kind::CommandNotFound));
    told.hear_removal(number, &["root"]);

    // It was killed while the guest was at it, whose answer comes first.
    let one = told.ask_for("one", &["root"]);
    let number = told.hear_of("one");
    drop(one);
    told.hear(|frame| *frame == Frame::Signal { session: number, scope: Scope::Process, signal: 9 });
    told.say(Frame::Created { session: number, running: Running::default() });
    told.hear_removal(number, &["root"]);

    // It cannot be started.
    let one = told.ask_for("one", &["root"]);
    let number = told.hear_of("one");
    told.say(Frame::Created { session: number, running: Running::default() });
    assert!(matches!(answer(&one), Answer::Created(_)));
    one.ask(&Ask::Start, &[]).unwrap();
    told.hear(|frame| *frame == Frame::Start { session: number });
    told.say(Frame::Failed { id: number, failure });
    assert!(matches!(answer(&one), Answer::Failed(_)));
    told.hear_removal(number, &["root"]);

    let waits = told.caller();
    waits.ask(&Ask::Gone("one".into()), &[]).unwrap();
    assert!(matches!(answer(&waits), Answer::Done));
    assert!(told.shown().is_empty());
    told.end(INIT, Ending::Code(0), false);
    told.session.join().unwrap();
}

#[test]
fn who_asks_is_told_of_kills() {
    let mut told = Told::new();
    let watcher = told.caller();
    watcher.ask(&Ask::Kills(None), &[]).unwrap();
    assert_eq!(kills(&watcher), 0, "without a number the answer comes at once");
    watcher.ask(&Ask::Kills(Some(0)), &[]).unwrap();
    let other = told.caller();
    other.ask(&Ask::Kills(None), &[]).unwrap();
    assert_eq!(kills(&other), 0, "others are served meanwhile");
    assert!(!watcher.has_answered(Duration::ZERO).unwrap(), "nothing was killed yet");

    told.say(Frame::OutOfMemory { container: INIT, kills: 2 });
    assert_eq!(kills(&watcher), 2);
    watcher.ask(&Ask::Kills(Some(1)), &[]).unwrap();
    assert_eq!(kills(&watcher), 2, "what happened while nobody asked is told");
    watcher.ask(&Ask::Kills(Some(2)), &[]).unwrap();
    // Its last words: who waits hears them, and then its end.
    told.say(Frame::OutOfMemory { container: INIT, kills: 3 });
    told.end(INIT, Ending::Signal(9), true);
    assert_eq!(kills(&watcher), 3);
    let status = told.session.join().unwrap();
    assert!(status.out_of_memory && status.ending == Ending::Signal(9));
    assert!(watcher.answered().unwrap().is_none());
}
