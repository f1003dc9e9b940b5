//! The tree being written: a directory held by descriptor, and every step below it by descriptor.
//!
//! Owns path resolution while unpacking: the kernel resolves inside the root (`RESOLVE_IN_ROOT`),
//! the last component is never followed, and nothing is looked up twice by name. Whatever links the
//! archive makes, and whoever changes the tree meanwhile, nothing outside is touched
//! (CVE-2025-47290, CVE-2021-32760).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Context, Error, Result};
use crate::sys::fs::{BENEATH, IN_ROOT, openat2};

/// The deepest tree that is removed by recursion.
const DEEPEST: usize = 2048;

/// The root of what is being written.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    /// The directory that the last entry went to: most entries have the same as the one before.
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// A path cleaned of empty and `.` parts; empty for the root itself.
pub fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                let text = String::from_utf8_lossy(path);
                return Err(Error::corrupt(format!("the path {text:?} in the archive climbs with ..")));
            }
            part => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(part);
            }
        }
    }
    Ok(clean)
}

/// Directory and last component of a cleaned path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// A path for messages.
pub fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path).escape_debug())
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Tree {
    /// Writes below the directory `root`.
    pub fn new(root: OwnedFd) -> Tree {
        Tree { root, last: None }
    }

    /// The directory `path` by descriptor, links resolved inside the root; made where missing.
    /// A component that is no directory gives way to one, as umoci has it. `made` hears of each.
    pub fn dir(&mut self, path: &[u8], made: &mut dyn FnMut(&[u8])) -> Result<BorrowedFd<'_>> {
        if !matches!(&self.last, Some((known, _)) if known == path) {
            let fd = match self.resolve(path) {
                Ok(fd) => fd,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => self.make(path, made)?,
                Err(errno) => return Err(errno).doing(|| format!("opening the directory {}", shown(path))),
            };
            self.last = Some((path.to_vec(), fd));
        }
        Ok(self.last.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }

    /// The directory `path` if it is there.
    pub fn resolve(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        openat2(self.root.as_fd(), path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, IN_ROOT)
    }

    fn make(&mut self, path: &[u8], made: &mut dyn FnMut(&[u8])) -> Result<OwnedFd> {
        let doing = |prefix: &[u8]| format!("making the directory {}", shown(prefix));
        let mut fd = self.resolve(b"").doing(|| doing(b""))?;
        let mut end = 0;
        for part in path.split(|b| *b == b'/') {
            end += part.len();
            let prefix = &path[..end];
            end += 1;
            fd = match self.resolve(prefix) {
                Ok(next) => next,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                    self.last = None;
                    match mkdirat(&fd, part, Mode::from_bits_truncate(0o755)) {
                        Err(Errno::EEXIST) => {
                            unlinkat(&fd, part, UnlinkatFlags::NoRemoveDir).doing(|| doing(prefix))?;
                            mkdirat(&fd, part, Mode::from_bits_truncate(0o755))
                        }
                        other => other,
                    }
                    .doing(|| doing(prefix))?;
                    made(prefix);
                    open_dir(fd.as_fd(), part).doing(|| doing(prefix))?
                }
                Err(errno) => return Err(errno).doing(|| doing(prefix)),
            };
        }
        Ok(fd)
    }

    /// Forgets what was resolved: something was removed or replaced.
    pub fn changed(&mut self) {
        self.last = None;
    }

    /// Removes `name` from the directory `path` with all that is below it; whether there was anything.
    pub fn remove(&mut self, path: &[u8], name: &[u8]) -> Result<bool> {
        self.changed();
        let doing = || format!("removing {}/{}", shown(path), String::from_utf8_lossy(name));
        let dir = match self.resolve(path) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(false),
            Err(errno) => return Err(errno).doing(doing),
        };
        remove_all(dir.as_fd(), name, 0).doing(doing)
    }
}

/// A directory right below `dir`, never through a link.
pub fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<OwnedFd> {
    openat2(dir, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0, BENEATH)
}

/// What `name` in `dir` is, not following it.
pub fn look(dir: BorrowedFd<'_>, name: &[u8]) -> nix::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The file type of a stat.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT)
}

/// Whether it is overlayfs's whiteout: a character device 0:0.
pub fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// Removes `name` from `dir` with all that is below; whether there was anything.
pub fn remove_all(dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> nix::Result<bool> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => return Ok(true),
        Err(Errno::ENOENT) => return Ok(false),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno),
    }
    if depth > DEEPEST {
        return Err(Errno::ELOOP);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let open = || openat2(dir, name, flags, 0, BENEATH);
    let inner = match open() {
        // Not readable, and its owner is not root.
        Err(Errno::EACCES) => {
            nix::sys::stat::fchmodat(dir, name, Mode::S_IRWXU, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
            open()?
        }
        other => other?,
    };
    let mut inner = Dir::from_fd(inner)?;
    let names: Vec<Vec<u8>> = inner
        .iter()
        .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
        .filter(|name| !matches!(name.as_deref(), Ok(b"." | b"..")))
        .collect::<nix::Result<_>>()?;
    for name in names {
        remove_all(inner.as_fd(), &name, depth + 1)?;
    }
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        assert_eq!(clean(b"./a//b/.").unwrap(), b"a/b");
        assert_eq!(clean(b"/").unwrap(), b"");
        assert!(clean(b"a/../b").is_err());
        assert!(clean(b"..").is_err());
        assert_eq!(clean(b"..a/b..").unwrap(), b"..a/b..");
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }
}
