//! Storage of machines on real file systems: ext4, XFS and btrfs in files, real loop devices, real overlays.
//!
//! Runs in the host lane. Every test has a file system of its own, mounted below its own directory.
#![allow(clippy::unwrap_used, reason = "a test")]

mod archives;
mod bed;
mod kinds;
mod snapshots;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a tool that must succeed.
#[track_caller]
fn tool(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The bytes that a file takes.
fn taken(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).unwrap().blocks() * 512
}
