//! Reading a control group: its files by one descriptor, a missing one as `None`.
//!
//! Owns the spelling of cgroup v2's numbers. Never writes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// A control group's directory.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    dir: OwnedFd,
}

impl Group {
    /// Opens it; `None` where there is none.
    pub fn open(path: &Path) -> Option<Group> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty()).ok()?;
        Some(Group { path: path.to_owned(), dir })
    }

    /// A file's text; `None` without the controller, or once the group is gone.
    pub fn text(&self, name: &str) -> Option<String> {
        let file = openat(&self.dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut text = String::with_capacity(1024);
        File::from(file).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// The number in a file that holds one; `max` is the greatest.
    pub fn number(&self, name: &str) -> Option<u64> {
        number(&self.text(name)?)
    }

    /// The least of a limit's values here and in the groups above; `None` without one.
    pub fn least(&self, name: &str) -> Option<u64> {
        let above = self
            .path
            .ancestors()
            .skip(1)
            .map_while(|path| std::fs::read_to_string(path.join(name)).ok().as_deref().and_then(number));
        std::iter::once(self.number(name)?).chain(above).min().filter(|least| *least != u64::MAX)
    }

    /// The group and those below it.
    pub fn tree(&self) -> Vec<PathBuf> {
        let mut found = vec![self.path.clone()];
        let mut at = 0;
        while let Some(path) = found.get(at).cloned() {
            at += 1;
            let Ok(listing) = std::fs::read_dir(&path) else { continue };
            let below = listing.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            found.extend(below.map(|entry| entry.path()));
        }
        found
    }
}

fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// The number behind `key` in lines of `key value`.
pub(crate) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A block device's counters in `io.stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Device {
    /// Major and minor number.
    pub number: (u32, u32),
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
    pub discarded_bytes: u64,
    pub discards: u64,
}

/// The devices of `io.stat`.
pub(crate) fn devices(text: &str) -> Vec<Device> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let mut device =
                Device { number: (major.parse().ok()?, minor.parse().ok()?), ..Device::default() };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let Ok(value) = value.parse() else { continue };
                match key {
                    "rbytes" => device.read_bytes = value,
                    "wbytes" => device.written_bytes = value,
                    "rios" => device.reads = value,
                    "wios" => device.writes = value,
                    "dbytes" => device.discarded_bytes = value,
                    "dios" => device.discards = value,
                    _ => {}
                }
            }
            Some(device)
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory that looks like a control group.
    pub fn fixture(dir: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_least_limit_of_the_tree_counts() {
        let top = tempfile::tempdir().unwrap();
        let unit = top.path().join("unit");
        fixture(top.path(), &[("memory.max", "268435456\n")]);
        fixture(&unit, &[("memory.max", "max\n")]);
        fixture(&unit.join("payload"), &[("memory.max", "1073741824\n")]);
        let group = Group::open(&unit.join("payload")).unwrap();
        assert_eq!(group.least("memory.max"), Some(268_435_456));
        assert_eq!(group.least("memory.swap.max"), None);
        assert_eq!(Group::open(&unit).unwrap().tree(), [unit.clone(), unit.join("payload")]);
        fixture(top.path(), &[("memory.max", "max\n")]);
        fixture(&unit.join("payload"), &[("memory.max", "max\n")]);
        assert_eq!(group.least("memory.max"), None);
        assert!(Group::open(&top.path().join("gone")).is_none());
    }

    #[test]
    fn devices_and_keys() {
        let text = "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:0 \n";
        let found = devices(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].number, found[0].read_bytes, found[0].writes, found[0].discards),
            ((254, 0), 1, 4, 6)
        );
        assert_eq!(value("anon_thp 1\nanon 7\n", "anon"), Some(7));
        assert_eq!(value("anon_thp 1\n", "anon"), None);
    }
}
