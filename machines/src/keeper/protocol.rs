//! What is said over a machine's console socket (`RUN/.machines/NAME/keeper.sock`, `SOCK_SEQPACKET`).
//!
//! A packet is one byte and what belongs to it:
//!
//! ```text
//! client → keeper   A flags        attach: show the last output, then what comes
//!                   I bytes        type them
//!                   S rows columns the client's size in characters, two little-endian u16
//!                   T              hand the terminal over (a new keeper to what an old one left behind)
//! keeper → client   O bytes        output
//!                   E text         the machine has ended, in words; it may start again
//!                   F text         refused, in words
//!                   T              what was asked for; the terminal's master comes with it if there is one
//! ```
//!
//! Closing the socket detaches. Only the keeper's own user and root are heard (`SO_PEERCRED`).

/// Attach.
pub const ATTACH: u8 = b'A';
/// Type.
pub const INPUT: u8 = b'I';
/// Set the size.
pub const SIZE: u8 = b'S';
/// Hand over.
pub const TAKE: u8 = b'T';
/// Output.
pub const OUTPUT: u8 = b'O';
/// The machine has ended.
pub const ENDED: u8 = b'E';
/// Refused.
pub const REFUSED: u8 = b'F';

/// Flag of [`ATTACH`]: without the last output.
pub const WITHOUT_PAST: u8 = 1;

/// The socket's name in the machine's runtime directory.
pub const SOCKET: &str = "keeper.sock";
/// Most bytes of a packet.
pub const LONGEST: usize = 8192;

/// Words between a keeper and its attendant, over a socketpair, in the same form.
pub mod inner {
    /// To the attendant: a machine begins, its terminal's master comes with it if it has one, then a pidfd of its init.
    pub const BEGIN: u8 = b'B';
    /// To the attendant: it has ended, in words; read what is left.
    pub const END: u8 = b'E';
    /// To the attendant: nothing more will come.
    pub const LEAVE: u8 = b'X';
    /// To the attendant: another log, as in `machine.toml` but in JSON; the descriptor it writes to comes with it if any.
    pub const LOG: u8 = b'L';
    /// To the keeper: what was left is read and written.
    pub const DRAINED: u8 = b'D';
    /// To the keeper: what the machine says to its service manager, sifted.
    pub const NOTIFY: u8 = b'N';
    /// To the keeper: something went wrong here, in words.
    pub const TROUBLE: u8 = b'W';
}

/// A packet.
pub fn packet(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + bytes.len());
    out.push(kind);
    out.extend_from_slice(bytes);
    out
}

/// The size of a [`SIZE`] packet: rows, columns.
pub fn size(bytes: &[u8]) -> Option<(u16, u16)> {
    match bytes {
        [a, b, c, d] => Some((u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))),
        _ => None,
    }
}
