//! Names: looked up, made, moved, removed, forgotten.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::errno::Errno;

use super::super::abi::{
    BatchForgetIn, EntryOut, ForgetIn, ForgetOne, InHeader, LinkIn, MkdirIn, MknodIn, Rename2In, RenameIn, op,
};
use super::super::nodes::{Body as Is, File, Node};
use super::super::request::Body;
use super::super::server::Reply;
use super::super::sys::file::{self, Stat};
use super::super::tree::Cache;
use super::super::worker::Worker;
use super::attributes::{attributes, device, present};

/// The flags of an `O_PATH` descriptor of whatever a name leads to.
pub(super) const PATH: i32 = libc::O_PATH | libc::O_NOFOLLOW;
const MODE: u32 = 0o7777;

impl Worker {
    pub(in super::super) fn lookup(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let parent = self.server.nodes.get(header.nodeid)?;
        let name = body.name()?;
        match self.find(&parent, &name) {
            Ok((node, stat)) => Ok(Reply::of(&self.entry(&node, &stat))),
            Err(Errno::ENOENT) => {
                // That there is nothing may be remembered too.
                let names = parent.absent();
                if names.is_zero() {
                    return Err(Errno::ENOENT);
                }
                Ok(Reply::of(&EntryOut {
                    entry_valid: names.as_secs(),
                    entry_valid_nsec: names.subsec_nanos(),
                    ..EntryOut::default()
                }))
            }
            Err(errno) => Err(errno),
        }
    }

    /// The node that `name` in `parent` leads to, given to the guest once more.
    pub(super) fn find(&self, parent: &Node, name: &CStr) -> Result<(Arc<Node>, Option<Stat>), Errno> {
        let dir = match &parent.body {
            Is::File(file) => file.directory()?,
            Is::Made(_) => {
                let node = self.server.nodes.named(parent.id, name.to_bytes()).ok_or(Errno::ENOENT)?;
                return match present(&node) {
                    Ok(stat) => Ok((node, stat)),
                    Err(errno) => {
                        self.server.nodes.forget(node.id, 1);
                        Err(errno)
                    }
                };
            }
        };
        // One name, and no link is followed: this looks at nothing outside of the directory.
        let stat = file::stat_name(dir.as_fd(), name)?;
        if let Some(node) = self.server.nodes.known(dir, &stat) {
            return Ok((node, Some(stat)));
        }
        let fd = file::open_beneath(dir.as_fd(), name, PATH, 0)?;
        // Of what was opened: the name may lead elsewhere since.
        let stat = file::stat(fd.as_fd())?;
        Ok((self.server.nodes.insert(dir, fd, &stat)?, Some(stat)))
    }

    /// What the guest is told of a node that it is given.
    pub(super) fn entry(&self, node: &Node, stat: &Option<Stat>) -> EntryOut {
        let names = node.believed();
        let attributes_valid = node.file().map_or(Cache::ALWAYS, |file| file.share.cache).attributes;
        EntryOut {
            nodeid: node.id,
            generation: 0,
            entry_valid: names.as_secs(),
            attr_valid: attributes_valid.as_secs(),
            entry_valid_nsec: names.subsec_nanos(),
            attr_valid_nsec: attributes_valid.subsec_nanos(),
            attr: attributes(node, stat),
        }
    }

    /// After something was made.
    fn made(&self, parent: &Node, name: &CStr) -> Result<Reply, Errno> {
        let (node, stat) = self.find(parent, name)?;
        Ok(Reply::of(&self.entry(&node, &stat)))
    }

    pub(in super::super) fn forget(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        if let Ok(forget) = body.take::<ForgetIn>() {
            self.server.nodes.forget(header.nodeid, forget.nlookup);
        }
        Ok(Reply::None)
    }

    pub(in super::super) fn batch_forget(&mut self, mut body: Body) -> Result<Reply, Errno> {
        let count = body.take::<BatchForgetIn>().map_or(0, |batch| batch.count);
        for _ in 0..count {
            let Ok(one) = body.take::<ForgetOne>() else { break };
            self.server.nodes.forget(one.nodeid, one.nlookup);
        }
        Ok(Reply::None)
    }

    pub(in super::super) fn mkdir(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let make: MkdirIn = body.take()?;
        let name = body.name()?;
        let parent = self.server.nodes.get(header.nodeid)?;
        let dir = directory(&parent)?;
        self.act_for(header, make.umask)?;
        file::mkdir(dir.as_fd(), &name, make.mode & MODE)?;
        self.made(&parent, &name)
    }

    pub(in super::super) fn mknod(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let make: MknodIn = body.take()?;
        let name = body.name()?;
        let parent = self.server.nodes.get(header.nodeid)?;
        let dir = directory(&parent)?;
        self.act_for(header, make.umask)?;
        file::mknod(dir.as_fd(), &name, make.mode & (libc::S_IFMT | MODE), device(make.rdev))?;
        self.made(&parent, &name)
    }

    pub(in super::super) fn symlink(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let name = body.name()?;
        let target = body.text(libc::PATH_MAX as usize - 1)?;
        let parent = self.server.nodes.get(header.nodeid)?;
        let dir = directory(&parent)?;
        self.act_for(header, 0)?;
        file::symlink(&target, dir.as_fd(), &name)?;
        self.made(&parent, &name)
    }

    pub(in super::super) fn link(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let link: LinkIn = body.take()?;
        let name = body.name()?;
        let old = self.server.nodes.get(link.oldnodeid)?;
        let parent = self.server.nodes.get(header.nodeid)?;
        let (old, dir) = (old.file()?.writable()?, directory(&parent)?);
        if !old.beside(dir) {
            return Err(Errno::EXDEV);
        }
        if old.kind == libc::S_IFDIR {
            return Err(Errno::EPERM);
        }
        self.server.descriptors.link(old.as_fd(), dir.as_fd(), &name)?;
        self.made(&parent, &name)
    }

    pub(in super::super) fn unlink(
        &mut self,
        header: &InHeader,
        mut body: Body,
        flags: i32,
    ) -> Result<Reply, Errno> {
        let name = body.name()?;
        let parent = self.server.nodes.get(header.nodeid)?;
        file::unlink(directory(&parent)?.as_fd(), &name, flags)?;
        Ok(Reply::DONE)
    }

    pub(in super::super) fn rename(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let (newdir, flags) = if header.opcode == op::RENAME2 {
            let rename: Rename2In = body.take()?;
            (rename.newdir, rename.flags)
        } else {
            (body.take::<RenameIn>()?.newdir, 0)
        };
        if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT) != 0 {
            return Err(Errno::EINVAL);
        }
        let (old_name, new_name) = (body.name()?, body.name()?);
        let (old, new) = (self.server.nodes.get(header.nodeid)?, self.server.nodes.get(newdir)?);
        let (old, new) = (directory(&old)?, directory(&new)?);
        if !old.beside(new) {
            return Err(Errno::EXDEV);
        }
        if flags & libc::RENAME_WHITEOUT != 0 {
            // The whiteout belongs to the caller.
            self.act_for(header, 0)?;
        }
        file::rename(old.as_fd(), &old_name, new.as_fd(), &new_name, flags)?;
        Ok(Reply::DONE)
    }
}

/// The directory that `node` is, for a change in it.
pub(super) fn directory(node: &Node) -> Result<&File, Errno> {
    node.file()?.directory()?.writable()
}
