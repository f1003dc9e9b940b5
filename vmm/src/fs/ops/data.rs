//! What is in files: read and written straight between them and the guest's memory.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::super::abi::{
    CopyIn, FSYNC_FDATASYNC, FallocateIn, FsyncIn, InHeader, LseekIn, ReadIn, WRITE_CACHE,
    WRITE_KILL_SUIDGID, WriteIn, WriteOut,
};
use super::super::nodes::{Body as Is, Node};
use super::super::request::{Body, Pieces};
use super::super::server::{DATA_MAX, Reply};
use super::super::sys::{file, memory};
use super::super::tree::Access;
use super::super::worker::Worker;

fn offset(offset: u64) -> Result<i64, Errno> {
    i64::try_from(offset).map_err(|_| Errno::EINVAL)
}

impl Worker {
    pub(in super::super) fn read(
        &mut self,
        header: &InHeader,
        mut body: Body,
        space: &Pieces<'_>,
    ) -> Result<Reply, Errno> {
        let read: ReadIn = body.take()?;
        let handle = self.server.handles.get(read.fh, header.nodeid)?;
        let count = (read.size.min(DATA_MAX) as usize).min(space.len());
        let into = Pieces::new(space.slices().to_vec()).split(count).ok_or(Errno::EINVAL)?;
        Ok(Reply::Placed(memory::read(handle.fd()?, into.slices(), offset(read.offset)?)?))
    }

    pub(in super::super) fn write(
        &mut self,
        header: &InHeader,
        write: WriteIn,
        mut data: Pieces<'_>,
    ) -> Result<Reply, Errno> {
        let handle = self.server.handles.get(write.fh, header.nodeid)?;
        if write.size > DATA_MAX || !handle.writable {
            return Err(if handle.writable { Errno::EINVAL } else { Errno::EBADF });
        }
        let from = data.split(write.size as usize).ok_or(Errno::EINVAL)?;
        self.keep_set_id(write.write_flags & WRITE_KILL_SUIDGID == 0)?;
        // The flag is the descriptor's as it is now, and not that of pages that are written back.
        let append = write.flags as i32 & libc::O_APPEND != 0 && write.write_flags & WRITE_CACHE == 0;
        let count = memory::write(handle.fd()?, from.slices(), offset(write.offset)?, append)?;
        Ok(Reply::of(&WriteOut { size: count as u32, padding: 0 }))
    }

    pub(in super::super) fn fsync(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let sync: FsyncIn = body.take()?;
        let handle = self.server.handles.get(sync.fh, header.nodeid)?;
        if matches!(handle.node.body, Is::File(_)) {
            file::sync(handle.fd()?, sync.fsync_flags & FSYNC_FDATASYNC != 0)?;
        }
        Ok(Reply::DONE)
    }

    /// `syncfs` of a mount in the guest, or of all for the top directory.
    pub(in super::super) fn syncfs(&mut self, header: &InHeader) -> Result<Reply, Errno> {
        let node = self.server.nodes.get(header.nodeid)?;
        match node.body {
            Is::File(_) => self.sync_node(&node)?,
            Is::Made(_) => {
                for entry in self.server.nodes.entries() {
                    self.sync_node(&entry)?;
                }
            }
        }
        Ok(Reply::DONE)
    }

    fn sync_node(&self, node: &Node) -> Result<(), Errno> {
        match &node.body {
            Is::File(target)
                if target.share.access == Access::ReadWrite
                    && matches!(target.kind, libc::S_IFREG | libc::S_IFDIR) =>
            {
                let open = self.server.descriptors.reopen(target.as_fd(), libc::O_RDONLY)?;
                file::sync_all(open.as_fd())
            }
            _ => Ok(()),
        }
    }

    pub(in super::super) fn fallocate(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let allocate: FallocateIn = body.take()?;
        let handle = self.server.handles.get(allocate.fh, header.nodeid)?;
        if !handle.writable {
            return Err(Errno::EBADF);
        }
        // The request does not say whether the caller may keep set-id bits.
        self.keep_set_id(header.uid == 0)?;
        let (from, length) = (offset(allocate.offset)?, offset(allocate.length)?);
        file::allocate(handle.fd()?, allocate.mode as i32, from, length)?;
        Ok(Reply::DONE)
    }

    pub(in super::super) fn lseek(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let seek: LseekIn = body.take()?;
        let handle = self.server.handles.get(seek.fh, header.nodeid)?;
        if !matches!(seek.whence as i32, libc::SEEK_DATA | libc::SEEK_HOLE) {
            // The guest knows all other places itself.
            return Err(Errno::EINVAL);
        }
        handle.node.file()?.regular()?;
        let found = file::seek(handle.fd()?, offset(seek.offset)?, seek.whence as i32)?;
        Ok(Reply::of(&(found as u64)))
    }

    pub(in super::super) fn copy(
        &mut self,
        header: &InHeader,
        mut body: Body,
        long: bool,
    ) -> Result<Reply, Errno> {
        let copy: CopyIn = body.take()?;
        if copy.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let from = self.server.handles.get(copy.fh_in, header.nodeid)?;
        let to = self.server.handles.get(copy.fh_out, copy.nodeid_out)?;
        if !to.writable {
            return Err(Errno::EBADF);
        }
        // A copy that is no clone holds the thread: more than this is asked for again.
        let most = if long { 1 << 30 } else { 1 << 27 };
        self.keep_set_id(header.uid == 0)?;
        let length = copy.len.min(most) as usize;
        let count = file::copy(from.fd()?, offset(copy.off_in)?, to.fd()?, offset(copy.off_out)?, length)?;
        if long {
            return Ok(Reply::of(&(count as u64)));
        }
        Ok(Reply::of(&WriteOut { size: count as u32, padding: 0 }))
    }
}
