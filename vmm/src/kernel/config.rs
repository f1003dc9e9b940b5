//! The configuration that a kernel carries in itself (`CONFIG_IKCONFIG`).

use std::io::Read as _;

const START: &[u8] = b"IKCFG_ST";
const LARGEST: u64 = 4 << 20;

/// The text of the configuration in an unpacked kernel; none if it has none (most distributions keep it in
/// `/boot/config-VERSION` instead).
pub fn config(vmlinux: &[u8]) -> Option<String> {
    // The marks also stand in the code that looks for them: a gzip header tells the right one.
    let mut from = 0;
    while let Some(at) = find(&vmlinux[from..], START) {
        let packed = &vmlinux[from + at + START.len()..];
        if packed.starts_with(&[0x1f, 0x8b]) {
            let mut text = String::new();
            let read = flate2::read::GzDecoder::new(packed).take(LARGEST).read_to_string(&mut text);
            if read.is_ok() {
                return Some(text);
            }
        }
        from += at + START.len();
    }
    None
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    // Most bytes are not the first one; this is an order of magnitude quicker than comparing windows.
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == first) {
        if bytes[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_configuration_is_found_behind_a_false_mark() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"CONFIG_PVH=y\n").unwrap();
        let kernel = [b"IIKCFG_STx", START, &gzip.finish().unwrap(), b"IKCFG_ED"].concat();
        assert_eq!(config(&kernel).as_deref(), Some("CONFIG_PVH=y\n"));
        assert_eq!(config(b"IKCFG_ST"), None);
        assert_eq!(config(b""), None);
    }
}
