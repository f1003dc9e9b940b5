//! The channel of a VM container, as a guest or a host that was taken over would write it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use locule_channel::{Decoder, Frame, Incoming, Outgoing, Side, WINDOW};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (side, step) = (if first & 1 == 0 { Side::Host } else { Side::Guest }, usize::from(first >> 1) + 1);
    let mut decoder = Decoder::new(side);
    'all: for piece in rest.chunks(step) {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => again(side, &frame),
                Ok(None) => break,
                Err(violation) => {
                    assert!(!violation.to_string().is_empty());
                    break 'all;
                }
            }
        }
    }
    accounts(rest);
});

/// What was understood can be said again, and is understood the same.
fn again(side: Side, frame: &Frame) {
    let mut bytes = Vec::new();
    // A text that was no UTF-8 grows as it is read.
    if frame.encode(&mut bytes).is_err() {
        return;
    }
    let mut decoder = Decoder::new(side);
    decoder.feed(&bytes);
    let said = decoder.next().expect("what was encoded").expect("a whole frame");
    // Fractions are read to a unit in the last place (serde_json's `float_roundtrip` is off); no document of ours has any.
    let value = match frame {
        Frame::Done { answer: value, .. } => Some(value),
        Frame::Update { update, .. } => Some(&update.resources),
        Frame::Create { create, .. } => Some(&create.config),
        Frame::Exec { exec, .. } => Some(&exec.process),
        _ => None,
    };
    if !value.is_some_and(has_fraction) {
        assert_eq!(&said, frame);
    }
    assert!(!decoder.is_amid());
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        _ => false,
    }
}

/// Neither account leaves the window, whatever is asked of it.
fn accounts(bytes: &[u8]) {
    let (mut sender, mut receiver) = (Outgoing::default(), Incoming::default());
    for word in bytes.chunks_exact(5) {
        let number = u32::from_le_bytes([word[1], word[2], word[3], word[4]]);
        match word[0] % 5 {
            0 => sender.spend(number as usize),
            1 => drop(sender.grant(number)),
            2 => drop(receiver.take(number as usize)),
            3 => receiver.passed(number as usize),
            _ => assert!(receiver.credit().is_none_or(|credit| credit <= WINDOW)),
        }
        assert!(sender.room() <= WINDOW as usize);
    }
}
