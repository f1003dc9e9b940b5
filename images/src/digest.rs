//! Digests: their text, checked, and the hashing of what streams by.
//!
//! Owns the only way from text to a [`Digest`]; a digest that exists is safe as a file name
//! (CVE-2024-3727). Never trusts a length.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use ring::digest as hash;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A content digest: algorithm and lower-case hexadecimal value, as `sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`, by SHA-256.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(format!("sha256:{}", hex(hash::digest(&hash::SHA256, bytes).as_ref())))
    }

    /// The algorithm: `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The value in hexadecimal.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve hexadecimal digits, for tables.
    pub fn short(&self) -> &str {
        self.hex().get(..12).unwrap_or_default()
    }

    /// A hasher of this digest's algorithm.
    pub fn hasher(&self) -> Hasher {
        match self.algorithm() {
            "sha512" => Hasher { name: "sha512", context: hash::Context::new(&hash::SHA512) },
            _ => Hasher::sha256(),
        }
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let refuse = || {
            Error::invalid(format!(
                "the digest {text:?} is not sha256: or sha512: and lower-case hexadecimal"
            ))
        };
        let (algorithm, hex) = text.split_once(':').ok_or_else(refuse)?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(refuse()),
        };
        if hex.len() != length || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse());
        }
        Ok(Digest(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher {
    name: &'static str,
    context: hash::Context,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher of SHA-256.
    pub fn sha256() -> Hasher {
        Hasher { name: "sha256", context: hash::Context::new(&hash::SHA256) }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        Digest(format!("{}:{}", self.name, hex(self.context.finish().as_ref())))
    }
}

/// A reader or writer that hashes and counts what passes.
#[derive(Debug)]
pub struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    count: u64,
}

impl<T> Hashing<T> {
    /// Hashes what passes through `inner`.
    pub fn new(inner: T, hasher: Hasher) -> Self {
        Hashing { inner, hasher, count: 0 }
    }

    /// How many bytes passed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The digest of what passed up to now.
    pub fn so_far(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// The inner reader or writer, the digest and the number of bytes.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.count)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The identity of a stack of layers: image-spec config.md, "Layer ChainID".
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff in diff_ids {
        let next = match chain.last() {
            None => diff.clone(),
            Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|d| char::from_digit(u32::from(d), 16).unwrap_or('0'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_no_digest_is_refused() {
        let good = Digest::of(b"");
        assert_eq!(good.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(good.as_str().parse::<Digest>().unwrap(), good);
        let upper = good.as_str().to_uppercase().replace("SHA", "sha");
        for bad in
            ["", "sha256:", "../x", "sha256:../../etc/passwd", &upper, &good.as_str()[..70], "md5:d41d8"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
            assert!(serde_json::from_str::<Digest>(&format!("{bad:?}")).is_err(), "{bad}");
        }
        assert!(format!("sha512:{}", "a".repeat(128)).parse::<Digest>().is_ok());
    }

    #[test]
    fn the_first_chain_id_is_the_diff_id() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
