//! What a guest is given: named descriptors, side by side in a top directory that exists nowhere else.

use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::{Error, Result};

/// What the guest may do below an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every change is refused with EROFS, before it reaches the host's file system.
    ReadOnly,
    /// The host's file system decides.
    ReadWrite,
}

/// How long the guest may believe what it has been told about files below an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// For how long a name leads to what it led to.
    pub names: Duration,
    /// For how long a file has the attributes that it had.
    pub attributes: Duration,
    /// Whether the guest's page cache holds data; without it each read and write comes to the host.
    pub data: bool,
}

impl Cache {
    /// For files that others change now and then: one second, and data only while the file is unchanged.
    pub const AUTO: Cache =
        Cache { names: Duration::from_secs(1), attributes: Duration::from_secs(1), data: true };
    /// For files that nobody else changes: a day.
    pub const ALWAYS: Cache =
        Cache { names: Duration::from_secs(86400), attributes: Duration::from_secs(86400), data: true };
    /// For files that must be seen as they are: nothing is remembered.
    pub const NEVER: Cache = Cache { names: Duration::ZERO, attributes: Duration::ZERO, data: false };
}

/// One name in the top directory, or in a directory of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) file: OwnedFd,
    pub(super) access: Access,
    pub(super) cache: Cache,
}

/// The top directory that the guest sees: read-only, made of names and descriptors.
#[derive(Debug, Default)]
pub struct Tree {
    entries: Vec<Entry>,
    directories: Vec<String>,
}

impl Tree {
    /// An empty top directory.
    pub fn new() -> Tree {
        Tree::default()
    }

    /// Adds an entry `name` (`root`, or `mounts/0` in a directory that is made for it) that shows the file or
    /// directory of `descriptor`, which may be an `O_PATH` one. It is cached by [`Cache::AUTO`].
    pub fn add(&mut self, name: &str, descriptor: OwnedFd, access: Access) {
        self.add_cached(name, descriptor, access, Cache::AUTO);
    }

    /// Adds an entry as [`Tree::add`] does, with a cache of its own.
    pub fn add_cached(&mut self, name: &str, descriptor: OwnedFd, access: Access, cache: Cache) {
        self.entries.push(Entry { name: name.to_owned(), file: descriptor, access, cache });
    }

    /// Makes a directory `name` in the top directory, empty but for the entries that are added in it, now or
    /// later ([`Shares`](super::Shares)). The guest believes nothing about the names in it: it asks each time.
    pub fn directory(&mut self, name: &str) {
        self.directories.push(name.to_owned());
    }

    /// The entries, and the directories that were asked for, their names checked: one part or two, and no name
    /// both a file and a directory.
    pub(super) fn checked(self) -> Result<(Vec<Entry>, Vec<String>)> {
        for (place, entry) in self.entries.iter().enumerate() {
            let parts: Vec<&str> = entry.name.split('/').collect();
            let taken = self
                .entries
                .iter()
                .take(place)
                .any(|other| other.name.split('/').zip(&parts).all(|(one, two)| one == *two));
            if parts.len() > 2 || !parts.iter().all(|part| valid(part)) || taken {
                return Err(Error::refused(
                    format!("sharing a file as {:?}", entry.name),
                    "a name of one part or two is needed that is not taken",
                ));
            }
        }
        for name in &self.directories {
            if !valid(name) || self.entries.iter().any(|entry| entry.name == *name) {
                return Err(Error::refused(
                    format!("sharing a directory as {name:?}"),
                    "a name of one part is needed that is not taken",
                ));
            }
        }
        Ok((self.entries, self.directories))
    }
}

/// Whether `part` can be a name in a directory.
pub(super) fn valid(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn checks(names: &[&str], directories: &[&str]) -> bool {
        let mut tree = Tree::new();
        for name in directories {
            tree.directory(name);
        }
        for name in names {
            tree.add(name, File::open("/").unwrap().into(), Access::ReadOnly);
        }
        tree.checked().is_ok()
    }

    #[test]
    fn names_are_checked_and_taken_once() {
        assert!(checks(&["root", "mounts/0", "mounts/1", "roo"], &[]));
        for bad in
            ["root", "mounts", "root/0", "mounts/0", "", ".", "..", "a/..", "/a", "a/", "a/b/c", "a\0b"]
        {
            assert!(!checks(&["root", "mounts/0", bad], &[]), "{bad:?}");
        }
    }

    #[test]
    fn directories_are_no_entries() {
        assert!(checks(&["root", "mounts/0"], &["pods", "mounts", "pods"]));
        for bad in ["root", "", ".", "..", "a/b", "a\0b"] {
            assert!(!checks(&["root", "mounts/0"], &[bad]), "{bad:?}");
        }
    }
}
