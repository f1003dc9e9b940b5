//! Limits on what an archive may ask for.
//!
//! Owns the numbers. A limit is a refusal, never a truncation.

/// The most that one layer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in the archive.
    pub entries: u64,
    /// Bytes after decompression.
    pub bytes: u64,
    /// Bytes after decompression for each compressed byte, once `ratio_from` bytes have come out.
    pub ratio: u64,
    /// Output up to this size is never judged by its ratio: a small layer may be mostly zeros.
    pub ratio_from: u64,
    /// Bytes of a path, as PATH_MAX.
    pub path: usize,
    /// Directories below one another.
    pub depth: usize,
    /// Bytes of one extended header: a long name, or a file's PAX records with its attributes.
    pub header: u64,
    /// Size of a sparse file, which costs nothing on the tape.
    pub sparse: u64,
    /// Data regions of a sparse file.
    pub regions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 8 << 20,
            bytes: 512 << 30,
            ratio: 250,
            ratio_from: 2 << 30,
            path: 4096,
            depth: 512,
            header: 1 << 20,
            sparse: 16 << 40,
            regions: 1 << 16,
        }
    }
}
