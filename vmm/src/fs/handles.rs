//! The files and directories that the guest has open.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use nix::errno::Errno;

use super::nodes::Node;

/// An open file.
#[derive(Debug)]
pub struct Handle {
    /// What was opened.
    pub node: Arc<Node>,
    /// The open file; none for directories that were made.
    file: Option<OwnedFd>,
    /// It can be written to.
    pub writable: bool,
    /// Where a directory stands, held while it is read.
    pub position: Mutex<u64>,
}

impl Handle {
    /// A handle on what `file` is.
    pub fn new(node: Arc<Node>, file: Option<OwnedFd>, writable: bool) -> Handle {
        Handle { node, file, writable, position: Mutex::new(0) }
    }

    /// The open file.
    pub fn fd(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.file.as_ref().map(AsFd::as_fd).ok_or(Errno::EBADF)
    }
}

/// All of them.
#[derive(Debug)]
pub struct Handles {
    table: RwLock<(u64, HashMap<u64, Arc<Handle>>)>,
    limit: usize,
}

impl Handles {
    /// None, and never more than `limit`.
    pub fn new(limit: usize) -> Handles {
        Handles { table: RwLock::new((1, HashMap::new())), limit }
    }

    /// Keeps a handle, under a number that is never used again.
    pub fn insert(&self, handle: Handle) -> Result<u64, Errno> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let (next, handles) = &mut *table;
        if handles.len() >= self.limit {
            return Err(Errno::ENFILE);
        }
        let number = *next;
        *next += 1;
        handles.insert(number, Arc::new(handle));
        Ok(number)
    }

    /// The handle of that number, if it is one on `node`.
    pub fn get(&self, number: u64, node: u64) -> Result<Arc<Handle>, Errno> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.1.get(&number).filter(|handle| handle.node.id == node).cloned().ok_or(Errno::EBADF)
    }

    /// Closes a handle, once nobody works with it any more.
    pub fn remove(&self, number: u64, node: u64) -> Result<(), Errno> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.1.get(&number).is_none_or(|handle| handle.node.id != node) {
            return Err(Errno::EBADF);
        }
        let gone = table.1.remove(&number);
        drop(table);
        drop(gone);
        Ok(())
    }

    /// Closes all.
    pub fn clear(&self) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let gone = std::mem::take(&mut table.1);
        drop(table);
        drop(gone);
    }
}
