//! The end of a layer: what depends on the layers below, and the modes and times of directories.
//!
//! Owns implied directories (an archive may name `a/b/c` without `a` and `a/b`): they take after
//! the same directory of the layer below, which overlayfs would otherwise hide behind defaults.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat};

use super::tree::{Tree, is_whiteout, kind, look, shown, split};
use super::{DirMeta, Options, Owners, Unpacked, meta};
use crate::error::{Context, Error, Result};
use crate::sys::fs::{
    BENEATH, cstring, fgetxattr, flistxattr, fsetxattr, lgetxattr, llistxattr, lsetxattr, openat2,
};

impl Unpacked {
    /// Whether the layer hides everything below it.
    pub fn hides_all(&self) -> bool {
        self.opaque.contains(&Vec::new())
    }

    /// Finishes the layer in `dir`; `below` are the layers under it, the nearest first.
    pub fn finish(mut self, dir: OwnedFd, below: &[OwnedFd], options: &Options) -> Result<()> {
        let mut tree = Tree::new(dir);
        for (path, target) in std::mem::take(&mut self.links) {
            let doing = || format!("linking {} to {}", shown(&path), shown(&target));
            let source = match self.hidden(&target) {
                true => None,
                false => find(below, &target, options).doing(doing)?,
            };
            let Some((layer, stat)) = source else {
                return Err(Error::corrupt(format!("{}: no layer has the target", doing())));
            };
            if kind(&stat) != SFlag::S_IFREG {
                return Err(Error::corrupt(format!("{}: the target below is no regular file", doing())));
            }
            self.copy_up(&mut tree, layer, &target, options)?;
            let (from_dir, from_name) = split(&target);
            let from = tree.resolve(from_dir).doing(doing)?;
            let (above, name) = split(&path);
            let implied = &mut self.implied;
            let dir = tree.dir(above, &mut |made| {
                implied.insert(made.to_vec());
            })?;
            linkat(&from, from_name, dir, name, AtFlags::empty()).doing(doing)?;
        }
        for path in std::mem::take(&mut self.implied) {
            let mut settled = DirMeta { mode: 0o755, mtime: (0, 0) };
            let own = match tree.resolve(&path) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => continue,
                other => other.doing(|| format!("opening {}", shown(&path)))?,
            };
            if !self.hidden(&path)
                && let Some((layer, stat)) =
                    find(below, &path, options).doing(|| format!("looking for {} below", shown(&path)))?
                && kind(&stat) == SFlag::S_IFDIR
            {
                settled = DirMeta {
                    mode: stat.st_mode & 0o7777,
                    mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
                };
                if options.owners == Owners::Keep {
                    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                    fchownat(&own, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
                        .doing(|| format!("setting the owner of {}", shown(&path)))?;
                }
                let from = open_below(layer, &path).doing(|| format!("opening {} below", shown(&path)))?;
                copy_attributes(from.as_fd(), own.as_fd())
                    .doing(|| format!("copying attributes of {}", shown(&path)))?;
            }
            self.dirs.insert(path, settled);
        }
        // Deepest first: a time is set when nothing below changes any more.
        for (path, settled) in self.dirs.iter().rev() {
            match tree.resolve(path) {
                Ok(dir) => meta::settle_dir(dir.as_fd(), settled.mode, settled.mtime)
                    .doing(|| format!("setting mode and time of {}", shown(path)))?,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(errno) => return Err(errno).doing(|| format!("opening {}", shown(path))),
            }
        }
        Ok(())
    }

    /// Whether an opaque directory of this layer lies on the way to `path`, or is it.
    fn hidden(&self, path: &[u8]) -> bool {
        let mut prefix = path;
        loop {
            if self.opaque.contains(prefix) {
                return true;
            }
            if prefix.is_empty() {
                return false;
            }
            prefix = split(prefix).0;
        }
    }

    /// Copies the regular file `path` of a layer below into this one.
    fn copy_up(
        &mut self,
        tree: &mut Tree,
        layer: BorrowedFd<'_>,
        path: &[u8],
        options: &Options,
    ) -> Result<()> {
        let doing = || format!("copying {} from the layer below", shown(path));
        let from = openat2(layer, path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW, 0, BENEATH).doing(doing)?;
        let stat = fstat(&from).doing(doing)?;
        let (above, name) = split(path);
        let implied = &mut self.implied;
        let dir = tree.dir(above, &mut |made| {
            implied.insert(made.to_vec());
        })?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        let to = match openat2(dir, name, flags, 0o600, BENEATH) {
            // An earlier link to the same file brought it.
            Err(Errno::EEXIST) => return Ok(()),
            other => other.doing(doing)?,
        };
        let (mut from, mut to) = (File::from(from), File::from(to));
        std::io::copy(&mut from, &mut to).doing(doing)?;
        if options.owners == Owners::Keep {
            fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).doing(doing)?;
        }
        for name in flistxattr(from.as_fd()).unwrap_or_default() {
            if let Ok(value) = fgetxattr(from.as_fd(), &name) {
                fsetxattr(to.as_fd(), &name, &value).doing(doing)?;
            }
        }
        fchmod(&to, Mode::from_bits_truncate(stat.st_mode)).doing(doing)?;
        let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
        futimens(&to, &time, &time).doing(doing)
    }
}

/// A directory of a layer, without any link on the way.
fn open_below(root: BorrowedFd<'_>, path: &[u8]) -> nix::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    openat2(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0, BENEATH)
}

/// Where `path` comes from among `below`: the nearest layer that has it, unless one hides it.
fn find<'a>(
    below: &'a [OwnedFd],
    path: &[u8],
    options: &Options,
) -> nix::Result<Option<(BorrowedFd<'a>, FileStat)>> {
    for layer in below {
        let (above, name) = split(path);
        // What hides, hides also from above: walk down and look at each directory.
        let mut opaque = is_opaque(layer.as_fd(), options);
        let mut end = 0;
        let mut stopped = false;
        for part in above.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            end += part.len();
            let prefix = &above[..end];
            end += 1;
            match open_below(layer.as_fd(), prefix) {
                Ok(dir) => opaque |= is_opaque(dir.as_fd(), options),
                Err(Errno::ENOENT) => {
                    stopped = true;
                    break;
                }
                // A file, a link or a whiteout in its place.
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
        if !stopped {
            if path.is_empty() {
                return fstat(layer).map(|stat| Some((layer.as_fd(), stat)));
            }
            let dir = open_below(layer.as_fd(), above)?;
            match look(dir.as_fd(), name)? {
                Some(stat) if is_whiteout(&stat) => return Ok(None),
                Some(stat) => return Ok(Some((layer.as_fd(), stat))),
                None => {}
            }
        }
        if opaque {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Whether the directory hides what is below it.
fn is_opaque(dir: BorrowedFd<'_>, options: &Options) -> bool {
    cstring(format!("/proc/self/fd/{}/.", dir.as_raw_fd()).as_bytes())
        .and_then(|path| lgetxattr(&path, options.opaque_xattr()))
        .is_ok_and(|value| value == b"y")
}

fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<()> {
    let from = cstring(format!("/proc/self/fd/{}/.", from.as_raw_fd()).as_bytes())?;
    let to = cstring(format!("/proc/self/fd/{}/.", to.as_raw_fd()).as_bytes())?;
    for name in llistxattr(&from)? {
        let bytes = name.to_bytes();
        if bytes.starts_with(b"trusted.overlay.") || bytes.starts_with(b"user.overlay.") {
            continue;
        }
        let value = lgetxattr(&from, &name)?;
        match lsetxattr(&to, &name, &value) {
            Ok(()) | Err(Errno::ENOTSUP | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
