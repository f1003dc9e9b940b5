//! Owners, modes, attributes and times, always on a descriptor or on a name that is not followed.
//!
//! Owns the order: owner first, since chown(2) clears set-id bits and file capabilities; attributes;
//! mode; times last. Owns which attributes of an archive are believed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

use super::tape::{Entry, Kind};
use super::{Options, Owners};
use crate::error::{Context, Error, Result};
use crate::sys::fs::{BENEATH, cstring, fsetxattr, lsetxattr, openat2};

/// Attributes that an archive may not set: overlayfs would obey them, or the host's policy owns them.
const REFUSED: &[&[u8]] = &[
    b"trusted.overlay.",
    b"user.overlay.",
    b"security.selinux",
    b"security.ima",
    b"security.evm",
    b"security.apparmor",
    b"security.SMACK",
];

/// The attributes of `entry` that are taken over.
fn attributes(entry: &Entry) -> impl Iterator<Item = Result<(CString, &[u8])>> {
    entry.xattrs.iter().filter(|(name, _)| !REFUSED.iter().any(|prefix| name.starts_with(prefix))).map(
        |(name, value)| {
            let name = cstring(name).doing(|| "reading the name of an extended attribute")?;
            Ok((name, value.as_slice()))
        },
    )
}

fn set(name: &CStr, options: &Options, result: nix::Result<()>) -> Result<()> {
    match result {
        // Without privileges, file capabilities and trusted attributes cannot be had.
        Err(Errno::EPERM | Errno::ENOTSUP) if options.owners == Owners::Squash => Ok(()),
        // Root of a user namespace has capabilities to give, but nothing that only the first one knows.
        Err(Errno::EPERM) if options.userxattr && name != c"security.capability" => Ok(()),
        other => other.doing(|| format!("setting the attribute {}", name.to_string_lossy())),
    }
}

fn time((seconds, nanos): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanos))
}

/// Gives what `fd` refers to to the owner that the archive says.
fn give(fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchownat(fd, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).map_err(|errno| {
        let err = Error::sys(errno, format!("giving it to {uid}:{gid}"));
        match errno {
            // chown(2) to an id that this user namespace does not map.
            Errno::EINVAL => err.hint("give the user more subordinate ids in /etc/subuid and /etc/subgid"),
            _ => err,
        }
    })
}

/// A regular file, open for writing.
pub fn own_file(fd: BorrowedFd<'_>, entry: &Entry, options: &Options) -> Result<()> {
    if options.owners == Owners::Keep {
        give(fd, entry)?;
    }
    for attribute in attributes(entry) {
        let (name, value) = attribute?;
        set(&name, options, fsetxattr(fd, &name, value))?;
    }
    fchmod(fd, Mode::from_bits_truncate(entry.mode)).doing(|| "setting the mode")?;
    futimens(fd, &time(entry.mtime), &time(entry.mtime)).doing(|| "setting the time")
}

/// The path by which the system calls that know no descriptors reach `name` in `dir`.
fn by_proc(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    cstring(&path)
}

/// An attribute of the directory that the `O_PATH` descriptor `dir` refers to.
pub fn set_dir_xattr(dir: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    lsetxattr(&by_proc(dir, b".")?, name, value)
}

/// A directory, by `O_PATH` descriptor; mode and time come when nothing more is put in it.
pub fn own_dir(dir: BorrowedFd<'_>, entry: &Entry, options: &Options) -> Result<()> {
    if options.owners == Owners::Keep {
        give(dir, entry)?;
    }
    for attribute in attributes(entry) {
        let (name, value) = attribute?;
        set(&name, options, set_dir_xattr(dir, &name, value))?;
    }
    Ok(())
}

/// Mode and time of the directory that the `O_PATH` descriptor `dir` refers to.
pub fn settle_dir(dir: BorrowedFd<'_>, mode: u32, mtime: (i64, u32)) -> nix::Result<()> {
    let place = by_proc(dir, b".")?;
    nix::sys::stat::fchmodat(
        dir,
        place.as_c_str(),
        Mode::from_bits_truncate(mode),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?;
    utimensat(dir, place.as_c_str(), &time(mtime), &time(mtime), UtimensatFlags::FollowSymlink)
}

/// A link, a device or a pipe that was just made as `name` in `dir`.
pub fn own_node(dir: BorrowedFd<'_>, name: &[u8], entry: &Entry, options: &Options) -> Result<()> {
    // The node itself by descriptor: what has its name a moment later may be another.
    let node = openat2(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0, BENEATH & !libc::RESOLVE_NO_SYMLINKS)
        .doing(|| "opening it")?;
    if options.owners == Owners::Keep {
        give(node.as_fd(), entry)?;
    }
    let place = by_proc(dir, name).doing(|| "naming it")?;
    for attribute in attributes(entry) {
        let (name, value) = attribute?;
        match lsetxattr(&place, &name, value) {
            // Links and nodes cannot have user.* attributes (xattr(7)); archives say so all the same.
            Err(Errno::EPERM) if name.to_bytes().starts_with(b"user.") => {}
            other => set(&name, options, other)?,
        }
    }
    if entry.kind != Kind::SymLink {
        let stat = nix::sys::stat::fstat(&node).doing(|| "looking at it")?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(Error::corrupt("it was replaced by a link meanwhile"));
        }
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&node));
        nix::sys::stat::fchmodat(
            dir,
            path.as_str(),
            Mode::from_bits_truncate(entry.mode),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .doing(|| "setting the mode")?;
    }
    utimensat(dir, name, &time(entry.mtime), &time(entry.mtime), UtimensatFlags::NoFollowSymlink)
        .doing(|| "setting the time")
}
