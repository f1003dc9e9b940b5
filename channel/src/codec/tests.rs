use super::*;
use crate::document::{
    Create, Exec, Failure, FailureKind, GuestHello, HostHello, Interface, Remove, Running, Time, Update,
};
use serde_json::json;

fn host_frames() -> Vec<Frame> {
    vec![
        Frame::HostHello(HostHello {
            version: 1,
            software: "locule 0.1.0".into(),
            hostname: Some("web1".into()),
            time: Some(Time { seconds: 5, nanoseconds: 6 }),
            modules: vec!["overlay".into()],
        }),
        Frame::Network { request: 7, interface: Interface { name: "eth0".into(), ..Interface::default() } },
        Frame::Create {
            session: INIT,
            create: Create { id: "web1".into(), config: json!({"ociVersion": "1.2.0"}), notify: true },
        },
        Frame::Create { session: 8, create: Create { id: "web2".into(), config: json!({}), notify: false } },
        Frame::Start { session: INIT },
        Frame::Start { session: 8 },
        Frame::Exec {
            session: 9,
            exec: Exec { process: json!({"args": ["id"]}), container: 8, cgroup: None },
        },
        Frame::Signal { session: 0, scope: Scope::All, signal: 9 },
        Frame::Resize { session: 9, rows: 24, columns: 80 },
        Frame::Stats { request: 11, container: INIT },
        Frame::Ps { request: 12, container: 8 },
        Frame::SetTime { seconds: u64::MAX, nanoseconds: 999_999_999 },
        Frame::Update {
            request: 13,
            update: Update { container: 8, resources: json!({"pids": {"limit": 5}}) },
        },
        Frame::Remove { request: 14, remove: Remove { container: 8, trees: vec!["8.root".into()] } },
        Frame::Shutdown,
        Frame::Notified,
        Frame::Data { session: u32::MAX, stream: Stream::Stdin, bytes: vec![0; LARGEST_DATA] },
        Frame::Eof { session: 9, stream: Stream::Stdin },
        Frame::Credit { session: 9, stream: Stream::Stderr, bytes: 4096 },
        Frame::Close { session: 9, stream: Stream::Stdout },
        Frame::Refused { reason: "another version".into() },
    ]
}

fn guest_frames() -> Vec<Frame> {
    vec![
        Frame::GuestHello(GuestHello { version: 1, kernel: "6.12.0".into(), ..GuestHello::default() }),
        Frame::Created { session: 8, running: Running { pid: 41, warnings: vec!["no swap".into()] } },
        Frame::Started { session: 9, running: Running { pid: 42, warnings: vec![] } },
        Frame::Failed {
            id: 9,
            failure: Failure { kind: FailureKind::CommandNotFound, message: "nothing there".into() },
        },
        Frame::Done { request: 11, answer: json!(null) },
        Frame::Exited { session: 9, ending: Ending::Code(42), out_of_memory: false },
        Frame::Exited { session: 0, ending: Ending::Signal(9), out_of_memory: true },
        Frame::Flushed { session: 9 },
        Frame::OutOfMemory { container: 8, kills: 3 },
        Frame::Notify { message: b"READY=1\nSTATUS=up".to_vec() },
        Frame::Notify { message: vec![0xff; LARGEST_NOTIFICATION] },
        Frame::Data { session: 0, stream: Stream::Stdout, bytes: b"hello".to_vec() },
        Frame::Eof { session: 0, stream: Stream::Stderr },
        Frame::Credit { session: 0, stream: Stream::Stdin, bytes: 1 },
        Frame::Close { session: 0, stream: Stream::Stdin },
    ]
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes).unwrap();
    }
    bytes
}

#[test]
fn frames_arrive_as_they_were_sent_however_they_are_cut() {
    for (from, frames) in [(Side::Host, host_frames()), (Side::Guest, guest_frames())] {
        let bytes = encoded(&frames);
        for step in [1, 7, 4096, bytes.len()] {
            let mut decoder = Decoder::new(from);
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames);
            assert!(!decoder.is_amid());
        }
    }
}

#[test]
fn a_side_cannot_speak_for_the_other() {
    for (from, frames) in [(Side::Guest, host_frames()), (Side::Host, guest_frames())] {
        for frame in frames.into_iter().filter(|frame| !matches!(frame, Frame::Refused { .. })) {
            let mut decoder = Decoder::new(from);
            decoder.feed(&encoded(std::slice::from_ref(&frame)));
            assert!(decoder.next().is_err(), "{frame:?}");
        }
    }
}

#[test]
fn what_breaks_the_form_is_refused_before_it_is_waited_for() {
    let header = |length: u32, kind: u8, part: u8, zero: u8, id: u32| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend([kind, part, zero, 0]);
        bytes.extend(id.to_le_bytes());
        bytes
    };
    for bytes in [
        header(0, 0, 0, 0, 0),
        header(0, 0xff, 0, 0, 0),
        header(u32::MAX, kind::CREATE, 0, 0, 0),
        header(LARGEST_DATA as u32 + 1, kind::DATA, 0, 0, 0),
        header(0, kind::DATA, 0, 0, 0),
        header(1, kind::START, 0, 0, 0),
        header(0, kind::START, 1, 0, 0),
        header(0, kind::START, 0, 1, 0),
        header(0, kind::SHUTDOWN, 0, 0, 1),
        header(0, kind::STATS, 0, 0, 1),
        header(0, kind::EOF, 3, 0, 0),
        header(3, kind::RESIZE, 0, 0, 0),
        [header(4, kind::EXEC, 0, 0, 0), b"null".to_vec()].concat(),
        [header(4, kind::EXEC, 0, 0, 1), b"null".to_vec()].concat(),
        header(1, kind::NOTIFIED, 0, 0, 0),
        header(0, kind::NOTIFIED, 0, 0, 1),
        [header(8, kind::SIGNAL, 0, 0, 1), vec![2, 0, 0, 0, 9, 0, 0, 0]].concat(),
        [header(12, kind::SET_TIME, 0, 0, 0), vec![0xff; 12]].concat(),
    ] {
        let mut decoder = Decoder::new(Side::Host);
        decoder.feed(&bytes);
        assert!(decoder.next().is_err(), "{bytes:?}");
    }
    for bytes in [
        header(0, kind::NOTIFY, 0, 0, 0),
        header(LARGEST_NOTIFICATION as u32 + 1, kind::NOTIFY, 0, 0, 0),
        header(1, kind::NOTIFY, 0, 0, 1),
        header(1, kind::NOTIFY, 1, 0, 0),
    ] {
        let mut decoder = Decoder::new(Side::Guest);
        decoder.feed(&bytes);
        assert!(decoder.next().is_err(), "{bytes:?}");
    }
}

#[test]
fn what_is_too_long_is_not_sent() {
    let mut out = vec![1];
    let long = Frame::Data { session: 1, stream: Stream::Stdout, bytes: vec![0; LARGEST_DATA + 1] };
    assert!(long.encode(&mut out).is_err());
    let long = Frame::Notify { message: vec![b'x'; LARGEST_NOTIFICATION + 1] };
    assert!(long.encode(&mut out).is_err());
    let reason = "x".repeat(LARGEST_DOCUMENT + 1);
    assert!(Frame::Refused { reason }.encode(&mut out).is_err());
    assert_eq!(out, [1]);
}

#[test]
fn a_kind_of_failure_that_is_not_known_is_the_systems() {
    let failure: Failure = serde_json::from_value(json!({"kind": "Astrology", "message": "m"})).unwrap();
    assert_eq!(failure.kind, FailureKind::System);
}
