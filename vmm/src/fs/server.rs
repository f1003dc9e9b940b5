//! The server: what all threads that serve one guest share, and the way from a request to its reply.
//!
//! The guest is not trusted. Each length, number and name of a request is checked here or where it is used; the
//! worst that it can do is to change what it was given to change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::abi::{self, InHeader, InitIn, InitOut, OutHeader, Wire, init, op};
use super::handles::Handles;
use super::nodes::Nodes;
use super::request::{Body, Pieces, Request};
use super::shares::Shares;
use super::sys::file::Descriptors;
use super::sys::memory;
use super::tree::Tree;
use super::worker::Worker;
use crate::Doing as _;

/// The most data of one READ or WRITE, in bytes.
pub const DATA_MAX: u32 = 1 << 20;
/// Descriptors that are left to the rest of the process.
const DESCRIPTORS_LEFT: u64 = 256;

/// What this server can do, of what the guest offers.
const WANTED: u64 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::DONT_MASK
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::POSIX_ACL
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::SUBMOUNTS
    | init::HANDLE_KILLPRIV_V2
    | init::SETXATTR_EXT
    | init::INIT_EXT
    | init::DIRECT_IO_ALLOW_MMAP
    | init::ALLOW_IDMAP;

/// A file server for one guest.
#[derive(Debug)]
pub struct Server {
    pub(super) nodes: Nodes,
    pub(super) handles: Handles,
    pub(super) descriptors: Descriptors,
    /// What was agreed upon at INIT; 0 before.
    agreed: AtomicU64,
}

/// What an operation answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// The guest waits for none.
    None,
    /// These bytes, behind the header.
    Bytes(Vec<u8>),
    /// So many bytes, which lie behind the place of the header already.
    Placed(usize),
}

impl Reply {
    /// An answer without a body.
    pub(super) const DONE: Reply = Reply::Bytes(Vec::new());

    /// A structure as answer.
    pub(super) fn of(value: &impl Wire) -> Reply {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        Reply::Bytes(bytes)
    }
}

impl Server {
    /// A server of `tree`. It takes up as many descriptors as the process may have at most (`RLIMIT_NOFILE`,
    /// whose soft limit is raised to the hard one) but for 256: one for each file that the guest knows.
    ///
    /// # Errors
    /// For a name or file that cannot be shared, and where there is no `/proc` or `openat2(2)`.
    pub fn new(tree: Tree) -> crate::Result<Arc<Server>> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).doing("reading the limit of open files")?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).doing("raising the limit of open files")?;
        Server::limited(tree, most.saturating_sub(DESCRIPTORS_LEFT) as usize)
    }

    /// A server of `tree` that takes up at most `descriptors` descriptors beside those of the tree: an eighth
    /// for open files, the others for files that the guest knows and for what [`Shares`] add. To add is never
    /// refused for what the guest knows; the guest then finds so much less.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn limited(tree: Tree, descriptors: usize) -> crate::Result<Arc<Server>> {
        let open = (descriptors / 8).max(1);
        Ok(Arc::new(Server {
            nodes: Nodes::new(tree, descriptors.saturating_sub(open))?,
            handles: Handles::new(open),
            descriptors: Descriptors::open().doing("opening /proc/self/fd for the file server")?,
            agreed: AtomicU64::new(0),
        }))
    }

    /// What serves requests on the calling thread. The thread gets a working directory, a mask and ids for
    /// files of its own, which it cannot give back: it should do nothing else.
    ///
    /// # Errors
    /// Where the kernel refuses that.
    pub fn worker(self: &Arc<Server>) -> crate::Result<Worker> {
        Worker::new(self.clone())
    }

    /// What adds entries to the tree and removes them.
    pub fn shares(self: &Arc<Server>) -> Shares {
        Shares::new(self.clone())
    }

    /// How many files the guest knows now.
    pub fn known(&self) -> usize {
        self.nodes.count()
    }

    /// Forgets everything that the guest was told, as if it had never asked.
    pub fn reset(&self) {
        self.agreed.store(0, Ordering::Release);
        self.handles.clear();
        self.nodes.clear();
    }

    /// Whether `flag` of INIT was agreed upon.
    pub(super) fn agreed(&self, flag: u64) -> bool {
        self.agreed.load(Ordering::Acquire) & flag != 0
    }

    fn init(&self, mut body: Body) -> Result<Reply, Errno> {
        let asked: InitIn = body.take()?;
        let mut answer = InitOut { major: abi::MAJOR, minor: abi::MINOR, ..InitOut::default() };
        if asked.major > abi::MAJOR {
            // The guest asks again, with our version.
            return Ok(Reply::of(&answer));
        }
        if asked.major < abi::MAJOR || asked.minor < abi::MINOR_MIN {
            return Err(Errno::EPROTO);
        }
        let mut offered = u64::from(asked.flags);
        if offered & init::INIT_EXT != 0 {
            offered |= u64::from(body.take::<u32>()?) << 32;
        }
        let agreed = offered & WANTED;
        self.reset();
        // Never 0, as no guest that can be served lacks this.
        self.agreed.store(agreed | init::BIG_WRITES, Ordering::Release);
        answer.max_readahead = asked.max_readahead;
        answer.flags = agreed as u32;
        answer.flags2 = (agreed >> 32) as u32;
        answer.max_background = 64;
        answer.congestion_threshold = 48;
        answer.max_write = DATA_MAX;
        answer.max_pages = (DATA_MAX / 4096) as u16;
        answer.time_gran = 1;
        Ok(Reply::of(&answer))
    }
}

impl Worker {
    /// Serves one request: `request` is what the guest wrote, `reply` the space for what it reads. Returns how
    /// many bytes of the reply are filled; 0 where the guest waits for none.
    pub fn handle<A: BitmapSlice, B: BitmapSlice>(
        &mut self,
        request: &[VolatileSlice<'_, A>],
        reply: &[VolatileSlice<'_, B>],
    ) -> usize {
        let count = self.serve(Pieces::new(memory::views(request)), Pieces::new(memory::views(reply)));
        let mut left = count;
        for slice in reply {
            let here = slice.len().min(left);
            slice.bitmap().mark_dirty(0, here);
            left -= here;
        }
        count
    }

    fn serve(&mut self, request: Pieces<'_>, mut reply: Pieces<'_>) -> usize {
        let Some(request) = Request::new(request) else { return 0 };
        let header = request.header;
        // What belongs to the answer of the guest's system call comes first.
        let Some(head) = reply.split(OutHeader::SIZE) else {
            // Without space for a reply only what needs none is done.
            if matches!(header.opcode, op::FORGET | op::BATCH_FORGET) {
                let _ = self.dispatch(request, &Pieces::new(Vec::new()));
            }
            return 0;
        };
        let done = self.dispatch(request, &reply);
        self.settle();
        let (error, length) = match done {
            Ok(Reply::None) => return 0,
            Ok(Reply::Placed(count)) => (0, count),
            Ok(Reply::Bytes(bytes)) if reply.fill(&bytes) => (0, bytes.len()),
            Ok(Reply::Bytes(_)) => (Errno::EOVERFLOW as i32, 0),
            Err(errno) => (errno as i32, 0),
        };
        let length = OutHeader::SIZE + length;
        let mut bytes = Vec::with_capacity(OutHeader::SIZE);
        OutHeader { len: length as u32, error: -error, unique: header.unique }.encode(&mut bytes);
        head.fill(&bytes);
        length
    }

    fn dispatch(&mut self, mut request: Request<'_>, space: &Pieces<'_>) -> Result<Reply, Errno> {
        let header: InHeader = request.header;
        let ready = self.server.agreed(u64::MAX);
        if header.opcode == op::WRITE && ready {
            let (write, data) = request.data()?;
            return self.write(&header, write, data);
        }
        let body = request.body()?;
        if header.opcode == op::INIT {
            return self.server.init(body);
        }
        if !ready {
            return Err(Errno::EIO);
        }
        match header.opcode {
            op::LOOKUP => self.lookup(&header, body),
            op::FORGET => self.forget(&header, body),
            op::BATCH_FORGET => self.batch_forget(body),
            op::GETATTR => self.getattr(&header),
            op::STATX => self.statx(&header),
            op::SETATTR => self.setattr(&header, body),
            op::READLINK => self.readlink(&header),
            op::SYMLINK => self.symlink(&header, body),
            op::MKNOD => self.mknod(&header, body),
            op::MKDIR => self.mkdir(&header, body),
            op::UNLINK => self.unlink(&header, body, 0),
            op::RMDIR => self.unlink(&header, body, libc::AT_REMOVEDIR),
            op::RENAME | op::RENAME2 => self.rename(&header, body),
            op::LINK => self.link(&header, body),
            op::OPEN => self.open(&header, body),
            op::CREATE => self.create(&header, body),
            op::TMPFILE => self.tmpfile(&header, body),
            op::READ => self.read(&header, body, space),
            op::RELEASE | op::RELEASEDIR => self.release(&header, body),
            op::FLUSH => self.flush(&header, body),
            op::FSYNC | op::FSYNCDIR => self.fsync(&header, body),
            op::SYNCFS => self.syncfs(&header),
            op::STATFS => self.statfs(&header),
            op::FALLOCATE => self.fallocate(&header, body),
            op::LSEEK => self.lseek(&header, body),
            op::COPY_FILE_RANGE => self.copy(&header, body, false),
            op::COPY_FILE_RANGE_64 => self.copy(&header, body, true),
            op::OPENDIR => self.opendir(&header),
            op::READDIR => self.readdir(&header, body, space.len(), false),
            op::READDIRPLUS => self.readdir(&header, body, space.len(), true),
            op::SETXATTR => self.setxattr(&header, body),
            op::GETXATTR => self.getxattr(&header, body),
            op::LISTXATTR => self.listxattr(&header, body),
            op::REMOVEXATTR => self.removexattr(&header, body),
            op::DESTROY => {
                self.server.reset();
                Ok(Reply::DONE)
            }
            // The guest checks access itself, from owners, modes and lists; keeps its locks itself, since
            // another guest or a process of the host must not be able to stop a thread of the server; and
            // cannot interrupt what a file system does. It asks once, learns that, and asks no more.
            op::ACCESS | op::GETLK | op::SETLK | op::SETLKW | op::INTERRUPT => Err(Errno::ENOSYS),
            _ => Err(Errno::ENOSYS),
        }
    }
}
