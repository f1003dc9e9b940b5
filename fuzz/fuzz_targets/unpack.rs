//! Layers: any bytes as an archive, unpacked beside a canary tree that must stay as it is.
//!
//! The oracle is the tree's every attribute that an escape could change.
#![no_main]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use locule_images::unpack::{Limits, Options, unpack};

fuzz_target!(|input: &[u8]| {
    let place = Place::new();
    let before = place.canaries();
    let limits = Limits { bytes: 1 << 20, sparse: 1 << 20, ..Limits::default() };
    let options = Options { limits, ..Options::here() };
    let root = || OwnedFd::from(File::open(place.0.join("root")).unwrap());
    // The writer of an archive knows its checksums; the fuzzer need not guess them.
    let archive = summed(input);
    if let Ok((found, _)) = unpack(archive.as_slice(), root(), &options) {
        let _ = found.finish(root(), &[], &options);
    }
    assert_eq!(place.canaries(), before, "something outside was touched");
    let mut names: Vec<_> = fs::read_dir(&place.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["outside", "root"], "something was made outside");
});

/// A directory of this process, emptied for each input.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let dir = base.join(format!("locule-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("outside/dir")).unwrap();
        fs::write(dir.join("outside/file"), "canary").unwrap();
        symlink("file", dir.join("outside/link")).unwrap();
        fs::create_dir(dir.join("root")).unwrap();
        // So that short links lead out.
        symlink("../outside", dir.join("root/o")).unwrap();
        Place(dir)
    }

    fn canaries(&self) -> Vec<String> {
        ["outside", "outside/dir", "outside/file", "outside/link"]
            .iter()
            .map(|name| {
                let path = self.0.join(name);
                let meta = fs::symlink_metadata(&path).unwrap();
                let count = if meta.is_dir() { fs::read_dir(&path).unwrap().count() } else { 0 };
                let text = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                format!("{:o} {} {} {} {count} {text:?}", meta.mode(), meta.uid(), meta.nlink(), meta.mtime_nsec())
            })
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The input with right checksums in each block that can be a header.
fn summed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block.iter().any(|byte| *byte != 0)) {
        let sum: u32 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}
