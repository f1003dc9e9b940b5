//! The fork protocol's packets, as whoever holds the other end could send them.
#![no_main]

mod shared;

use std::os::fd::{AsRawFd, OwnedFd};

use libfuzzer_sys::fuzz_target;
use locule_runtime::process::channel::{Channel, Message};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

fuzz_target!(|bytes: &[u8]| {
    let (ours, theirs): (OwnedFd, OwnedFd) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
    // Packets are divided by the byte that no text has.
    for packet in bytes.split(|byte| *byte == 0xff).take(8) {
        send(theirs.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT).expect("a packet");
    }
    drop(theirs);
    let channel = Channel::over(ours);
    for _ in 0..8 {
        match channel.recv() {
            Ok(Some(message @ (Message::Failed(_) | Message::Warning(_) | Message::Init(_)))) => {
                again(&message)
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(err) => shared::refused(&err),
        }
    }
});

/// What was understood can be said again, and is understood the same.
fn again(message: &Message) {
    let (one, other) = Channel::pair().expect("a pair");
    one.send(message).expect("sending what was received");
    let said = other.recv().expect("receiving it").expect("it was sent");
    let same = match (message, &said) {
        (Message::Failed(one), Message::Failed(other)) => one.kind() == other.kind(),
        (Message::Warning(one), Message::Warning(other)) => {
            one.starts_with(other.trim_end_matches('\u{fffd}'))
        }
        (one, other) => format!("{one:?}") == format!("{other:?}"),
    };
    assert!(same, "{message:?} became {said:?}");
}
