//! Frames to bytes and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{Ending, Frame, Scope, Stream, Violation};
use crate::{INIT, LARGEST_DATA, LARGEST_DOCUMENT, LARGEST_NOTIFICATION};

const HEADER: usize = 12;

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The monitor.
    Host,
    /// The guest.
    Guest,
}

mod kind {
    pub const HOST_HELLO: u8 = 0x01;
    pub const NETWORK: u8 = 0x02;
    pub const CREATE: u8 = 0x03;
    pub const START: u8 = 0x04;
    pub const EXEC: u8 = 0x05;
    pub const SIGNAL: u8 = 0x06;
    pub const RESIZE: u8 = 0x07;
    pub const STATS: u8 = 0x08;
    pub const PS: u8 = 0x09;
    pub const SET_TIME: u8 = 0x0a;
    pub const UPDATE: u8 = 0x0b;
    pub const SHUTDOWN: u8 = 0x0c;
    pub const NOTIFIED: u8 = 0x0d;
    pub const REMOVE: u8 = 0x0e;
    pub const DATA: u8 = 0x40;
    pub const EOF: u8 = 0x41;
    pub const CREDIT: u8 = 0x42;
    pub const CLOSE: u8 = 0x43;
    pub const REFUSED: u8 = 0x44;
    pub const GUEST_HELLO: u8 = 0x81;
    pub const CREATED: u8 = 0x82;
    pub const STARTED: u8 = 0x83;
    pub const FAILED: u8 = 0x84;
    pub const DONE: u8 = 0x85;
    pub const EXITED: u8 = 0x86;
    pub const FLUSHED: u8 = 0x87;
    pub const OUT_OF_MEMORY: u8 = 0x88;
    pub const NOTIFY: u8 = 0x89;
}

/// How the payload of a kind may be long, whether it has a stream and an id, and who sends it.
struct Form {
    least: usize,
    most: usize,
    stream: bool,
    id: bool,
    from: Option<Side>,
}

fn form(kind: u8) -> Option<Form> {
    use kind::*;
    let (least, most) = match kind {
        HOST_HELLO | NETWORK | CREATE | EXEC | UPDATE | REMOVE | GUEST_HELLO | CREATED | STARTED | FAILED
        | DONE => (1, LARGEST_DOCUMENT),
        REFUSED => (0, LARGEST_DOCUMENT),
        START | SHUTDOWN | NOTIFIED | EOF | CLOSE | FLUSHED => (0, 0),
        RESIZE | CREDIT | STATS | PS => (4, 4),
        SIGNAL | OUT_OF_MEMORY => (8, 8),
        SET_TIME | EXITED => (12, 12),
        DATA => (1, LARGEST_DATA),
        NOTIFY => (1, LARGEST_NOTIFICATION),
        _ => return None,
    };
    let from = match kind {
        DATA | EOF | CREDIT | CLOSE | REFUSED => None,
        kind if kind < DATA => Some(Side::Host),
        _ => Some(Side::Guest),
    };
    let id = matches!(
        kind,
        NETWORK
            | CREATE
            | START
            | EXEC
            | SIGNAL
            | RESIZE
            | STATS
            | PS
            | UPDATE
            | REMOVE
            | DATA
            | EOF
            | CREDIT
            | CLOSE
            | CREATED
            | STARTED
            | FAILED
            | DONE
            | EXITED
            | FLUSHED
            | OUT_OF_MEMORY
    );
    Some(Form { least, most, stream: matches!(kind, DATA | EOF | CREDIT | CLOSE), id, from })
}

/// Puts a header and the payload into `out`.
fn put(out: &mut Vec<u8>, kind: u8, part: u8, id: u32, payload: &[u8]) -> Result<(), Violation> {
    let most = form(kind).map_or(0, |form| form.most);
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= most).ok_or_else(|| {
        Violation::new(format!("a frame of kind {kind:#04x} with {} bytes, at most {most}", payload.len()))
    })?;
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[kind, part, 0, 0]);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

fn put_document(out: &mut Vec<u8>, kind: u8, id: u32, document: &impl Serialize) -> Result<(), Violation> {
    let bytes = serde_json::to_vec(document)
        .map_err(|err| Violation::new(format!("encoding a document of kind {kind:#04x}: {err}")))?;
    put(out, kind, 0, id, &bytes)
}

/// Appends a Data frame without a copy in between; `bytes` are 1 to [`LARGEST_DATA`].
pub fn encode_data(out: &mut Vec<u8>, session: u32, stream: Stream, bytes: &[u8]) -> Result<(), Violation> {
    put(out, kind::DATA, stream.number(), session, bytes)
}

impl Frame {
    /// Appends the frame to `out`, which is left as it was where the frame is too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Violation> {
        use kind::*;
        match self {
            Frame::HostHello(hello) => put_document(out, HOST_HELLO, 0, hello),
            Frame::Network { request, interface } => put_document(out, NETWORK, *request, interface),
            Frame::Create { session, create } => put_document(out, CREATE, *session, create),
            Frame::Start { session } => put(out, START, 0, *session, &[]),
            Frame::Exec { session, exec } => put_document(out, EXEC, *session, exec),
            Frame::Signal { session, scope, signal } => {
                let scope = u32::from(*scope == Scope::All);
                put(out, SIGNAL, 0, *session, &words(&[scope, *signal]))
            }
            Frame::Resize { session, rows, columns } => {
                let payload = [rows.to_le_bytes(), columns.to_le_bytes()].concat();
                put(out, RESIZE, 0, *session, &payload)
            }
            Frame::Stats { request, container } => put(out, STATS, 0, *request, &container.to_le_bytes()),
            Frame::Ps { request, container } => put(out, PS, 0, *request, &container.to_le_bytes()),
            Frame::SetTime { seconds, nanoseconds } => {
                let payload = [&seconds.to_le_bytes()[..], &nanoseconds.to_le_bytes()].concat();
                put(out, SET_TIME, 0, 0, &payload)
            }
            Frame::Update { request, update } => put_document(out, UPDATE, *request, update),
            Frame::Remove { request, remove } => put_document(out, REMOVE, *request, remove),
            Frame::Shutdown => put(out, SHUTDOWN, 0, 0, &[]),
            Frame::Notified => put(out, NOTIFIED, 0, 0, &[]),
            Frame::Data { session, stream, bytes } => encode_data(out, *session, *stream, bytes),
            Frame::Eof { session, stream } => put(out, EOF, stream.number(), *session, &[]),
            Frame::Credit { session, stream, bytes } => {
                put(out, CREDIT, stream.number(), *session, &bytes.to_le_bytes())
            }
            Frame::Close { session, stream } => put(out, CLOSE, stream.number(), *session, &[]),
            Frame::Refused { reason } => put(out, REFUSED, 0, 0, reason.as_bytes()),
            Frame::GuestHello(hello) => put_document(out, GUEST_HELLO, 0, hello),
            Frame::Created { session, running } => put_document(out, CREATED, *session, running),
            Frame::Started { session, running } => put_document(out, STARTED, *session, running),
            Frame::Failed { id, failure } => put_document(out, FAILED, *id, failure),
            Frame::Done { request, answer } => put_document(out, DONE, *request, answer),
            Frame::Exited { session, ending, out_of_memory } => {
                let (how, value) = match ending {
                    Ending::Code(code) => (0, *code),
                    Ending::Signal(signal) => (1, *signal),
                };
                put(out, EXITED, 0, *session, &words(&[how, value, u32::from(*out_of_memory)]))
            }
            Frame::Flushed { session } => put(out, FLUSHED, 0, *session, &[]),
            Frame::OutOfMemory { container, kills } => {
                put(out, OUT_OF_MEMORY, 0, *container, &kills.to_le_bytes())
            }
            Frame::Notify { message } => put(out, NOTIFY, 0, 0, message),
        }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Cuts what was received into frames.
///
/// Holds at most one frame that is not whole yet and what the caller fed last.
#[derive(Debug)]
pub struct Decoder {
    from: Side,
    bytes: Vec<u8>,
    at: usize,
}

impl Decoder {
    /// A decoder of what `from` sends.
    pub fn new(from: Side) -> Decoder {
        Decoder { from, bytes: Vec::new(), at: 0 }
    }

    /// Adds received bytes; [`Decoder::next`] is to be called until it has nothing more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a frame has begun that is not whole.
    pub fn is_amid(&self) -> bool {
        self.at < self.bytes.len()
    }

    /// The next whole frame. After a violation there is no way to go on.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame>, Violation> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, kind, part, z0, z1, i0, i1, i2, i3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let Some(form) = form(kind) else {
            return Err(Violation::new(format!("a frame of the unknown kind {kind:#04x}")));
        };
        if form.from.is_some_and(|from| from != self.from) {
            return Err(Violation::new(format!("a frame of kind {kind:#04x}, which is this side's own")));
        }
        if !(form.least..=form.most).contains(&length) {
            return Err(Violation::new(format!("a frame of kind {kind:#04x} with {length} bytes")));
        }
        if (z0, z1) != (0, 0) || (!form.stream && part != 0) || (!form.id && id != 0) {
            return Err(Violation::new(format!("a frame of kind {kind:#04x} with an unused field set")));
        }
        let stream = Stream::from_number(part)
            .ok_or_else(|| Violation::new(format!("a frame for the unknown stream {part}")))?;
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = decode(kind, stream, id, payload)?;
        let forward = match &frame {
            Frame::Data { stream, .. } | Frame::Eof { stream, .. } => Some(*stream == Stream::Stdin),
            Frame::Credit { stream, .. } | Frame::Close { stream, .. } => Some(*stream != Stream::Stdin),
            _ => None,
        };
        if forward.is_some_and(|from_host| from_host != (self.from == Side::Host)) {
            return Err(Violation::new("a frame against the direction of its stream"));
        }
        self.at += HEADER + length;
        Ok(Some(frame))
    }
}

fn decode(kind: u8, stream: Stream, id: u32, payload: &[u8]) -> Result<Frame, Violation> {
    use kind::*;
    Ok(match kind {
        HOST_HELLO => Frame::HostHello(document(kind, payload)?),
        NETWORK => Frame::Network { request: id, interface: document(kind, payload)? },
        CREATE => Frame::Create { session: id, create: document(kind, payload)? },
        START => Frame::Start { session: id },
        EXEC if id == INIT => {
            return Err(Violation::new("an exec with the id of the first container's own process"));
        }
        EXEC => Frame::Exec { session: id, exec: document(kind, payload)? },
        SIGNAL => {
            let scope = match u32_at(payload, 0)? {
                0 => Scope::Process,
                1 => Scope::All,
                _ => return Err(Violation::new("a signal of unknown scope")),
            };
            Frame::Signal { session: id, scope, signal: u32_at(payload, 4)? }
        }
        RESIZE => Frame::Resize { session: id, rows: u16_at(payload, 0)?, columns: u16_at(payload, 2)? },
        STATS => Frame::Stats { request: id, container: u32_at(payload, 0)? },
        PS => Frame::Ps { request: id, container: u32_at(payload, 0)? },
        SET_TIME => {
            let nanoseconds = u32_at(payload, 8)?;
            if nanoseconds >= 1_000_000_000 {
                return Err(Violation::new("a time with more nanoseconds than a second has"));
            }
            Frame::SetTime { seconds: u64_at(payload, 0)?, nanoseconds }
        }
        UPDATE => Frame::Update { request: id, update: document(kind, payload)? },
        REMOVE => Frame::Remove { request: id, remove: document(kind, payload)? },
        SHUTDOWN => Frame::Shutdown,
        NOTIFIED => Frame::Notified,
        DATA => Frame::Data { session: id, stream, bytes: payload.to_vec() },
        EOF => Frame::Eof { session: id, stream },
        CREDIT => Frame::Credit { session: id, stream, bytes: u32_at(payload, 0)? },
        CLOSE => Frame::Close { session: id, stream },
        REFUSED => Frame::Refused { reason: String::from_utf8_lossy(payload).into_owned() },
        GUEST_HELLO => Frame::GuestHello(document(kind, payload)?),
        CREATED => Frame::Created { session: id, running: document(kind, payload)? },
        STARTED => Frame::Started { session: id, running: document(kind, payload)? },
        FAILED => Frame::Failed { id, failure: document(kind, payload)? },
        DONE => Frame::Done { request: id, answer: document(kind, payload)? },
        EXITED => {
            let value = u32_at(payload, 4)?;
            let ending = match u32_at(payload, 0)? {
                0 => Ending::Code(value),
                1 => Ending::Signal(value),
                _ => return Err(Violation::new("an unknown way to end")),
            };
            let out_of_memory = match u32_at(payload, 8)? {
                0 => false,
                1 => true,
                _ => return Err(Violation::new("an answer that is neither yes nor no")),
            };
            Frame::Exited { session: id, ending, out_of_memory }
        }
        FLUSHED => Frame::Flushed { session: id },
        OUT_OF_MEMORY => Frame::OutOfMemory { container: id, kills: u64_at(payload, 0)? },
        NOTIFY => Frame::Notify { message: payload.to_vec() },
        _ => return Err(Violation::new(format!("a frame of the unknown kind {kind:#04x}"))),
    })
}

fn document<T: DeserializeOwned>(kind: u8, payload: &[u8]) -> Result<T, Violation> {
    serde_json::from_slice(payload)
        .map_err(|err| Violation::new(format!("a document of kind {kind:#04x}: {err}")))
}

fn short() -> Violation {
    Violation::new("a frame shorter than its kind")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Violation> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u16::from_le_bytes(*bytes))
        .ok_or_else(short)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Violation> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u32::from_le_bytes(*bytes))
        .ok_or_else(short)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Violation> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or_else(short)
}

#[cfg(test)]
mod tests;
