//! Entries that come and go while the guest runs.
//!
//! Owns nothing but a hand on the server. Nobody tells the guest: it asks each time for a name in a directory where
//! this can happen ([`Tree::directory`](super::Tree::directory)).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::server::Server;
use super::tree::{Access, Cache, Entry, valid};
use crate::{Error, Result};

/// Adds entries to the tree of a server and removes them; clones do so for the same one.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Server>);

impl Shares {
    pub(super) fn new(server: Arc<Server>) -> Shares {
        Shares(server)
    }

    /// Adds an entry `name`, which is `directory/leaf` with one of the directories that
    /// [`Tree::directory`](super::Tree::directory) made. It shows the file or directory of `descriptor`, which may
    /// be an `O_PATH` one, and no other entry's files are its files.
    ///
    /// # Errors
    /// For a name that is none or is taken, a directory that is not there, and a descriptor of what is neither a
    /// directory nor a regular file.
    pub fn add(&self, name: &str, descriptor: OwnedFd, access: Access, cache: Cache) -> Result<()> {
        let Some((directory, leaf)) = parts(name) else {
            return Err(Error::refused(format!("sharing {name:?}"), "a name of two parts is needed"));
        };
        let entry = Entry { name: name.to_owned(), file: descriptor, access, cache };
        self.0.nodes.add(directory, leaf, entry)
    }

    /// Removes the entry `name` from its directory, of those to which can be added: from here on no look-up finds
    /// it, and the name can be used again. Its descriptor is closed when the guest has forgotten it, at once if it
    /// never knew it. What the guest knows below it, it can use until it forgets that too. It may go on knowing the
    /// entry itself until it looks for the name once more.
    ///
    /// What is not there is removed already.
    pub fn remove(&self, name: &str) {
        if let Some((directory, leaf)) = parts(name) {
            self.0.nodes.remove(directory, leaf);
        }
    }
}

/// Directory and name in it.
fn parts(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(directory, leaf)| valid(directory) && valid(leaf))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::Tree;
    use super::super::abi::ROOT;
    use super::*;
    use crate::filter::{Kind, enter};

    #[test]
    fn the_thread_of_the_session_can_add_and_remove() {
        let dir = tempfile::tempdir().unwrap();
        let file: OwnedFd = File::open(dir.path()).unwrap().into();
        let mut tree = Tree::new();
        tree.directory("pod");
        for name in ["pod/first", "pod/kept"] {
            tree.add(name, file.try_clone().unwrap(), Access::ReadWrite);
        }
        let server = Server::limited(tree, 100).unwrap();
        let shares = server.shares();
        std::thread::spawn(move || {
            enter(Kind::Session).unwrap();
            shares.add("pod/one", file, Access::ReadWrite, Cache::AUTO).unwrap();
            shares.remove("pod/first");
        })
        .join()
        .unwrap();
        let find = |directory, name: &str| server.nodes.named(directory, name.as_bytes());
        let pod = find(ROOT, "pod").unwrap().id;
        assert!(find(pod, "first").is_none());
        // What its file system tells at close was learned as without the filter.
        let flushes = |name| find(pod, name).unwrap().file().unwrap().flushes();
        assert_eq!(flushes("one"), flushes("kept"));
    }
}
