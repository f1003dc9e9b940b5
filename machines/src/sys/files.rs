//! What file systems do beside read and write: project ids, shared data, freezing, discarding, growing.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const FICLONE: libc::c_ulong = 0x4004_9409;
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;
const FITRIM: libc::c_ulong = 0xc018_5879;
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

fn fsxattr(file: impl AsFd) -> nix::Result<FsXattr> {
    let mut attr = FsXattr::default();
    // SAFETY: the kernel writes one struct fsxattr, which attr is.
    Errno::result(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), FS_IOC_FSGETXATTR, &mut attr) })?;
    Ok(attr)
}

/// The project of a file or directory, and whether what is made in the directory gets it too.
pub fn project(file: impl AsFd) -> nix::Result<(u32, bool)> {
    fsxattr(file).map(|attr| (attr.project, attr.flags & FS_XFLAG_PROJINHERIT != 0))
}

/// Gives a directory to a project, and with it all that is made in it from now on.
pub fn set_project(dir: impl AsFd, project: u32) -> nix::Result<()> {
    let mut attr = fsxattr(&dir)?;
    attr.project = project;
    attr.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the kernel reads one struct fsxattr, which attr is.
    Errno::result(unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), FS_IOC_FSSETXATTR, &attr) }).map(drop)
}

/// ioctl_ficlone(2): `to` has the data of `from`, shared until one of them is written.
pub fn clone_data(from: impl AsFd, to: impl AsFd) -> nix::Result<()> {
    let from = from.as_fd().as_raw_fd();
    // SAFETY: plain integers.
    Errno::result(unsafe { libc::ioctl(to.as_fd().as_raw_fd(), FICLONE, from) }).map(drop)
}

/// Brings a file system to its disk and holds all that would write to it.
pub fn freeze(root: impl AsFd) -> nix::Result<()> {
    // SAFETY: the argument is not used.
    Errno::result(unsafe { libc::ioctl(root.as_fd().as_raw_fd(), FIFREEZE, 0) }).map(drop)
}

/// Ends what [`freeze`] began; `EINVAL` where nothing is frozen.
pub fn thaw(root: impl AsFd) -> nix::Result<()> {
    // SAFETY: the argument is not used.
    Errno::result(unsafe { libc::ioctl(root.as_fd().as_raw_fd(), FITHAW, 0) }).map(drop)
}

/// Tells the device below which blocks are not used; the bytes that were given back.
pub fn trim(root: impl AsFd) -> nix::Result<u64> {
    // start, length, least extent
    let mut range = [0, u64::MAX, 0];
    // SAFETY: the kernel reads and writes a struct fstrim_range, which is three 64-bit numbers.
    Errno::result(unsafe { libc::ioctl(root.as_fd().as_raw_fd(), FITRIM, range.as_mut_ptr()) })?;
    Ok(range[1])
}

/// Grows a mounted ext4 to `blocks` blocks.
pub fn grow_ext4(root: impl AsFd, blocks: u64) -> nix::Result<()> {
    // SAFETY: the kernel reads one 64-bit number.
    Errno::result(unsafe { libc::ioctl(root.as_fd().as_raw_fd(), EXT4_IOC_RESIZE_FS, &blocks) }).map(drop)
}
