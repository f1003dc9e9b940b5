//! Annotations as D-Bus values, and D-Bus bytes as values: what is encoded is decoded the same.
//!
//! The two modules are compiled in as they stand.
#![no_main]

use libfuzzer_sys::fuzz_target;
// What the modules call `crate`.
use locule_runtime::{error, spec};

#[path = "shared/systemd.rs"]
mod systemd;

use systemd::value::Value;

fuzz_target!(|input: &[u8]| {
    let Some((way, rest)) = input.split_first() else { return };
    if way % 2 == 0 {
        let Some(value) = std::str::from_utf8(rest).ok().and_then(systemd::text::parse) else { return };
        there_and_back(&value);
        return;
    }
    // A signature, a NUL, and the bytes that claim to be of it.
    let Some(at) = rest.iter().position(|byte| *byte == 0) else { return };
    let Ok(signature) = std::str::from_utf8(&rest[..at]) else { return };
    for value in systemd::decode(&rest[at + 1..], signature, way & 2 == 0).unwrap_or_default() {
        there_and_back(&value);
    }
});

fn there_and_back(value: &Value) {
    let mut bytes = Vec::new();
    value.encode(&mut bytes);
    let decoded = systemd::decode(&bytes, &value.signature(), cfg!(target_endian = "little"));
    let mut again = Vec::new();
    decoded.iter().flatten().for_each(|value| value.encode(&mut again));
    // Compared as bytes, as NaN is no equal of itself.
    assert_eq!(again, bytes, "{value:?} became {decoded:?}");
}
