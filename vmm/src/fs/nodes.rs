//! The files that the guest knows: a node each, counted by the guest's own look-ups.
//!
//! Owns an `O_PATH` descriptor a node. One file of the host is one node, however many names it has, so a node
//! is what the guest takes for an inode.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use nix::errno::Errno;

use super::abi::ROOT;
use super::sys::file::{self, Stat};
use super::tree::{Access, Cache, Entry, Tree};
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
    /// The node of the entry that it lies below.
    share: u64,
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
    /// That name can be removed while the guest runs.
    removable: bool,
    /// What the guest's page cache was filled from: see [`File::unchanged`].
    seen: AtomicU64,
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl File {
    /// What an entry names. It belongs to no share yet: see [`Table::place`].
    ///
    /// # Errors
    /// For what cannot be shared.
    fn of(entry: Entry) -> Result<File, Error> {
        let name = &entry.name;
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
        Ok(File {
            fd: entry.file,
            key: key(0, &stat),
            kind,
            share: Arc::new(Share { access: entry.access, cache: entry.cache, local }),
            mounted: kind == libc::S_IFDIR,
            top: true,
            removable: false,
            seen: AtomicU64::new(0),
        })
    }

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

/// A directory that exists for the guest alone. Its names are in the [`Table`].
#[derive(Debug)]
pub struct Made {
    /// The directory that it is in.
    pub parent: u64,
    /// Names come and go in it while the guest runs.
    open: bool,
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
    /// How often it was given to the guest.
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

    /// For how long a name that leads to it may be believed.
    pub fn believed(&self) -> Duration {
        match &self.body {
            // Nobody could tell the guest that the name was removed, or leads to another entry since.
            Body::File(file) if file.removable => Duration::ZERO,
            Body::File(file) => file.share.cache.names,
            Body::Made(_) => Cache::ALWAYS.names,
        }
    }

    /// For how long it may be believed that a name in it leads nowhere.
    pub fn absent(&self) -> Duration {
        match &self.body {
            Body::File(file) => file.share.cache.names,
            // Or that it was added.
            Body::Made(made) if made.open => Duration::ZERO,
            Body::Made(_) => Cache::ALWAYS.names,
        }
    }
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    table: RwLock<Table>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<u64, Arc<Node>>,
    by_key: HashMap<Key, u64>,
    /// The names in each directory that was made and the nodes that they lead to, the oldest first: their
    /// numbers only grow.
    names: HashMap<u64, Vec<(Vec<u8>, u64)>>,
    /// What is in `names`, and the top directory: the guest can always come back to it.
    staying: BTreeSet<u64>,
    next: u64,
}

impl Nodes {
    /// The nodes of a tree; at most `limit` others will be known at a time, those of entries that are added later
    /// among them.
    ///
    /// # Errors
    /// For what cannot be shared.
    pub fn new(tree: Tree, limit: usize) -> Result<Nodes, Error> {
        let (entries, directories) = tree.checked()?;
        let open = |name: &str| directories.iter().any(|other| other == name);
        let mut table = Table { next: ROOT, ..Table::default() };
        table.insert(Body::Made(Made { parent: ROOT, open: false }), 0);
        table.staying.insert(ROOT);
        for entry in entries {
            let name = entry.name.clone();
            let file = File::of(entry)?;
            match name.split_once('/') {
                None => table.place(ROOT, &name, file),
                Some((directory, leaf)) => {
                    let directory = table.directory(directory, open(directory));
                    table.place(directory, leaf, file);
                }
            }
        }
        for name in &directories {
            table.directory(name, true);
        }
        Ok(Nodes { limit: limit.saturating_add(table.by_id.len()), table: RwLock::new(table) })
    }

    /// Adds what `entry` names, as `leaf` in the directory `directory`. What the guest knows cannot stop that:
    /// the limit is for what the guest finds.
    ///
    /// # Errors
    /// For what cannot be shared, a name that is taken, and a directory that is not open to it.
    pub fn add(&self, directory: &str, leaf: &str, entry: Entry) -> Result<(), Error> {
        let doing = format!("sharing {:?}", entry.name);
        // Before the lock is taken, and dropped after it: no call is made meanwhile.
        let file = File::of(entry)?;
        let mut table = self.write();
        let Some(parent) = table.open(directory) else {
            return Err(Error::refused(doing, "it has no directory of those to which files can be added"));
        };
        if table.named(parent, leaf.as_bytes()).is_some() {
            return Err(Error::refused(doing, "the name is taken"));
        }
        table.place(parent, leaf, file);
        Ok(())
    }

    /// Removes the name `leaf` from the directory `directory`, if it is there and can be removed. What it led to
    /// is forgotten as soon as the guest has forgotten it.
    pub fn remove(&self, directory: &str, leaf: &str) {
        let mut table = self.write();
        let gone = table.remove(directory, leaf.as_bytes());
        drop(table);
        // Its descriptor is closed here at the earliest, without the lock.
        drop(gone);
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

    /// The nodes of all entries, and of the directories that they are in.
    pub fn entries(&self) -> Vec<Arc<Node>> {
        let table = self.read();
        table.staying.iter().filter_map(|id| table.by_id.get(id).cloned()).collect()
    }

    /// What `name` leads to in a directory that was made; it is then given once more.
    pub fn named(&self, directory: u64, name: &[u8]) -> Option<Arc<Node>> {
        let table = self.read();
        let node = table.by_id.get(&table.named(directory, name)?)?;
        // Under the lock: nobody removes it meanwhile.
        node.lookups.fetch_add(1, Ordering::Relaxed);
        Some(node.clone())
    }

    /// The names in a directory that was made, of nodes from the number `first` on, in the order of these.
    pub fn names(&self, directory: u64, first: u64) -> Vec<(Vec<u8>, Arc<Node>)> {
        let table = self.read();
        let names = table.names.get(&directory).map(Vec::as_slice).unwrap_or_default();
        let rest = names.iter().filter(|(_, id)| *id >= first);
        rest.filter_map(|(name, id)| Some((name.clone(), table.by_id.get(id)?.clone()))).collect()
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
        let file = File {
            fd,
            key,
            kind,
            share: parent.share.clone(),
            mounted: kind == libc::S_IFDIR && key.mount != parent.key.mount,
            top: false,
            removable: false,
            seen: AtomicU64::new(0),
        };
        Ok(table.insert(Body::File(file), 1))
    }

    /// The guest forgets a node `count` times; what it does not know any more is closed, unless it stays.
    pub fn forget(&self, id: u64, count: u64) {
        let mut table = self.write();
        let Some(node) = table.by_id.get(&id) else { return };
        let left = node.lookups.load(Ordering::Relaxed).saturating_sub(count);
        node.lookups.store(left, Ordering::Relaxed);
        let gone = table.unused(id);
        drop(table);
        // Its descriptor is closed here at the earliest, without the lock.
        drop(gone);
    }

    /// Forgets all but those that stay, and that these were ever given.
    pub fn clear(&self) {
        let mut table = self.write();
        let Table { by_id, by_key, staying, .. } = &mut *table;
        let mut gone = Vec::new();
        by_id.retain(|id, node| {
            let stays = staying.contains(id);
            if stays {
                node.lookups.store(0, Ordering::Relaxed);
            } else {
                gone.push(node.clone());
            }
            stays
        });
        by_key.retain(|_, id| staying.contains(id));
        drop(table);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().by_id.len()
    }
}

impl Table {
    /// Gives `body` a number, which the guest was told `lookups` times.
    fn insert(&mut self, body: Body, lookups: u64) -> Arc<Node> {
        let id = self.next;
        self.next += 1;
        if let Body::File(file) = &body {
            self.by_key.insert(file.key, id);
        }
        let node = Arc::new(Node { id, body, lookups: AtomicU64::new(lookups) });
        self.by_id.insert(id, node.clone());
        node
    }

    /// Gives the next node the name `name` in the directory `parent`: it stays.
    fn name(&mut self, parent: u64, name: &str) {
        self.names.entry(parent).or_default().push((name.as_bytes().to_vec(), self.next));
        self.staying.insert(self.next);
    }

    /// Puts the file of an entry into the directory `parent`, a share of its own.
    fn place(&mut self, parent: u64, name: &str, mut file: File) {
        file.key.share = self.next;
        file.removable = self.is_open(parent);
        self.name(parent, name);
        self.insert(Body::File(file), 0);
    }

    /// The directory `name` of the top directory, made if it is not there.
    fn directory(&mut self, name: &str, open: bool) -> u64 {
        if let Some(id) = self.named(ROOT, name.as_bytes()) {
            return id;
        }
        self.name(ROOT, name);
        self.insert(Body::Made(Made { parent: ROOT, open }), 0).id
    }

    /// What `name` leads to in a directory that was made.
    fn named(&self, directory: u64, name: &[u8]) -> Option<u64> {
        self.names.get(&directory)?.iter().find(|(other, _)| other == name).map(|(_, id)| *id)
    }

    fn is_open(&self, directory: u64) -> bool {
        self.by_id.get(&directory).is_some_and(|node| matches!(&node.body, Body::Made(made) if made.open))
    }

    /// The directory `name` of the top directory, if names come and go in it.
    fn open(&self, name: &str) -> Option<u64> {
        self.named(ROOT, name.as_bytes()).filter(|id| self.is_open(*id))
    }

    /// Removes a name from an open directory, and the node that it led to if the guest does not know that.
    fn remove(&mut self, directory: &str, leaf: &[u8]) -> Option<Arc<Node>> {
        let names = self.open(directory).and_then(|id| self.names.get_mut(&id))?;
        let place = names.iter().position(|(name, _)| name == leaf)?;
        let (_, id) = names.remove(place);
        self.staying.remove(&id);
        self.unused(id)
    }

    /// Takes a node away, if the guest does not know it and it does not stay.
    fn unused(&mut self, id: u64) -> Option<Arc<Node>> {
        let known = self.by_id.get(&id)?.lookups.load(Ordering::Relaxed) > 0;
        if known || self.staying.contains(&id) {
            return None;
        }
        let gone = self.by_id.remove(&id)?;
        if let Body::File(file) = &gone.body {
            self.by_key.remove(&file.key);
        }
        Some(gone)
    }
}

fn device(stat: &Stat) -> u64 {
    libc::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

fn key(share: u64, stat: &Stat) -> Key {
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
