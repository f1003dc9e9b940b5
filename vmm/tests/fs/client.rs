//! A guest's side of the protocol, without a guest: requests as bytes to a worker on a thread of its own.
//!
//! The bytes are put together by hand here, from the kernel's header: what the server thinks of a structure is
//! not asked. Each request and reply lies in several pieces of memory, as a guest's do.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use locule_vmm::fs::{Access, Cache, Server, Tree};
use vm_memory::VolatileSlice;

pub const LOOKUP: u32 = 1;
pub const FORGET: u32 = 2;
pub const GETATTR: u32 = 3;
pub const SETATTR: u32 = 4;
pub const READLINK: u32 = 5;
pub const SYMLINK: u32 = 6;
pub const MKNOD: u32 = 8;
pub const MKDIR: u32 = 9;
pub const UNLINK: u32 = 10;
pub const RMDIR: u32 = 11;
pub const RENAME: u32 = 12;
pub const LINK: u32 = 13;
pub const OPEN: u32 = 14;
pub const READ: u32 = 15;
pub const WRITE: u32 = 16;
pub const STATFS: u32 = 17;
pub const RELEASE: u32 = 18;
pub const FSYNC: u32 = 20;
pub const SETXATTR: u32 = 21;
pub const GETXATTR: u32 = 22;
pub const LISTXATTR: u32 = 23;
pub const REMOVEXATTR: u32 = 24;
pub const FLUSH: u32 = 25;
pub const INIT: u32 = 26;
pub const OPENDIR: u32 = 27;
pub const READDIR: u32 = 28;
pub const RELEASEDIR: u32 = 29;
pub const CREATE: u32 = 35;
pub const DESTROY: u32 = 38;
pub const BATCH_FORGET: u32 = 42;
pub const FALLOCATE: u32 = 43;
pub const READDIRPLUS: u32 = 44;
pub const RENAME2: u32 = 45;
pub const LSEEK: u32 = 46;
pub const COPY_FILE_RANGE: u32 = 47;
pub const SYNCFS: u32 = 50;
pub const TMPFILE: u32 = 51;
pub const STATX: u32 = 52;

/// The top directory.
pub const TOP: u64 = 1;
/// All that a kernel offers at INIT.
pub const OFFER: u64 = u64::MAX;

/// Little-endian words of 32 bits.
pub fn w(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Little-endian words of 64 bits.
pub fn q(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A text with its NUL.
pub fn z(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// What LOOKUP and its like tell.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub node: u64,
    pub ino: u64,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
}

impl Entry {
    pub fn parse(bytes: &[u8]) -> Entry {
        Entry { node: u64_at(bytes, 0), ..Entry::attributes(&bytes[40..]) }
    }

    pub fn attributes(attr: &[u8]) -> Entry {
        Entry {
            node: 0,
            ino: u64_at(attr, 0),
            mode: u32_at(attr, 60),
            links: u32_at(attr, 64),
            uid: u32_at(attr, 68),
            gid: u32_at(attr, 72),
            rdev: u32_at(attr, 76),
        }
    }
}

type Call = (Vec<u8>, usize, Sender<Vec<u8>>);

/// A guest's kernel.
#[derive(Clone)]
pub struct Client {
    pub server: Arc<Server>,
    worker: Sender<Call>,
    pub uid: u32,
    pub gid: u32,
}

impl Client {
    /// On a server, before INIT.
    pub fn raw(server: &Arc<Server>) -> Client {
        let (worker, calls) = channel::<Call>();
        let thread = server.clone();
        std::thread::spawn(move || serve(&thread, &calls));
        Client { server: server.clone(), worker, uid: 0, gid: 0 }
    }

    /// On a server, after INIT with all flags.
    pub fn new(server: &Arc<Server>) -> Client {
        let client = Client::raw(server);
        client.init(7, 41, OFFER).unwrap();
        client
    }

    /// On a server of `root` (read-write) and `fixed` (the same directory, read-only).
    pub fn on(dir: &Path) -> Client {
        Client::new(&Server::new(tree(dir)).unwrap())
    }

    pub fn init(&self, major: u32, minor: u32, flags: u64) -> Result<Vec<u8>, i32> {
        let body = w(&[major, minor, 1 << 17, flags as u32, (flags >> 32) as u32]);
        self.call(INIT, 0, &[&body, &[0; 44]])
    }

    /// The same kernel, for a process of other ids.
    pub fn user(&self, uid: u32, gid: u32) -> Client {
        Client { uid, gid, ..self.clone() }
    }

    /// Bytes to the server, and what comes back into that much space.
    pub fn bytes(&self, request: Vec<u8>, space: usize) -> Vec<u8> {
        let (tell, told) = channel();
        self.worker.send((request, space, tell)).unwrap();
        told.recv().expect("the worker lives")
    }

    pub fn message(&self, op: u32, node: u64, body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        let head =
            [w(&[body.len() as u32 + 40, op]), q(&[0x1234_5678, node]), w(&[self.uid, self.gid, 1, 0])];
        [head.concat(), body].concat()
    }

    /// A request, its answer or errno.
    pub fn call(&self, op: u32, node: u64, body: &[&[u8]]) -> Result<Vec<u8>, i32> {
        let space = if matches!(op, READ | READDIR | READDIRPLUS) { 1 << 20 } else { 8192 };
        let reply = self.bytes(self.message(op, node, body), space);
        assert_eq!(u32_at(&reply, 0) as usize, reply.len());
        assert_eq!(u64_at(&reply, 8), 0x1234_5678);
        match u32_at(&reply, 4) as i32 {
            0 => Ok(reply[16..].to_vec()),
            errno => {
                assert_eq!(reply.len(), 16);
                Err(-errno)
            }
        }
    }

    pub fn lookup(&self, parent: u64, name: &str) -> Result<Entry, i32> {
        self.call(LOOKUP, parent, &[&z(name)]).map(|reply| Entry::parse(&reply))
    }

    /// Through directories.
    pub fn walk(&self, path: &str) -> Entry {
        let mut node = TOP;
        let mut last = None;
        for name in path.split('/') {
            let entry = self.lookup(node, name).unwrap_or_else(|errno| panic!("{path}: {errno}"));
            node = entry.node;
            last = Some(entry);
        }
        last.unwrap()
    }

    pub fn attributes(&self, node: u64) -> Entry {
        Entry::attributes(&self.call(GETATTR, node, &[&[0; 16]]).unwrap()[16..])
    }

    pub fn open(&self, node: u64, flags: i32) -> Result<u64, i32> {
        self.call(OPEN, node, &[&w(&[flags as u32, 0])]).map(|reply| u64_at(&reply, 0))
    }

    pub fn create(
        &self,
        parent: u64,
        name: &str,
        flags: i32,
        mode: u32,
        mask: u32,
    ) -> Result<(Entry, u64), i32> {
        let reply = self.call(CREATE, parent, &[&w(&[flags as u32, mode, mask, 0]), &z(name)])?;
        Ok((Entry::parse(&reply), u64_at(&reply, 128)))
    }

    /// A file that is made and closed.
    pub fn touch(&self, parent: u64, name: &str) -> Entry {
        let (entry, fh) = self.create(parent, name, libc::O_RDWR | libc::O_EXCL, 0o644, 0o022).unwrap();
        self.release(entry.node, fh).unwrap();
        entry
    }

    pub fn release(&self, node: u64, fh: u64) -> Result<(), i32> {
        self.call(RELEASE, node, &[&q(&[fh, 0, 0])]).map(drop)
    }

    pub fn read(&self, node: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>, i32> {
        self.call(READ, node, &[&q(&[fh, offset]), &w(&[size, 0]), &q(&[0, 0])])
    }

    /// Writes with `write_flags` of the request and `flags` of the open file.
    pub fn write_as(
        &self,
        node: u64,
        fh: u64,
        at: u64,
        data: &[u8],
        how: u32,
        flags: i32,
    ) -> Result<u32, i32> {
        let head = [q(&[fh, at]), w(&[data.len() as u32, how]), q(&[0]), w(&[flags as u32, 0])].concat();
        self.call(WRITE, node, &[&head, data]).map(|reply| u32_at(&reply, 0))
    }

    pub fn write(&self, node: u64, fh: u64, offset: u64, data: &[u8]) -> Result<u32, i32> {
        self.write_as(node, fh, offset, data, 0, 0)
    }

    /// SETATTR of what `valid` names: mode, owner, size.
    pub fn set(&self, node: u64, valid: u32, mode: u32, uid: u32, gid: u32, size: u64) -> Result<Entry, i32> {
        let body = [w(&[valid, 0]), q(&[0, size, 0, 0, 0, 0]), w(&[0, 0, 0, mode, 0, uid, gid, 0])].concat();
        self.call(SETATTR, node, &[&body]).map(|reply| Entry::attributes(&reply[16..]))
    }

    /// All names of a directory with their numbers, by answers of `size` bytes.
    pub fn list(&self, node: u64, size: u32, plus: bool) -> Vec<(String, u64)> {
        let fh = u64_at(&self.call(OPENDIR, node, &[&w(&[0, 0])]).unwrap(), 0);
        let (op, head) = if plus { (READDIRPLUS, 128) } else { (READDIR, 0) };
        let (mut found, mut offset) = (Vec::new(), 0);
        loop {
            let body = [q(&[fh, offset]), w(&[size, 0]), q(&[0, 0])].concat();
            let reply = self.call(op, node, &[&body]).unwrap();
            assert!(reply.len() <= size as usize);
            if reply.is_empty() {
                break;
            }
            let mut rest = &reply[..];
            while !rest.is_empty() {
                // A node, or an inode.
                let known = u64_at(rest, 0);
                offset = u64_at(rest, head + 8);
                let length = u32_at(rest, head + 16) as usize;
                let name = String::from_utf8(rest[head + 24..head + 24 + length].to_vec()).unwrap();
                found.push((name, known));
                rest = &rest[(head + 24 + length).next_multiple_of(8)..];
            }
        }
        self.call(RELEASEDIR, node, &[&q(&[fh, 0, 0])]).unwrap();
        found
    }
}

pub fn tree(dir: &Path) -> Tree {
    let open = || OwnedFd::from(std::fs::File::open(dir).unwrap());
    let mut tree = Tree::new();
    tree.add_cached("root", open(), Access::ReadWrite, Cache::AUTO);
    tree.add("fixed", open(), Access::ReadOnly);
    tree.add("mounts/0", open(), Access::ReadWrite);
    tree
}

fn serve(server: &Arc<Server>, calls: &Receiver<Call>) {
    let mut worker = server.worker().unwrap();
    for (mut request, space, tell) in calls {
        let mut reply = vec![0xaa; space];
        let length = {
            // Uneven pieces, and one of nothing.
            let third = request.len() / 3;
            let (one, rest) = request.split_at_mut(third);
            let (two, three) = rest.split_at_mut(third / 2);
            let request = [one, two, &mut [], three].map(VolatileSlice::from);
            let (one, rest) = reply.split_at_mut(space.min(16));
            let (two, three) = rest.split_at_mut(rest.len().min(77));
            worker.handle(&request, &[one, two, three].map(VolatileSlice::from))
        };
        assert!(length <= space);
        assert!(reply[length..].iter().take(300).all(|byte| *byte == 0xaa), "written behind the reply");
        reply.truncate(length);
        let _ = tell.send(reply);
    }
}
