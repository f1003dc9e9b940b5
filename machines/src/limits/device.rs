//! Which block device a directory is on, for limits on it.
//!
//! Owns the way from a file system to a whole disk. Opens no device.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::{Context, Result};

/// The whole disk under `path`, as major and minor number; `None` where there is none, as on a tmpfs.
pub fn disk_device(path: &Path) -> Result<Option<(u32, u32)>> {
    let meta = std::fs::metadata(path).doing(|| format!("looking at {}", path.display()))?;
    let mut device = split(meta.dev());
    if device.0 == 0 {
        // btrfs and overlays have a number of their own; the mount's source is the device, if it is one.
        match source(path)? {
            Some(found) => device = found,
            None => return Ok(None),
        }
    }
    Ok(Some(whole(device)))
}

/// The disk under the root file system that is mounted at `root`: its own, or that of the machine's directory `dir`,
/// where an overlay keeps what is written.
pub fn disk_of(root: &Path, dir: &Path) -> Result<Option<(u32, u32)>> {
    // An overlay's number is no device's, and its mount has no source.
    let meta = std::fs::metadata(root).doing(|| format!("looking at {}", root.display()))?;
    match split(meta.dev()) {
        (0, _) => disk_device(dir),
        device => Ok(Some(whole(device))),
    }
}

fn split(dev: u64) -> (u32, u32) {
    (nix::sys::stat::major(dev) as u32, nix::sys::stat::minor(dev) as u32)
}

/// io.max wants the disk, not a part of it.
fn whole(device: (u32, u32)) -> (u32, u32) {
    let sys = format!("/sys/dev/block/{}:{}", device.0, device.1);
    if !Path::new(&format!("{sys}/partition")).exists() {
        return device;
    }
    let numbers = std::fs::read_to_string(format!("{sys}/../dev")).unwrap_or_default();
    let disk = numbers.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    disk.unwrap_or(device)
}

/// The device that is mounted where `path` is.
fn source(path: &Path) -> Result<Option<(u32, u32)>> {
    let path = path.canonicalize().doing(|| format!("looking at {}", path.display()))?;
    let text = std::fs::read_to_string("/proc/self/mountinfo").doing(|| "reading /proc/self/mountinfo")?;
    let mut best: Option<(usize, &str)> = None;
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(place), Some((_, rest))) = (fields.nth(4), line.split_once(" - ")) else { continue };
        let (Some(source), true) = (rest.split(' ').nth(1), path.starts_with(place)) else { continue };
        // The later of two mounts on the same place is the one that is seen.
        if best.is_none_or(|(length, _)| place.len() >= length) {
            best = Some((place.len(), source));
        }
    }
    let Some((_, source)) = best.filter(|(_, source)| source.starts_with("/dev/")) else { return Ok(None) };
    Ok(std::fs::metadata(source)
        .ok()
        .filter(|meta| meta.file_type().is_block_device())
        .map(|meta| split(meta.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_without_a_disk_have_none() {
        assert_eq!(disk_device(Path::new("/proc")).unwrap(), None);
        assert!(disk_device(Path::new("/nothing/there")).is_err());
    }
}
