//! Files and directories: opened, made and opened, closed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;

use super::super::abi::{
    CreateIn, FlushIn, InHeader, OPEN_KILL_SUIDGID, OpenIn, OpenOut, ReleaseIn, Wire, fopen,
};
use super::super::handles::Handle;
use super::super::nodes::{Body as Is, Node};
use super::super::request::Body;
use super::super::server::Reply;
use super::super::sys::file;
use super::super::worker::Worker;
use super::names::{PATH, directory};

/// What a guest may ask for at opening. Not in it: O_APPEND comes with each write, and pages that are written
/// back must go to their own place; O_DIRECT is about the guest's cache, and would ask the guest's memory for
/// an alignment; what leads elsewhere or waits.
const FLAGS: i32 = libc::O_ACCMODE | libc::O_TRUNC | libc::O_DSYNC | libc::O_SYNC | libc::O_NOATIME;

fn flags(asked: u32) -> Result<i32, Errno> {
    let flags = asked as i32 & FLAGS;
    if flags & libc::O_ACCMODE == libc::O_ACCMODE { Err(Errno::EINVAL) } else { Ok(flags) }
}

fn writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0
}

impl Worker {
    pub(in super::super) fn open(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let open: OpenIn = body.take()?;
        let node = self.server.nodes.get(header.nodeid)?;
        Ok(Reply::of(&self.open_node(node, flags(open.flags)?, open.open_flags)?))
    }

    fn open_node(&mut self, node: Arc<Node>, flags: i32, kill: u32) -> Result<OpenOut, Errno> {
        // First of all, so that no device and no pipe is ever opened.
        let target = node.file()?.regular()?;
        if writes(flags) {
            target.writable()?;
        }
        if flags & libc::O_TRUNC != 0 {
            self.keep_set_id(kill & OPEN_KILL_SUIDGID == 0)?;
        }
        let file = self.server.descriptors.reopen(target.as_fd(), flags)?;
        self.keep_handle(node, file, flags)
    }

    /// Keeps an open file for the guest, and says how the guest shall treat it.
    fn keep_handle(&mut self, node: Arc<Node>, file: OwnedFd, flags: i32) -> Result<OpenOut, Errno> {
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let target = node.file()?;
        let mut treat = 0;
        if !target.share.cache.data {
            treat |= fopen::DIRECT_IO;
        } else if target.unchanged(&file::stat(file.as_fd())?) {
            treat |= fopen::KEEP_CACHE;
        }
        if !writable || !target.flushes() {
            treat |= fopen::NOFLUSH;
        }
        let fh = self.server.handles.insert(Handle::new(node, Some(file), writable))?;
        Ok(OpenOut { fh, open_flags: treat, padding: 0 })
    }

    pub(in super::super) fn create(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let create: CreateIn = body.take()?;
        let name = body.name()?;
        let flags = flags(create.flags)?;
        let parent = self.server.nodes.get(header.nodeid)?;
        let dir = directory(&parent)?;
        self.act_for(header, create.umask)?;
        // A new file, or none: of what is there already, a look-up says whether it may be opened.
        let make = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | flags & !libc::O_TRUNC;
        match file::open_beneath(dir.as_fd(), &name, make, create.mode & 0o7777) {
            Ok(file) => self.keep_new(&parent, file, flags),
            Err(Errno::EEXIST) if create.flags as i32 & libc::O_EXCL == 0 => {
                let (node, stat) = self.find(&parent, &name)?;
                let entry = self.entry(&node, &stat);
                match self.open_node(node.clone(), flags, create.open_flags) {
                    Ok(open) => Ok(both(&entry, &open)),
                    Err(errno) => {
                        self.server.nodes.forget(node.id, 1);
                        Err(errno)
                    }
                }
            }
            Err(errno) => Err(errno),
        }
    }

    pub(in super::super) fn tmpfile(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let create: CreateIn = body.take()?;
        let flags = flags(create.flags)?;
        let parent = self.server.nodes.get(header.nodeid)?;
        let dir = directory(&parent)?;
        self.act_for(header, create.umask)?;
        let make = libc::O_TMPFILE | flags & !libc::O_TRUNC | create.flags as i32 & libc::O_EXCL;
        let file = file::open_beneath(dir.as_fd(), c".", make, create.mode & 0o7777)?;
        self.keep_new(&parent, file, flags)
    }

    /// The answer for a file that was just made in `parent`.
    fn keep_new(&mut self, parent: &Node, file: OwnedFd, flags: i32) -> Result<Reply, Errno> {
        // Of the open file itself: its name may lead elsewhere already.
        let path = self.server.descriptors.reopen(file.as_fd(), PATH & !libc::O_NOFOLLOW)?;
        let stat = file::stat(path.as_fd())?;
        let node = self.server.nodes.insert(parent.file()?, path, &stat)?;
        let entry = self.entry(&node, &Some(stat));
        match self.keep_handle(node.clone(), file, flags) {
            Ok(open) => Ok(both(&entry, &open)),
            Err(errno) => {
                self.server.nodes.forget(node.id, 1);
                Err(errno)
            }
        }
    }

    pub(in super::super) fn opendir(&mut self, header: &InHeader) -> Result<Reply, Errno> {
        let node = self.server.nodes.get(header.nodeid)?;
        let file = match &node.body {
            Is::Made(_) => None,
            Is::File(dir) => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY;
                Some(self.server.descriptors.reopen(dir.directory()?.as_fd(), flags)?)
            }
        };
        let fh = self.server.handles.insert(Handle::new(node, file, false))?;
        Ok(Reply::of(&OpenOut { fh, ..OpenOut::default() }))
    }

    pub(in super::super) fn release(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let release: ReleaseIn = body.take()?;
        self.server.handles.remove(release.fh, header.nodeid)?;
        Ok(Reply::DONE)
    }

    /// One of the descriptors of an open file was closed in the guest: a network file system tells now what it
    /// could not write.
    pub(in super::super) fn flush(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let flush: FlushIn = body.take()?;
        let handle = self.server.handles.get(flush.fh, header.nodeid)?;
        let copy = handle
            .fd()?
            .try_clone_to_owned()
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
        nix::unistd::close(copy)?;
        Ok(Reply::DONE)
    }
}

/// What CREATE answers: what LOOKUP does, then what OPEN does.
fn both(entry: &impl Wire, open: &OpenOut) -> Reply {
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    open.encode(&mut bytes);
    Reply::Bytes(bytes)
}
