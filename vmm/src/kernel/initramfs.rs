//! The first file system of a kernel that has its virtio drivers as modules: a cpio archive in the form "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst), unpacked by the kernel.
//!
//! It holds `/init`, and the modules below `/early` with names in the order of their insertion. What `/init` then does is
//! its own affair.

use super::unpack;
use crate::{Error, Result};

/// Where the modules are.
const EARLY: &str = "early";

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

/// The archive with `init` as its program, and `modules` (file name, content as it lies on disk) in their order.
pub fn initramfs(init: &[u8], modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.add(EARLY, DIRECTORY, &[]);
    archive.add("init", PROGRAM, init);
    for (number, (file, packed)) in modules.iter().enumerate() {
        let base = file.rsplit('/').next().unwrap_or(file);
        let name = base.split_once(".ko").map_or(base, |(name, _)| name);
        let module = unpack::module(packed).map_err(|error| {
            Error::refused(format!("unpacking the kernel module {file}"), error.to_string())
        })?;
        archive.add(&format!("{EARLY}/{number:03}-{name}.ko"), FILE, &module);
    }
    Ok(archive.end())
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        self.entry(name, self.entries, mode, content);
    }

    fn entry(&mut self, name: &str, inode: u32, mode: u32, content: &[u8]) {
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        self.bytes.extend(b"070701");
        // Inode, mode, owner, group, links, time, size, device, device of a node, length of the name, no checksum.
        let (size, length) = (content.len() as u32, name.len() as u32 + 1);
        for field in [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, length, 0] {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_unpacks_what_was_put_in() {
        let gzip = {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(b"\x7fELF two").unwrap();
            gzip.finish().unwrap()
        };
        let modules = [
            ("kernel/b/one-a.ko".to_owned(), b"\x7fELF one".to_vec()),
            ("kernel/a/two.ko.gz".to_owned(), gzip),
            ("two_b.ko.zst".to_owned(), zstd::encode_all(&b"\x7fELF three"[..], 1).unwrap()),
        ];
        let archive = initramfs(b"#!program", &modules).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["-idm", "--quiet"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(cpio.wait().unwrap().success());
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("init"), b"#!program");
        assert_eq!(read("early/000-one-a.ko"), b"\x7fELF one");
        assert_eq!(read("early/001-two.ko"), b"\x7fELF two");
        assert_eq!(read("early/002-two_b.ko"), b"\x7fELF three");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &dir.path().join("init").metadata().unwrap().permissions(),
        );
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn what_is_no_module_is_refused_by_its_name() {
        let told = initramfs(b"", &[("kernel/x.ko.xz".to_owned(), b"?".to_vec())]).unwrap_err().to_string();
        assert!(told.contains("kernel/x.ko.xz"), "{told}");
    }
}
