//! What the monitor of a VM container (the *host*) and `locule-guest` (the *guest*) say to each other.
//!
//! Owns the wire format, the accounts of flow control, and one end's reading and writing ([`Link`]). Makes no
//! decision, and panics on no input: either side may be taken over by its workload.
//!
//! # The wire
//! A byte stream in both directions (a port of a virtio console named [`PORT`], or any stream
//! socket), cut into frames. All numbers are little-endian.
//!
//! ```text
//!  0        4      5      6          8        12
//!  | length | kind | part | zero (2) | id     | payload: `length` bytes
//! ```
//!
//! `length` counts the payload alone: at most [`LARGEST_DATA`] for [`Frame::Data`], what its fixed form
//! says for the small frames, and at most [`LARGEST_DOCUMENT`] for those that carry a JSON document
//! (*doc* below; [`document`] has their forms). A field that is not used by a kind is zero. Anything
//! else is a [`Violation`]: whoever sees one says so by `Refused` where it still can, and stops reading.
//!
//! `id` names a session (one process, with its streams) or a request. The host chooses it, and uses
//! it for one thing at a time: [`INIT`] is the own process of the machine's first container, any other number that of a
//! later container, an `exec` or a request. It is free again after the answer to a request, after `Failed`, and, for a
//! session, after `Flushed` and the `Eof` of both output streams; that of a container only after Remove, as the session
//! of its own process is what a container is called (*container* below). `part` is a [`Stream`].
//!
//! | kind | frame | from | id | payload |
//! |---|---|---|---|---|
//! | 0x01 | Hello | host | 0 | doc [`HostHello`](document::HostHello) |
//! | 0x02 | Network | host | request | doc [`Interface`](document::Interface); answered by Done or Failed |
//! | 0x03 | Create | host | session | doc [`Create`](document::Create); answered by Created or Failed |
//! | 0x04 | Start | host | session | none; answered by Started or Failed |
//! | 0x05 | Exec | host | session | doc [`Exec`](document::Exec); answered by Started or Failed |
//! | 0x06 | Signal | host | session | u32 scope (0 the process, 1 all of the container that `id` is), u32 number; no answer |
//! | 0x07 | Resize | host | session | u16 rows, u16 columns; no answer |
//! | 0x08 | Stats | host | request | u32 container; answered by Done with [`Stats`](document) or Failed |
//! | 0x09 | Ps | host | request | u32 container; answered by Done with [`Processes`](document::Processes) or Failed |
//! | 0x0a | SetTime | host | 0 | u64 seconds, u32 nanoseconds since 1970 UTC; no answer |
//! | 0x0b | Update | host | request | doc [`Update`](document::Update); answered by Done or Failed |
//! | 0x0c | Shutdown | host | 0 | none; the guest ends what runs, writes back, and powers off |
//! | 0x0d | Notified | host | 0 | none; one more Notify is done with |
//! | 0x0e | Remove | host | request | doc [`Remove`](document::Remove); what runs in it is killed, nothing of it stays; for a container that is not there, the trees alone; answered by Done or Failed |
//! | 0x40 | Data | both | session | `part`, 1 to [`LARGEST_DATA`] bytes |
//! | 0x41 | Eof | both | session | `part`; nothing follows on that stream |
//! | 0x42 | Credit | both | session | `part`, u32: so many more bytes may be sent to me |
//! | 0x43 | Close | both | session | `part`; I take no more of that stream: who writes it is to see a closed pipe |
//! | 0x44 | Refused | both | 0 | UTF-8 text: the sender reads nothing more, and why |
//! | 0x81 | Hello | guest | 0 | doc [`GuestHello`](document::GuestHello) |
//! | 0x82 | Created | guest | session | doc [`Running`](document::Running) |
//! | 0x83 | Started | guest | session | doc [`Running`](document::Running) |
//! | 0x84 | Failed | guest | any | doc [`Failure`](document::Failure) |
//! | 0x85 | Done | guest | request | doc, `null` where nothing is to be told |
//! | 0x86 | Exited | guest | session | u32 how (0 exit code, 1 signal), u32 value, u32 out of memory (0 or 1) |
//! | 0x87 | Flushed | guest | session | none; what the process had written when it ended has been sent |
//! | 0x88 | OutOfMemory | guest | container | u64: how often the kernel has killed in the container so far |
//! | 0x89 | Notify | guest | 0 | 1 to [`LARGEST_NOTIFICATION`] bytes: what the container said by sd_notify(3), as it said it |
//!
//! # The order
//! The guest speaks first, as only it knows when it is up; the host answers with its own Hello. Both
//! carry [`VERSION`], and either refuses another version's peer. Then the host may send any frame.
//!
//! ```text
//! host                                guest
//!   |<------------------------ Hello --|
//!   | -- Hello ----------------------->|
//!   | -- Network (any number) -------->|   answered by Done
//!   | -- Create ---------------------->|   the first container is made, and waits; others at any time
//!   |<---------------------- Created --|
//!   | -- Start ----------------------->|
//!   |<---------------------- Started --|
//!   | -- Data(stdin) ----------------->|
//!   |<-------- Data(stdout), Credit ---|
//!   |<----------------------- Exited --|   the moment that the process ended
//!   |<------ Data, Eof, then Flushed --|
//!   | -- Shutdown -------------------->|
//! ```
//!
//! # Flow control
//! Each stream of a session has [`WINDOW`] bytes of credit in its one direction when the session
//! begins (with Create or Exec as sent). Data spends it, the receiver gives it back by Credit as it
//! passes the bytes on, and never beyond [`WINDOW`]. So a receiver holds at most [`WINDOW`] bytes of a
//! stream, and one that is slow stalls no other. A receiver whose own reader is gone says Close, and the sender
//! answers with Eof; of a terminal that is its hang-up. What was sent for a session that the other side has
//! ended meanwhile is dropped. At most [`MOST_NOTIFICATIONS`] Notify frames are under way at once: each is until the
//! host's Notified, which it sends when the message was taken from it or nobody wants it. The *host always reads*; the
//! guest may stop reading while it cannot write, so that the answers which it owes are bounded.

mod codec;
pub mod document;
mod flow;
mod frame;
mod link;

pub use codec::{Decoder, Side, encode_data};
pub use flow::{Incoming, Outgoing};
pub use frame::{Ending, Frame, Scope, Stream, Violation};
pub use link::Link;

/// Version of the wire format; a peer of another version is refused.
pub const VERSION: u32 = 3;

/// Name of the virtio console's port.
pub const PORT: &str = "org.locule.channel";

/// Id of the own process of a machine's first container, and so that container's.
pub const INIT: u32 = 0;

/// Most bytes in one Data frame.
pub const LARGEST_DATA: usize = 32 * 1024;

/// Most bytes in a document or text: a long `config.json` has some hundred thousand.
pub const LARGEST_DOCUMENT: usize = 4 << 20;

/// Credit of a stream when its session begins, and the most that it ever has, in bytes.
pub const WINDOW: u32 = 128 * 1024;

/// Most bytes in a message of sd_notify(3); systemd's own limit (`NOTIFY_BUFFER_MAX`).
pub const LARGEST_NOTIFICATION: usize = 4096;

/// Most Notify frames that the host has not answered yet.
pub const MOST_NOTIFICATIONS: usize = 64;

/// Most sessions at once, the containers' own processes among them.
pub const MOST_SESSIONS: usize = 1024;
