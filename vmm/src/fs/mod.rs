//! The file server: a tree of descriptors that the guest mounts by virtio-fs.

use std::os::fd::OwnedFd;

use crate::virtio::Device;
use crate::{Error, Result};

/// What the guest may do with an entry of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing can be changed.
    ReadOnly,
    /// As the descriptor allows.
    ReadWrite,
}

/// The top directory that the guest sees: read-only, made of names and descriptors.
#[derive(Debug, Default)]
pub struct Tree {
    entries: Vec<(String, OwnedFd, Access)>,
}

impl Tree {
    /// Adds an entry `name` (`root`, or `mounts/0`) that shows the file or directory of `descriptor`.
    pub fn add(&mut self, name: &str, descriptor: OwnedFd, access: Access) {
        self.entries.push((name.to_owned(), descriptor, access));
    }
}

/// The virtio-fs device that serves `tree` under `tag`.
pub fn device(tag: &str, _tree: Tree) -> Result<Box<dyn Device>> {
    Err(Error::refused(format!("sharing the tree {tag}"), "this build has no file server"))
}
