//! One request as the guest wrote it, read once; and the space that the guest left for the reply.

use std::ffi::CString;

use nix::errno::Errno;
use vm_memory::VolatileSlice;

use super::abi::{InHeader, Wire};

/// The most that is copied of a request that is not a WRITE: a value of an attribute and its name.
const BODY_MAX: usize = 64 * 1024 + 4096;
/// The longest name of a file.
const NAME_MAX: usize = 255;

/// Pieces of guest memory, taken from the front.
#[derive(Debug)]
pub struct Pieces<'a>(Vec<VolatileSlice<'a>>);

impl<'a> Pieces<'a> {
    /// Those pieces, in that order.
    pub fn new(slices: Vec<VolatileSlice<'a>>) -> Pieces<'a> {
        Pieces(slices)
    }

    /// All bytes together.
    pub fn len(&self) -> usize {
        self.0.iter().fold(0, |sum, slice| sum.saturating_add(slice.len()))
    }

    /// The pieces.
    pub fn slices(&self) -> &[VolatileSlice<'a>] {
        &self.0
    }

    /// Takes the first `count` bytes off; `None`, and nothing is taken, if they are not there.
    pub fn split(&mut self, count: usize) -> Option<Pieces<'a>> {
        if count > self.len() {
            return None;
        }
        let mut taken = Vec::new();
        let mut left = count;
        let mut rest = Vec::new();
        for slice in self.0.drain(..) {
            let here = slice.len().min(left);
            left -= here;
            if here > 0 {
                taken.extend(slice.subslice(0, here));
            }
            if here < slice.len() {
                rest.extend(slice.offset(here));
            }
        }
        self.0 = rest;
        Some(Pieces(taken))
    }

    /// Copies all of it, the guest being free to change it meanwhile.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        let mut at = 0;
        for slice in &self.0 {
            let end = at + slice.len();
            if let Some(part) = bytes.get_mut(at..end) {
                slice.copy_to(part);
            }
            at = end;
        }
        bytes
    }

    /// Copies `bytes` to the front; false if there is not the space.
    pub fn fill(&self, bytes: &[u8]) -> bool {
        if bytes.len() > self.len() {
            return false;
        }
        let mut rest = bytes;
        for slice in &self.0 {
            let (here, after) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(here);
            rest = after;
        }
        true
    }
}

/// A request behind its header.
#[derive(Debug)]
pub struct Request<'a> {
    /// The header.
    pub header: InHeader,
    body: Pieces<'a>,
}

impl<'a> Request<'a> {
    /// Reads the header; `None` if not even that is there.
    pub fn new(mut pieces: Pieces<'a>) -> Option<Request<'a>> {
        let header = InHeader::decode(&pieces.split(InHeader::SIZE)?.to_vec())?;
        Some(Request { header, body: pieces })
    }

    /// The whole body, copied.
    pub fn body(&mut self) -> Result<Body, Errno> {
        let length = (self.header.len as usize).checked_sub(InHeader::SIZE).ok_or(Errno::EINVAL)?;
        if length > BODY_MAX {
            return Err(Errno::E2BIG);
        }
        let bytes = self.body.split(length).ok_or(Errno::EINVAL)?.to_vec();
        Ok(Body { bytes, at: 0 })
    }

    /// A structure and the data behind it, where they lie.
    pub fn data<T: Wire>(mut self) -> Result<(T, Pieces<'a>), Errno> {
        let head = self.body.split(T::SIZE).ok_or(Errno::EINVAL)?;
        Ok((T::decode(&head.to_vec()).ok_or(Errno::EINVAL)?, self.body))
    }
}

/// The copy of a body, read from front to back.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    at: usize,
}

impl Body {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// The next structure.
    pub fn take<T: Wire>(&mut self) -> Result<T, Errno> {
        let value = T::decode(self.rest()).ok_or(Errno::EINVAL)?;
        self.at += T::SIZE;
        Ok(value)
    }

    /// The next text, without the NUL that ends it.
    pub fn text(&mut self, limit: usize) -> Result<CString, Errno> {
        let length = self.rest().iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
        if length > limit {
            return Err(Errno::ENAMETOOLONG);
        }
        let text = CString::new(self.rest().get(..length).unwrap_or_default()).map_err(|_| Errno::EINVAL)?;
        self.at += length + 1;
        Ok(text)
    }

    /// The next text, which must be the name of a file in a directory: nothing that leads elsewhere.
    pub fn name(&mut self) -> Result<CString, Errno> {
        let name = self.text(NAME_MAX)?;
        match name.as_bytes() {
            b"" => Err(Errno::ENOENT),
            b"." | b".." => Err(Errno::EINVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::EINVAL),
            _ => Ok(name),
        }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&[u8], Errno> {
        let end = self.at.checked_add(count).ok_or(Errno::EINVAL)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Errno::EINVAL)?;
        self.at = end;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_split_and_filled_across_their_borders() {
        let (mut one, mut two) = ([1u8; 3], [2u8; 4]);
        let mut pieces =
            Pieces::new(vec![VolatileSlice::from(&mut one[..]), VolatileSlice::from(&mut two[..])]);
        assert!(pieces.split(8).is_none());
        let front = pieces.split(5).unwrap();
        assert_eq!((front.to_vec(), pieces.to_vec()), (vec![1, 1, 1, 2, 2], vec![2, 2]));
        assert!(!pieces.fill(b"abc") && front.fill(b"abcd"));
        assert_eq!(front.to_vec(), b"abcd\x02");
    }

    #[test]
    fn names_lead_nowhere_else() {
        let body = |bytes: &[u8]| Body { bytes: bytes.to_vec(), at: 0 };
        for bad in [&b"\0"[..], b".\0", b"..\0", b"a/b\0", b"/\0", b"unended", b""] {
            assert!(body(bad).name().is_err(), "{bad:?}");
        }
        assert!(body(&[[b'a'; 256].as_slice(), b"\0"].concat()).name().is_err());
        let mut two = body(b"old\0...\0");
        assert_eq!(two.name().unwrap().to_bytes(), b"old");
        assert_eq!(two.name().unwrap().to_bytes(), b"...");
    }
}
