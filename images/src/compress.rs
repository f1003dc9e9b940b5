//! Compression: told by the first bytes, undone within bounds.
//!
//! Owns the limit on how much may come out of how little. Never trusts a media type for what the
//! bytes themselves tell.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::manifest::media;
use crate::unpack::Limits;

/// The largest window of a Zstandard frame: 128 MiB, as zstd itself has it.
const WINDOW_LOG: u32 = 27;

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// What `start`, the first bytes, say.
    pub fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame, as zstd:chunked may begin with.
            [b, 0x2a, 0x4d, 0x18, ..] if b & 0xf0 == 0x50 => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// Reads the word of a command line.
    pub fn parse(text: &str) -> Result<Compression> {
        match text {
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "zstd" => Ok(Compression::Zstd),
            other => Err(Error::invalid(format!("the compression {other:?} is none of gzip, zstd, none"))),
        }
    }

    /// The media type of a layer compressed so.
    pub fn layer(self) -> &'static str {
        match self {
            Compression::None => media::LAYER,
            Compression::Gzip => media::LAYER_GZIP,
            Compression::Zstd => media::LAYER_ZSTD,
        }
    }

    /// A writer that compresses.
    pub fn writer<'a, W: Write + 'a>(self, inner: W) -> io::Result<Compressor<'a, W>> {
        Ok(match self {
            Compression::None => Compressor::None(inner),
            Compression::Gzip => {
                Compressor::Gzip(flate2::write::GzEncoder::new(inner, flate2::Compression::new(6)))
            }
            Compression::Zstd => Compressor::Zstd(zstd::stream::write::Encoder::new(inner, 3)?),
        })
    }
}

/// A compressing writer.
pub enum Compressor<'a, W: Write> {
    /// Passes through.
    None(W),
    /// gzip.
    Gzip(flate2::write::GzEncoder<W>),
    /// Zstandard.
    Zstd(zstd::stream::write::Encoder<'a, W>),
}

impl<W: Write> Compressor<'_, W> {
    /// Writes the end and gives the inner writer back.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(inner) => Ok(inner),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(inner) => inner.write(buf),
            Compressor::Gzip(encoder) => encoder.write(buf),
            Compressor::Zstd(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(inner) => inner.flush(),
            Compressor::Gzip(encoder) => encoder.flush(),
            Compressor::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// Counts the bytes that go in.
struct Counting<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Keeps what comes out in proportion to what went in.
struct Bounded<R> {
    inner: R,
    taken: Arc<AtomicU64>,
    given: u64,
    limits: Limits,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.given += n as u64;
        let allowed = self.taken.load(Ordering::Relaxed).saturating_mul(self.limits.ratio);
        if self.given > self.limits.bytes {
            return Err(
                Error::corrupt(format!("the layer is larger than {} bytes", self.limits.bytes)).into()
            );
        }
        if self.given > self.limits.ratio_from && self.given > allowed {
            return Err(Error::corrupt(format!(
                "the layer grows to more than {} times its size: it looks made to fill the disk",
                self.limits.ratio
            ))
            .into());
        }
        Ok(n)
    }
}

/// What is compressed in `inner`, whatever way it is.
pub fn reader<'a>(inner: impl Read + Send + 'a, limits: &Limits) -> io::Result<Box<dyn Read + Send + 'a>> {
    let taken = Arc::new(AtomicU64::new(0));
    let counting = Counting { inner, count: taken.clone() };
    let mut inner = BufReader::with_capacity(256 << 10, counting);
    let mut start = inner.fill_buf()?.to_vec();
    start.truncate(4);
    let plain: Box<dyn Read + Send> = match Compression::of(&start) {
        // What is not compressed cannot grow.
        Compression::None => return Ok(Box::new(inner)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(inner)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(inner)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    Ok(Box::new(Bounded { inner: plain, taken, given: 0, limits: *limits }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(kind: Compression, bytes: &[u8]) -> Vec<u8> {
        let mut writer = kind.writer(Vec::new()).unwrap();
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let text: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for kind in [Compression::None, Compression::Gzip, Compression::Zstd] {
            // Two members or frames in a row are one stream, as gzip and zstd have it.
            let mut bytes = squeezed(kind, &text);
            bytes.extend(squeezed(kind, &text));
            let mut out = Vec::new();
            reader(bytes.as_slice(), &Limits::default()).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, [text.clone(), text.clone()].concat(), "{kind:?}");
            if kind != Compression::None {
                let cut = &bytes[..bytes.len() - 5];
                assert!(reader(cut, &Limits::default()).unwrap().read_to_end(&mut Vec::new()).is_err());
            }
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let zeros = vec![0; 2 << 20];
        let limits = Limits { ratio_from: 1 << 20, ..Limits::default() };
        for kind in [Compression::Gzip, Compression::Zstd] {
            let bomb = squeezed(kind, &zeros);
            let told = io::copy(&mut reader(bomb.as_slice(), &limits).unwrap(), &mut io::sink()).unwrap_err();
            assert!(told.to_string().contains("fill the disk"), "{told}");
            assert!(
                io::copy(&mut reader(bomb.as_slice(), &Limits::default()).unwrap(), &mut io::sink()).is_ok()
            );
        }
        let limits = Limits { bytes: 1 << 20, ..Limits::default() };
        let bomb = squeezed(Compression::Gzip, &zeros);
        assert!(io::copy(&mut reader(bomb.as_slice(), &limits).unwrap(), &mut io::sink()).is_err());
    }
}
