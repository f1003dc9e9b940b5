//! The ELF file inside a bzImage.

use std::io::Read;

use crate::x86_64::bzimage;
use crate::{Error, Result};

/// No kernel is larger, unpacked.
const LARGEST: u64 = 512 << 20;
const DOING: &str = "unpacking the kernel";

/// The `vmlinux` that a bzImage holds: gzip, zstd, LZ4 and xz are known. An ELF file is returned as it is.
pub fn extract(image: &[u8]) -> Result<Vec<u8>> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let header = bzimage::header(image)
        .ok_or_else(|| Error::refused(DOING, "it is neither an ELF file nor a bzImage"))?;
    let kernel = packed(&image[header.payload], "take the vmlinux of this kernel")?;
    if !kernel.starts_with(b"\x7fELF") {
        return Err(Error::refused(DOING, "what it holds is no ELF file"));
    }
    Ok(kernel)
}

/// A module as it is inserted, of a file that may be packed.
pub(super) fn module(file: &[u8]) -> Result<Vec<u8>> {
    packed(file, "unpack it")
}

/// Undoes a packing, which the first bytes tell; an ELF file is returned as it is.
fn packed(payload: &[u8], hint: &str) -> Result<Vec<u8>> {
    match payload {
        [0x1f, 0x8b, ..] => whole(flate2::read::GzDecoder::new(payload)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstandard(payload),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => whole(lzma_rust2::XzReader::new(payload, false)),
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4(payload),
        [b'\x7f', b'E', b'L', b'F', ..] => Ok(payload.to_vec()),
        _ => Err(Error::refused(DOING, format!("its compression is none of gzip, zstd, LZ4 and xz: {hint}"))),
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::refused(DOING, format!("it is damaged: {error}"))
}

/// Everything of a stream, up to the largest kernel. The four bytes behind it tell its size, which nobody needs.
fn whole(stream: impl Read) -> Result<Vec<u8>> {
    let mut kernel = Vec::new();
    let read = stream.take(LARGEST + 1).read_to_end(&mut kernel).map_err(broken)?;
    if read as u64 > LARGEST { Err(broken("it never ends")) } else { Ok(kernel) }
}

fn zstandard(payload: &[u8]) -> Result<Vec<u8>> {
    let mut stream = zstd::stream::read::Decoder::new(payload).map_err(broken)?.single_frame();
    // Kernels are packed with windows up to 128 MiB.
    stream.window_log_max(27).map_err(broken)?;
    whole(stream)
}

/// LZ4's old format, which the kernel keeps: blocks of at most 8 MiB unpacked, each after its packed size.
fn lz4(payload: &[u8]) -> Result<Vec<u8>> {
    const BLOCK: usize = 8 << 20;
    let mut rest = &payload[4..];
    let mut kernel = Vec::new();
    let mut block = vec![0; BLOCK];
    // What is left at the end is the unpacked size, 4 bytes.
    while rest.len() > 4 {
        let (size, packed) = rest.split_at(4);
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        let packed = packed.get(..size).ok_or_else(|| broken("a block is cut off"))?;
        let unpacked = lz4_flex::block::decompress_into(packed, &mut block).map_err(broken)?;
        kernel.extend_from_slice(&block[..unpacked]);
        if kernel.len() as u64 > LARGEST {
            return Err(broken("it never ends"));
        }
        rest = &rest[4 + size..];
    }
    Ok(kernel)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A bzImage that holds `payload`.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0u8; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image
    }

    fn kernel() -> Vec<u8> {
        b"\x7fELF".iter().copied().cycle().take(300_000).collect()
    }

    #[test]
    fn every_packing_is_undone() {
        let size = (kernel().len() as u32).to_le_bytes();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&kernel()).unwrap();
        let zstd = zstd::encode_all(kernel().as_slice(), 1).unwrap();
        let block = lz4_flex::block::compress(&kernel());
        let lz4 = [&[2, 0x21, 0x4c, 0x18][..], &(block.len() as u32).to_le_bytes(), &block].concat();
        for packed in [gzip.finish().unwrap(), zstd, lz4, kernel()] {
            let payload =
                if packed.starts_with(b"\x7fELF") { packed } else { [packed, size.to_vec()].concat() };
            assert!(extract(&image(&payload)).unwrap().starts_with(&kernel()));
        }
        assert_eq!(extract(&kernel()).unwrap(), kernel());
    }

    #[test]
    fn xz_is_undone() {
        // `printf '\177ELF' | xz --check=crc32 --x86 --lzma2=dict=4KiB`
        let packed = [
            0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x01, 0x04, 0x00,
            0x21, 0x01, 0x00, 0x00, 0xda, 0x33, 0xad, 0x03, 0x01, 0x00, 0x03, 0x7f, 0x45, 0x4c, 0x46, 0x00,
            0x51, 0xc4, 0x3a, 0xa7, 0x00, 0x01, 0x18, 0x04, 0x6b, 0xe9, 0xf0, 0xa5, 0x90, 0x42, 0x99, 0x0d,
            0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
        ];
        assert_eq!(extract(&image(&packed)).unwrap(), b"\x7fELF");
    }

    #[test]
    fn garbage_is_refused() {
        for payload in [
            &b""[..],
            b"\x1f\x8bgarbage",
            b"\x28\xb5\x2f\xfdgarbage",
            b"\x02\x21\x4c\x18\xff\xff\xff\xff0",
            b"?",
        ] {
            assert!(extract(&image(payload)).is_err());
        }
        assert!(extract(b"MZ").is_err());
    }
}
