//! Packets of a virtio socket (virtio 1.2, 5.10.6): a header, and bytes behind it for [`RW`].

/// Bytes of the header.
pub const HEADER: usize = 44;
/// The host's address.
pub const HOST: u64 = 2;
/// The kind of socket that there is: a stream.
pub const STREAM: u16 = 1;

/// Asks for a connection.
pub const REQUEST: u16 = 1;
/// Grants it.
pub const RESPONSE: u16 = 2;
/// Refuses or ends it.
pub const RST: u16 = 3;
/// Will not send, or not receive, any more: see [`NO_RECEIVE`] and [`NO_SEND`].
pub const SHUTDOWN: u16 = 4;
/// Bytes.
pub const RW: u16 = 5;
/// Tells how much room there is.
pub const CREDIT_UPDATE: u16 = 6;
/// Asks how much room there is.
pub const CREDIT_REQUEST: u16 = 7;

/// Of [`SHUTDOWN`]: the sender of this receives nothing any more.
pub const NO_RECEIVE: u32 = 1;
/// Of [`SHUTDOWN`]: the sender of this sends nothing any more.
pub const NO_SEND: u32 = 2;

/// The header of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Address of the sender.
    pub from: u64,
    /// Address of the receiver.
    pub to: u64,
    /// Port of the sender.
    pub from_port: u32,
    /// Port of the receiver.
    pub to_port: u32,
    /// Bytes behind the header.
    pub length: u32,
    /// The kind of socket.
    pub kind: u16,
    /// What is said.
    pub word: u16,
    /// More about it.
    pub flags: u32,
    /// Bytes that the sender has room for in all.
    pub room: u32,
    /// Bytes of this connection that the sender has passed on, as a count that wraps.
    pub passed: u32,
}

impl Header {
    /// Reads one; none if it is short.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let kinds = word(28)?;
        Some(Header {
            from: long(0)?,
            to: long(8)?,
            from_port: word(16)?,
            to_port: word(20)?,
            length: word(24)?,
            kind: kinds as u16,
            word: (kinds >> 16) as u16,
            flags: word(32)?,
            room: word(36)?,
            passed: word(40)?,
        })
    }

    /// Its bytes.
    pub fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.from.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.to.to_le_bytes());
        let kinds = u32::from(self.kind) | u32::from(self.word) << 16;
        let words = [self.from_port, self.to_port, self.length, kinds, self.flags, self.room, self.passed];
        for (place, word) in bytes[16..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// The refusal of this packet.
    pub fn refusal(&self) -> Header {
        Header {
            from: self.to,
            to: self.from,
            from_port: self.to_port,
            to_port: self.from_port,
            kind: self.kind,
            word: RST,
            ..Header::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            from: 3,
            to: HOST,
            from_port: 0x1234_5678,
            to_port: 52,
            length: 7,
            kind: STREAM,
            word: RW,
            flags: NO_SEND,
            room: u32::MAX,
            passed: 9,
        };
        let bytes = header.bytes();
        assert_eq!(Header::read(&bytes), Some(header));
        assert_eq!(Header::read(&bytes[..HEADER - 1]), None);
        // The specification's offsets.
        assert_eq!((bytes[0], bytes[8], bytes[20], bytes[28], bytes[30], bytes[40]), (3, 2, 52, 1, 5, 9));
    }
}
