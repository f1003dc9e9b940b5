//! Attributes of files, and of file systems.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::super::abi::{
    self, ATTR_SUBMOUNT, Attr, AttrOut, InHeader, SetattrIn, StatfsOut, Statx, StatxOut, SxTime, Wire, fattr,
};
use super::super::nodes::{Body as Is, Node};
use super::super::request::Body;
use super::super::server::Reply;
use super::super::sys::file::{self, Stat};
use super::super::tree::Cache;
use super::super::worker::Worker;

const BLOCK: u32 = 4096;
/// Of a directory that was made.
const MADE: u32 = libc::S_IFDIR | 0o555;

/// The attributes of `node`; directories that were made have no `stat`.
pub(super) fn attributes(node: &Node, stat: &Option<Stat>) -> Attr {
    let Some(stat) = stat else {
        return Attr { ino: node.id, mode: MADE, nlink: 2, blksize: BLOCK, ..Attr::default() };
    };
    let mounted = node.file().is_ok_and(|file| file.mounted);
    Attr {
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: stat.stx_atime.tv_sec as u64,
        mtime: stat.stx_mtime.tv_sec as u64,
        ctime: stat.stx_ctime.tv_sec as u64,
        atimensec: stat.stx_atime.tv_nsec,
        mtimensec: stat.stx_mtime.tv_nsec,
        ctimensec: stat.stx_ctime.tv_nsec,
        mode: stat.stx_mode.into(),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: device_number(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize: stat.stx_blksize,
        flags: if mounted { ATTR_SUBMOUNT } else { 0 },
    }
}

/// The kernel's 32 bits of a device (`new_encode_dev`) as the C library has it.
pub(super) fn device(number: u32) -> u64 {
    libc::makedev((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00))
}

fn device_number(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The attributes as they are now.
pub(super) fn present(node: &Node) -> Result<Option<Stat>, Errno> {
    match &node.body {
        Is::File(file) => file::stat(file.as_fd()).map(Some),
        Is::Made(_) => Ok(None),
    }
}

impl Worker {
    pub(in super::super) fn getattr(&mut self, header: &InHeader) -> Result<Reply, Errno> {
        let node = self.server.nodes.get(header.nodeid)?;
        // A handle, if one is given, is on the same file.
        let stat = present(&node)?;
        Ok(answer(&node, &stat))
    }

    pub(in super::super) fn statx(&mut self, header: &InHeader) -> Result<Reply, Errno> {
        let node = self.server.nodes.get(header.nodeid)?;
        let stat = present(&node)?;
        let attr = attributes(&node, &stat);
        let cache = node.file().map_or(Cache::ALWAYS, |file| file.share.cache);
        let time = |time: libc::statx_timestamp| SxTime { sec: time.tv_sec, nsec: time.tv_nsec, reserved: 0 };
        let mut known = Statx {
            mask: libc::STATX_BASIC_STATS,
            blksize: attr.blksize,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            mode: attr.mode as u16,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            ..Statx::default()
        };
        if let Some(stat) = &stat {
            known.mask |= stat.stx_mask & libc::STATX_BTIME;
            known.attributes = stat.stx_attributes;
            known.attributes_mask = stat.stx_attributes_mask;
            (known.atime, known.btime) = (time(stat.stx_atime), time(stat.stx_btime));
            (known.ctime, known.mtime) = (time(stat.stx_ctime), time(stat.stx_mtime));
            (known.rdev_major, known.rdev_minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        }
        let mut bytes = Vec::with_capacity(StatxOut::SIZE + abi::STATX_SPARE);
        StatxOut {
            attr_valid: cache.attributes.as_secs(),
            attr_valid_nsec: cache.attributes.subsec_nanos(),
            stat: known,
            ..StatxOut::default()
        }
        .encode(&mut bytes);
        bytes.resize(StatxOut::SIZE + abi::STATX_SPARE, 0);
        Ok(Reply::Bytes(bytes))
    }

    pub(in super::super) fn setattr(&mut self, header: &InHeader, mut body: Body) -> Result<Reply, Errno> {
        let set: SetattrIn = body.take()?;
        let has = |flag: u32| set.valid & flag != 0;
        let node = self.server.nodes.get(header.nodeid)?;
        let target = node.file()?.writable()?;
        if has(fattr::MODE) {
            // The guest has taken away what the caller may not set.
            self.keep_set_id(true)?;
            self.server.descriptors.chmod(target.as_fd(), set.mode & 0o7777)?;
        }
        if has(fattr::UID | fattr::GID) {
            let id = |flag, id: u32| match has(flag) {
                // The kernel would take this for "as it is".
                true if id == u32::MAX => Err(Errno::EINVAL),
                true => Ok(id),
                false => Ok(u32::MAX),
            };
            file::chown(target.as_fd(), id(fattr::UID, set.uid)?, id(fattr::GID, set.gid)?)?;
        }
        if has(fattr::SIZE) {
            let size = i64::try_from(set.size).map_err(|_| Errno::EFBIG)?;
            target.regular()?;
            self.keep_set_id(!has(fattr::KILL_SUIDGID))?;
            let open = if has(fattr::FH) { self.server.handles.get(set.fh, node.id).ok() } else { None };
            match open.filter(|handle| handle.writable) {
                Some(handle) => file::truncate(handle.fd()?, size)?,
                None => {
                    let open = self.server.descriptors.reopen(target.as_fd(), libc::O_WRONLY)?;
                    file::truncate(open.as_fd(), size)?;
                }
            }
        }
        if has(fattr::ATIME | fattr::MTIME | fattr::ATIME_NOW | fattr::MTIME_NOW) {
            let time = |given, now, sec: u64, nsec: u32| libc::timespec {
                tv_sec: sec as i64,
                tv_nsec: match (has(now), has(given)) {
                    (true, _) => libc::UTIME_NOW,
                    (false, true) => i64::from(nsec.min(999_999_999)),
                    (false, false) => libc::UTIME_OMIT,
                },
            };
            let times = [
                time(fattr::ATIME, fattr::ATIME_NOW, set.atime, set.atimensec),
                time(fattr::MTIME, fattr::MTIME_NOW, set.mtime, set.mtimensec),
            ];
            file::set_times(target.as_fd(), &times)?;
        }
        let stat = present(&node)?;
        Ok(answer(&node, &stat))
    }

    pub(in super::super) fn statfs(&mut self, header: &InHeader) -> Result<Reply, Errno> {
        let node = self.server.nodes.get(header.nodeid)?;
        let Is::File(target) = &node.body else {
            return Ok(Reply::of(&StatfsOut {
                bsize: BLOCK,
                frsize: BLOCK,
                namelen: 255,
                ..StatfsOut::default()
            }));
        };
        let stat = file::statfs(target.as_fd())?;
        Ok(Reply::of(&StatfsOut {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: stat.f_bsize as u32,
            namelen: stat.f_namelen as u32,
            frsize: stat.f_frsize as u32,
            ..StatfsOut::default()
        }))
    }
}

fn answer(node: &Node, stat: &Option<Stat>) -> Reply {
    let cache = node.file().map_or(Cache::ALWAYS, |file| file.share.cache);
    Reply::of(&AttrOut {
        attr_valid: cache.attributes.as_secs(),
        attr_valid_nsec: cache.attributes.subsec_nanos(),
        dummy: 0,
        attr: attributes(node, stat),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_both_ways() {
        for (major, minor) in [(0, 0), (1, 3), (8, 1), (259, 70_000), (4095, 0xf_ffff)] {
            assert_eq!(device(device_number(major, minor)), libc::makedev(major, minor));
        }
    }
}
