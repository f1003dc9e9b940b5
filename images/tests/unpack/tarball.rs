//! Archives byte by byte, as no well-behaved writer would make them.

/// An archive in the making.
#[derive(Default, Clone)]
pub struct Tarball(pub Vec<u8>);

/// A header's fields, before its checksum.
#[derive(Clone)]
pub struct Header(pub [u8; 512]);

impl Header {
    /// A ustar header for `name` of the type `flag`.
    pub fn new(name: &str, flag: u8, size: u64) -> Header {
        let mut block = [0u8; 512];
        block[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        block[100..108].copy_from_slice(b"0000644\0");
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[136..148].copy_from_slice(b"00000000017\0");
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Header(block)
    }

    /// Puts `text` at `at`.
    pub fn put(mut self, at: usize, text: &[u8]) -> Header {
        self.0[at..at + text.len()].copy_from_slice(text);
        self
    }

    /// The permission bits.
    pub fn mode(self, mode: u32) -> Header {
        self.put(100, format!("{mode:07o}\0").as_bytes())
    }

    /// Owner and group.
    pub fn owner(self, uid: u32, gid: u32) -> Header {
        self.put(108, format!("{uid:07o}\0{gid:07o}\0").as_bytes())
    }

    /// The target of a link.
    pub fn link(self, target: &str) -> Header {
        self.put(157, target.as_bytes())
    }

    /// A device's numbers.
    pub fn device(self, major: u32, minor: u32) -> Header {
        self.put(329, format!("{major:07o}\0{minor:07o}\0").as_bytes())
    }

    fn sum(mut self) -> [u8; 512] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Tarball {
    /// An entry from its header and data, padded.
    pub fn raw(mut self, header: Header, data: &[u8]) -> Tarball {
        self.0.extend_from_slice(&header.sum());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A regular file.
    pub fn file(self, name: &str, data: &[u8]) -> Tarball {
        self.raw(Header::new(name, b'0', data.len() as u64), data)
    }

    /// A directory with mode 0755.
    pub fn dir(self, name: &str) -> Tarball {
        self.raw(Header::new(name, b'5', 0).mode(0o755), b"")
    }

    /// A symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Tarball {
        self.raw(Header::new(name, b'2', 0).mode(0o777).link(target), b"")
    }

    /// A hard link.
    pub fn link(self, name: &str, target: &str) -> Tarball {
        self.raw(Header::new(name, b'1', 0).link(target), b"")
    }

    /// A PAX header for the entry that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tarball {
        let mut text = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        let header = Header::new("PaxHeaders/x", b'x', text.len() as u64);
        self.raw(header, &text)
    }

    /// The whole archive with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
