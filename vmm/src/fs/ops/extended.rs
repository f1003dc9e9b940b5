//! Extended attributes, and the target of symbolic links.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::super::abi::{Getxattr, InHeader, SETXATTR_ACL_KILL_SGID, SetxattrIn, SetxattrInShort, init};
use super::super::nodes::Body as Is;
use super::super::request::Body;
use super::super::server::Reply;
use super::super::sys::file;
use super::super::worker::Worker;

/// The longest name (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;
/// The longest value, and list of names (`XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 65536;

/// What a guest may see and set. All others are about the host: the labels of its security modules, its
/// integrity measurement, what a file system shows of itself.
fn shared(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

fn checked(name: &CStr) -> Result<&CStr, Errno> {
    if shared(name.to_bytes()) { Ok(name) } else { Err(Errno::EOPNOTSUPP) }
}

impl Worker {
    pub(in super::super) fn readlink(&mut self, header: &InHeader) -> Result<Reply, Errno> {
        let node = self.server.nodes.get(header.nodeid)?;
        let Is::File(link) = &node.body else { return Err(Errno::EINVAL) };
        if link.kind != libc::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        Ok(Reply::Bytes(file::readlink(link.as_fd())?))
    }

    pub(in super::super) fn setxattr(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let set = if self.server.agreed(init::SETXATTR_EXT) {
            body.take::<SetxattrIn>()?
        } else {
            let SetxattrInShort { size, flags } = body.take()?;
            SetxattrIn { size, flags, ..SetxattrIn::default() }
        };
        let name = body.text(NAME_MAX)?;
        let node = self.server.nodes.get(header.nodeid)?;
        let target = node.file()?.writable()?;
        if set.size as usize > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        let value = body.bytes(set.size as usize)?;
        let name = checked(&name)?;
        let kill = set.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0;
        if kill {
            // Whether the bit goes depends on the caller's group too.
            self.act_for(header, 0)?;
        }
        self.keep_set_id(!kill)?;
        file::set_attribute(target.as_fd(), name, value, set.flags as i32)?;
        Ok(Reply::DONE)
    }

    pub(in super::super) fn getxattr(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let get: Getxattr = body.take()?;
        let name = body.text(NAME_MAX)?;
        let node = self.server.nodes.get(header.nodeid)?;
        let Is::File(target) = &node.body else { return Err(Errno::ENODATA) };
        let name = checked(&name)?;
        sized(get.size, |buffer| file::get_attribute(target.as_fd(), name, buffer))
    }

    pub(in super::super) fn listxattr(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let get: Getxattr = body.take()?;
        let node = self.server.nodes.get(header.nodeid)?;
        let Is::File(target) = &node.body else { return sized(get.size, |_| Ok(0)) };
        let mut all = vec![0; VALUE_MAX];
        let count = file::list_attributes(target.as_fd(), &mut all)?;
        all.truncate(count);
        let names: Vec<u8> = all
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| shared(name.strip_suffix(b"\0").unwrap_or(name)))
            .flatten()
            .copied()
            .collect();
        sized(get.size, |buffer| {
            if !buffer.is_empty() {
                buffer.get_mut(..names.len()).ok_or(Errno::ERANGE)?.copy_from_slice(&names);
            }
            Ok(names.len())
        })
    }

    pub(in super::super) fn removexattr(
        &mut self,
        header: &InHeader,
        mut body: Body,
    ) -> Result<Reply, Errno> {
        let name = body.text(NAME_MAX)?;
        let node = self.server.nodes.get(header.nodeid)?;
        file::remove_attribute(node.file()?.writable()?.as_fd(), checked(&name)?)?;
        Ok(Reply::DONE)
    }
}

/// The answer to a question of `size` bytes: what `get` fills in, or its length for a question of none.
fn sized(size: u32, get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Result<Reply, Errno> {
    let mut buffer = vec![0; (size as usize).min(VALUE_MAX)];
    let count = get(&mut buffer)?;
    if size == 0 {
        return Ok(Reply::of(&Getxattr { size: count as u32, padding: 0 }));
    }
    buffer.truncate(count);
    Ok(Reply::Bytes(buffer))
}
