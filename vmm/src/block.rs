//! Disks of the guest.

use std::fs::File;

/// One disk: a raw image or a block device.
#[derive(Debug)]
pub struct Config {
    /// The image, opened for reading, and for writing unless `read_only`.
    pub file: File,
    /// The guest cannot write.
    pub read_only: bool,
    /// What `/dev/disk/by-id` shows; at most 20 bytes.
    pub id: String,
}
