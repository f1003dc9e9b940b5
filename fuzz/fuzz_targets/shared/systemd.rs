//! The D-Bus values of the runtime, compiled in as they stand; for the target `dbus` alone.

#[allow(dead_code, reason = "the target uses both halves of it, not all of each")]
#[path = "../../../runtime/src/cgroup/systemd/value.rs"]
pub mod value;

#[allow(dead_code, reason = "only the parser is used")]
#[path = "../../../runtime/src/cgroup/systemd/text.rs"]
pub mod text;

/// Decodes a whole message body.
pub fn decode(bytes: &[u8], signature: &str, little: bool) -> Option<Vec<value::Value>> {
    value::Reader::new(bytes, 0, little).all(signature)
}
