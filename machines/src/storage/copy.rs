//! Copies of trees and files, by descriptor, with everything that a file has.
//!
//! Owns what a copy keeps: owners, modes, times, extended attributes, hard links, holes, device nodes. Data is
//! shared where the file system can. Never follows a link and never leaves the tree.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use locule_images::sys::fs::{BENEATH, cstring, fsetxattr, lgetxattr, llistxattr, lsetxattr, openat2};
use locule_images::unpack::tree::{is_whiteout, kind, shown};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, futimens,
    mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, Whence, fchown, fchownat, linkat, lseek, symlinkat};

use crate::{Context, Error, Result};

/// The deepest tree: two descriptors are held for each level.
const DEEPEST: usize = 400;
/// What is read and written at once.
const CHUNK: usize = 1 << 20;

/// What hears of the bytes that were copied; data that is shared counts as copied.
pub trait Progress {
    /// So many more.
    fn bytes(&mut self, more: u64);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn bytes(&mut self, _more: u64) {}
}

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Part of an overlay: its whiteouts and attributes are kept.
    Overlay,
    /// A whole root file system, in which overlayfs's marks have no meaning.
    Whole,
}

/// A copy under way.
pub struct Copy<'a> {
    form: Form,
    progress: &'a mut dyn Progress,
    /// Whether data can be shared between the two file systems; unknown until it was tried.
    shares: Option<bool>,
    /// Where the first name of a file with several names is in the copy.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<'a> Copy<'a> {
    /// A copy of trees of the form `form`.
    pub fn new(form: Form, progress: &'a mut dyn Progress) -> Copy<'a> {
        Copy { form, progress, shares: None, links: HashMap::new(), buffer: Vec::new() }
    }

    /// Whether data was shared; `None` where no data was copied.
    pub fn shares(&self) -> Option<bool> {
        self.shares
    }

    /// Copies what is in the directory `from` into the empty directory `to`, which becomes like it.
    pub fn tree(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        // Hard links do not lead from one tree to another.
        self.links.clear();
        let root = open_dir(to, b".").doing(|| "opening the copy")?;
        self.dir(from, root.as_fd(), root.as_fd(), b"", 0)
    }

    fn dir(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        root: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
    ) -> Result<()> {
        let doing = || format!("copying the directory {}", shown(path));
        if depth > DEEPEST {
            return Err(Error::unsupported(format!("{}: it lies too deep", doing())));
        }
        let source = open_dir(from, b".").doing(doing)?;
        let stat = fstat(&source).doing(doing)?;
        let mut list = Dir::from_fd(source).doing(doing)?;
        let names: Vec<Vec<u8>> = list
            .iter()
            .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
            .filter(|name| !matches!(name.as_deref(), Ok(b"." | b"..")))
            .collect::<nix::Result<_>>()
            .doing(doing)?;
        for name in names {
            let own = if path.is_empty() { name.clone() } else { [path, b"/", name.as_slice()].concat() };
            self.entry(from, to, root, &name, &own, depth)?;
        }
        // Last, so that its time is not changed any more.
        let place = by_proc(to, b".").doing(doing)?;
        fchownat(
            to,
            "",
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
            AtFlags::AT_EMPTY_PATH,
        )
        .doing(doing)?;
        self.attributes(&by_proc(from, b".").doing(doing)?, &place).doing(doing)?;
        fchmodat(to, place.as_c_str(), mode(&stat), FchmodatFlags::FollowSymlink).doing(doing)?;
        let (access, change) = times(&stat);
        utimensat(to, place.as_c_str(), &access, &change, UtimensatFlags::FollowSymlink).doing(doing)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        root: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<()> {
        let doing = || format!("copying {}", shown(path));
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).doing(doing)?;
        if kind(&stat) == SFlag::S_IFDIR {
            mkdirat(to, name, Mode::S_IRWXU).doing(doing)?;
            let (inner, copy) = (open_path(from, name).doing(doing)?, open_path(to, name).doing(doing)?);
            return self.dir(inner.as_fd(), copy.as_fd(), root, path, depth + 1);
        }
        if is_whiteout(&stat) && self.form == Form::Whole {
            return Ok(());
        }
        // All whiteouts of an overlay may be one inode with many names: they are made anew.
        if stat.st_nlink > 1 && !is_whiteout(&stat) {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let (above, last) = locule_images::unpack::tree::split(first);
                let above = if above.is_empty() { b".".as_slice() } else { above };
                let above = open_path(root, above).doing(doing)?;
                return linkat(&above, last, to, name, AtFlags::empty()).doing(doing);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        match kind(&stat) {
            SFlag::S_IFREG => return self.regular(from, to, name).doing(doing),
            SFlag::S_IFLNK => {
                let target = readlinkat(from, name).doing(doing)?;
                symlinkat(target.as_os_str(), to, name).doing(doing)?;
            }
            node => mknodat(to, name, node, Mode::empty(), stat.st_rdev).doing(doing)?,
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).doing(doing)?;
        let (source, copy) = (by_proc(from, name).doing(doing)?, by_proc(to, name).doing(doing)?);
        self.attributes(&source, &copy).doing(doing)?;
        if kind(&stat) != SFlag::S_IFLNK {
            let node = openat2(to, name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0, BENEATH).doing(doing)?;
            let place = format!("/proc/self/fd/{}", node.as_raw_fd());
            fchmodat(to, place.as_str(), mode(&stat), FchmodatFlags::FollowSymlink).doing(doing)?;
        }
        let (access, change) = times(&stat);
        utimensat(to, name, &access, &change, UtimensatFlags::NoFollowSymlink).doing(doing)
    }

    fn regular(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let source = File::from(openat2(from, name, flags, 0, BENEATH)?);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_NOFOLLOW;
        let copy = File::from(openat2(to, name, flags, 0o600, BENEATH)?);
        // By descriptor: what has the name now may be another file than the one that was looked at.
        let stat = fstat(&source)?;
        self.data(&source, &copy)?;
        fchown(&copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        for attribute in locule_images::sys::fs::flistxattr(source.as_fd())? {
            if self.keeps(attribute.to_bytes()) {
                let value = locule_images::sys::fs::fgetxattr(source.as_fd(), &attribute)?;
                fsetxattr(copy.as_fd(), &attribute, &value)?;
            }
        }
        fchmod(&copy, mode(&stat))?;
        let (access, change) = times(&stat);
        futimens(&copy, &access, &change)?;
        Ok(())
    }

    /// The data of a file, shared or copied without its holes.
    pub fn data(&mut self, from: &File, to: &File) -> io::Result<()> {
        let size = from.metadata()?.len();
        if size == 0 {
            return Ok(());
        }
        if self.shares != Some(false) {
            match crate::sys::files::clone_data(from, to) {
                Ok(()) => {
                    self.shares = Some(true);
                    self.progress.bytes(size);
                    return Ok(());
                }
                Err(
                    Errno::EOPNOTSUPP
                    | Errno::EXDEV
                    | Errno::EINVAL
                    | Errno::ENOTTY
                    | Errno::ENOSYS
                    | Errno::EPERM,
                ) => {
                    self.shares = Some(false);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        to.set_len(size)?;
        self.buffer.resize(CHUNK, 0);
        for (mut at, end) in regions(from, size)? {
            while at < end {
                let most = self.buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                let n = from.read_at(&mut self.buffer[..most], at)?;
                if n == 0 {
                    return Err(io::Error::other("the file shrank meanwhile"));
                }
                // Zeros that are written down need no place either.
                if self.buffer[..n].iter().any(|byte| *byte != 0) {
                    to.write_all_at(&self.buffer[..n], at)?;
                }
                at += n as u64;
                self.progress.bytes(n as u64);
            }
        }
        Ok(())
    }

    fn keeps(&self, name: &[u8]) -> bool {
        self.form == Form::Overlay
            || !(name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay."))
    }

    fn attributes(&self, from: &std::ffi::CStr, to: &std::ffi::CStr) -> nix::Result<()> {
        let names = match llistxattr(from) {
            Err(Errno::ENOTSUP) => return Ok(()),
            other => other?,
        };
        names
            .iter()
            .filter(|name| self.keeps(name.to_bytes()))
            .try_for_each(|name| lsetxattr(to, name, &lgetxattr(from, name)?))
    }
}

/// Where a file has data: beginning and end of each region.
pub fn regions(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut regions = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        let begin = match lseek(file, offset, Whence::SeekData) {
            Ok(begin) => begin as u64,
            // Only a hole is left.
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL) => {
                regions.push((at, size));
                break;
            }
            Err(errno) => return Err(errno.into()),
        };
        let end = (lseek(file, begin as i64, Whence::SeekHole)? as u64).min(size);
        if begin >= size {
            break;
        }
        regions.push((begin, end));
        at = end;
    }
    Ok(regions)
}

/// A directory by a descriptor that can be read.
fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    openat2(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0, BENEATH)
}

fn open_path(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    openat2(dir, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0, BENEATH)
}

/// The path for system calls that know no descriptors.
fn by_proc(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<std::ffi::CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    cstring(&path)
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}
