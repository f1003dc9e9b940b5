//! The files that the guest knows: a node each, counted by the guest's own look-ups.
//!
//! Owns an `O_PATH` descriptor a node. One file of the host is one node, however many names it has, so a node
//! is what the guest takes for an inode.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::errno::Errno;

use super::abi::ROOT;
use super::sys::file::{self, Stat};
use super::tree::{Access, Cache, Tree};
use crate::{Doing as _, Error};

/// What an entry of the tree says about everything below it.
#[derive(Debug)]
pub struct Share {
    /// The entry's access.
    pub access: Access,
    /// The entry's cache.
    pub cache: Cache,
    /// The file system that the entry itself lies on, if closing a file on it cannot fail.
    local: Option<u64>,
}

/// What makes a file the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    share: usize,
    mount: u64,
    device: u64,
    inode: u64,
}

/// A file of the host.
#[derive(Debug)]
pub struct File {
    fd: OwnedFd,
    key: Key,
    /// `S_IFMT` of its mode, which never changes.
    pub kind: u32,
    /// The entry that it lies below.
    pub share: Arc<Share>,
    /// It is a directory and another mount than its parent.
    pub mounted: bool,
    /// It is what the entry names.
    pub top: bool,
    /// What the guest's page cache was filled from: see [`File::unchanged`].
    seen: AtomicU64,
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl File {
    /// Refuses what is below a read-only entry.
    pub fn writable(&self) -> Result<&File, Errno> {
        if self.share.access == Access::ReadOnly { Err(Errno::EROFS) } else { Ok(self) }
    }

    /// Refuses all but regular files: to open a device or a pipe would reach beyond the tree.
    pub fn regular(&self) -> Result<&File, Errno> {
        match self.kind {
            libc::S_IFREG => Ok(self),
            libc::S_IFDIR => Err(Errno::EISDIR),
            libc::S_IFLNK => Err(Errno::ELOOP),
            _ => Err(Errno::ENXIO),
        }
    }

    /// Refuses all but directories.
    pub fn directory(&self) -> Result<&File, Errno> {
        if self.kind == libc::S_IFDIR { Ok(self) } else { Err(Errno::ENOTDIR) }
    }

    /// Whether a write that failed can be learned of at close only.
    pub fn flushes(&self) -> bool {
        self.share.local != Some(self.key.device)
    }

    /// Whether the file is as it was when it was opened last, and remembers how it is now.
    pub fn unchanged(&self, stat: &Stat) -> bool {
        let version = (stat.stx_mtime.tv_sec as u64)
            .wrapping_mul(1_000_000_007)
            .wrapping_add(stat.stx_mtime.tv_nsec.into())
            .wrapping_mul(31)
            .wrapping_add((stat.stx_ctime.tv_sec as u64).wrapping_mul(1_000_003))
            .wrapping_add(stat.stx_ctime.tv_nsec.into())
            .wrapping_mul(31)
            .wrapping_add(stat.stx_size)
            .max(1);
        self.seen.swap(version, Ordering::Relaxed) == version
    }

    /// Whether two files can have one name moved between them.
    pub fn beside(&self, other: &File) -> bool {
        self.key.share == other.key.share
    }
}

/// A directory that exists for the guest alone.
#[derive(Debug, Default)]
pub struct Made {
    /// Its names and the nodes that they lead to, sorted by nothing.
    pub names: Vec<(Vec<u8>, u64)>,
    /// The directory that it is in.
    pub parent: u64,
}

/// What a node is.
#[derive(Debug)]
pub enum Body {
    /// A directory without a file behind it.
    Made(Made),
    /// A file of the host.
    File(File),
}

/// What the guest knows by a number.
#[derive(Debug)]
pub struct Node {
    /// That number, never used for another.
    pub id: u64,
    /// What it is.
    pub body: Body,
    /// How often it was given to the guest; 0 for those that stay for ever.
    lookups: AtomicU64,
}

impl Node {
    /// The file; directories that were made take no change.
    pub fn file(&self) -> Result<&File, Errno> {
        match &self.body {
            Body::File(file) => Ok(file),
            Body::Made(_) => Err(Errno::EROFS),
        }
    }
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    table: RwLock<Table>,
    /// The first number after those of nodes that stay.
    first: u64,
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<u64, Arc<Node>>,
    by_key: HashMap<Key, u64>,
    next: u64,
}

impl Nodes {
    /// The nodes of a tree; at most `limit` others will be known at a time.
    ///
    /// # Errors
    /// For what cannot be shared.
    pub fn new(tree: Tree, limit: usize) -> Result<Nodes, Error> {
        let mut made: Vec<(u64, Made)> = vec![(ROOT, Made { names: Vec::new(), parent: ROOT })];
        let mut table = Table { next: ROOT + 1, ..Table::default() };
        for (index, entry) in tree.checked()?.into_iter().enumerate() {
            let name = entry.name;
            let stat =
                file::stat(entry.file.as_fd()).doing(format!("sharing {name:?}: reading its attributes"))?;
            let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
            if kind != libc::S_IFREG && kind != libc::S_IFDIR {
                return Err(Error::refused(
                    format!("sharing {name:?}"),
                    "it is neither a directory nor a regular file",
                ));
            }
            let local = file::statfs(entry.file.as_fd()).ok().filter(closes_well).map(|_| device(&stat));
            let share = Arc::new(Share { access: entry.access, cache: entry.cache, local });
            let id = table.next;
            table.next += 1;
            let file = File {
                fd: entry.file,
                key: key(index, &stat),
                kind,
                share,
                mounted: kind == libc::S_IFDIR,
                top: true,
                seen: AtomicU64::new(0),
            };
            table.by_key.insert(file.key, id);
            table.by_id.insert(id, Arc::new(Node { id, body: Body::File(file), lookups: AtomicU64::new(0) }));
            let (parent, leaf) = match name.split_once('/') {
                None => (0, name),
                Some((directory, leaf)) => (table.directory(&mut made, directory), leaf.to_owned()),
            };
            if let Some((_, directory)) = made.get_mut(parent) {
                directory.names.push((leaf.into_bytes(), id));
            }
        }
        let first = table.next;
        for (id, directory) in made {
            let node = Node { id, body: Body::Made(directory), lookups: AtomicU64::new(0) };
            table.by_id.insert(id, Arc::new(node));
        }
        Ok(Nodes { limit: limit.saturating_add(table.by_id.len()), table: RwLock::new(table), first })
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node of that number; EBADF if the guest was never given it, or has forgotten it.
    pub fn get(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.read().by_id.get(&id).cloned().ok_or(Errno::EBADF)
    }

    /// The nodes of all entries.
    pub fn entries(&self) -> Vec<Arc<Node>> {
        let table = self.read();
        (ROOT..self.first).filter_map(|id| table.by_id.get(&id).cloned()).collect()
    }

    /// The node of the file in `parent` that `stat` describes, if it has one; it is then given once more.
    pub fn known(&self, parent: &File, stat: &Stat) -> Option<Arc<Node>> {
        let table = self.read();
        let node = table.by_key.get(&key(parent.key.share, stat)).and_then(|id| table.by_id.get(id))?;
        // Under the lock: nobody forgets it meanwhile.
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(node.clone())
    }

    /// Gives the file `fd`, found in `parent`, a node; another thread may have been faster.
    pub fn insert(&self, parent: &File, fd: OwnedFd, stat: &Stat) -> Result<Arc<Node>, Errno> {
        let key = key(parent.key.share, stat);
        let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
        let mut table = self.write();
        if let Some(node) = table.by_key.get(&key).and_then(|id| table.by_id.get(id)) {
            node.lookups.fetch_add(1, Ordering::Relaxed);
            return Ok(node.clone());
        }
        if table.by_id.len() >= self.limit {
            return Err(Errno::ENFILE);
        }
        let id = table.next;
        table.next += 1;
        let file = File {
            fd,
            key,
            kind,
            share: parent.share.clone(),
            mounted: kind == libc::S_IFDIR && key.mount != parent.key.mount,
            top: false,
            seen: AtomicU64::new(0),
        };
        let node = Arc::new(Node { id, body: Body::File(file), lookups: AtomicU64::new(1) });
        table.by_key.insert(key, id);
        table.by_id.insert(id, node.clone());
        Ok(node)
    }

    /// The guest forgets a node `count` times; what it does not know any more is closed.
    pub fn forget(&self, id: u64, count: u64) {
        if id < self.first {
            return;
        }
        let mut table = self.write();
        let Some(node) = table.by_id.get(&id) else { return };
        let left = node.lookups.load(Ordering::Relaxed).saturating_sub(count);
        node.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return;
        }
        let gone = table.by_id.remove(&id);
        if let Some(Body::File(file)) = gone.as_ref().map(|node| &node.body) {
            table.by_key.remove(&file.key);
        }
        drop(table);
        // Its descriptor is closed here at the earliest, without the lock.
        drop(gone);
    }

    /// Forgets all but those that stay.
    pub fn clear(&self) {
        let mut table = self.write();
        let first = self.first;
        let mut gone = Vec::new();
        table.by_id.retain(|id, node| {
            let stays = *id < first;
            if !stays {
                gone.push(node.clone());
            }
            stays
        });
        table.by_key.retain(|_, id| *id < first);
        drop(table);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().by_id.len()
    }
}

impl Table {
    /// The place in `made` of the directory `name` of the top directory, made if it is not there.
    fn directory(&mut self, made: &mut Vec<(u64, Made)>, name: &str) -> usize {
        let id = made
            .first()
            .and_then(|(_, top)| top.names.iter().find(|(other, _)| other == name.as_bytes()))
            .map(|(_, id)| *id);
        if let Some(place) = id.and_then(|id| made.iter().position(|(other, _)| *other == id)) {
            return place;
        }
        let id = self.next;
        self.next += 1;
        if let Some((_, top)) = made.first_mut() {
            top.names.push((name.as_bytes().to_vec(), id));
        }
        made.push((id, Made { names: Vec::new(), parent: ROOT }));
        made.len() - 1
    }
}

fn device(stat: &Stat) -> u64 {
    libc::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

fn key(share: usize, stat: &Stat) -> Key {
    Key { share, mount: stat.stx_mnt_id, device: device(stat), inode: stat.stx_ino }
}

/// File systems of which `close` tells nothing that `write` and `fsync` did not.
fn closes_well(stat: &libc::statfs64) -> bool {
    const XFS: i64 = 0x5846_5342;
    const ZFS: i64 = 0x2fc1_2fc1;
    const EROFS: i64 = 0xe0f5_e1e2;
    matches!(
        stat.f_type,
        libc::EXT4_SUPER_MAGIC
            | libc::BTRFS_SUPER_MAGIC
            | libc::TMPFS_MAGIC
            | libc::OVERLAYFS_SUPER_MAGIC
            | XFS
            | ZFS
            | EROFS
    )
}
