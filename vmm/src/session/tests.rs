//! The session with a guest that says what the test has it say.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use locule_channel::document::{GuestHello, HostHello, Running};
use locule_channel::{Ending, Frame, INIT, Link, Side, VERSION};
use locule_runtime::isolation::control::{Answer, Ask, CONTROL, Connection};
use locule_runtime::sys::socket;
use serde_json::Value;

use super::Session;

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

fn kills(connection: &Connection) -> u64 {
    match connection.answered().unwrap() {
        Some(Answer::Kills(kills)) => kills,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_asks_is_told_of_kills() {
    let dir = tempfile::tempdir().unwrap();
    let listener = socket::listen_at(File::open(dir.path()).unwrap(), CONTROL).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut guest = Link::new(theirs.into(), Side::Host).unwrap();
    let session = std::thread::spawn(move || {
        let mut session =
            Session::new(ours.into(), [null(), null(), null()], false, Some(listener), None).unwrap();
        session.greet(HostHello::default()).unwrap();
        session.create("web1", Value::Null).unwrap();
        session.run_until_exit().unwrap()
    });
    guest.send(&Frame::GuestHello(GuestHello { version: VERSION, ..GuestHello::default() })).unwrap();
    guest.flush();
    let mut buffer = [0; 4096];
    // What the host says arrives in its own time.
    while !matches!(guest.receive().unwrap(), Some(Frame::Create(_))) {
        guest.fill(&mut buffer);
        std::thread::yield_now();
    }
    let mut say = |frame: Frame| {
        guest.send(&frame).unwrap();
        guest.flush();
    };
    say(Frame::Created(Running::default()));

    let watcher = Connection::open(File::open(dir.path()).unwrap()).unwrap();
    watcher.ask(&Ask::Kills(None), &[]).unwrap();
    assert_eq!(kills(&watcher), 0, "without a number the answer comes at once");
    watcher.ask(&Ask::Kills(Some(0)), &[]).unwrap();
    let other = Connection::open(File::open(dir.path()).unwrap()).unwrap();
    other.ask(&Ask::Kills(None), &[]).unwrap();
    assert_eq!(kills(&other), 0, "others are served meanwhile");
    assert!(!watcher.has_answered(Duration::ZERO).unwrap(), "nothing was killed yet");

    say(Frame::OutOfMemory { kills: 2 });
    assert_eq!(kills(&watcher), 2);
    watcher.ask(&Ask::Kills(Some(1)), &[]).unwrap();
    assert_eq!(kills(&watcher), 2, "what happened while nobody asked is told");
    watcher.ask(&Ask::Kills(Some(2)), &[]).unwrap();
    // Its last words: who waits hears them, and then its end.
    say(Frame::OutOfMemory { kills: 3 });
    say(Frame::Exited { session: INIT, ending: Ending::Signal(9), out_of_memory: true });
    say(Frame::Flushed { session: INIT });
    assert_eq!(kills(&watcher), 3);
    let status = session.join().unwrap();
    assert!(status.out_of_memory && status.ending == Ending::Signal(9));
    assert!(watcher.answered().unwrap().is_none());
}
