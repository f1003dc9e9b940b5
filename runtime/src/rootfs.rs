//! `Root`: the only way to touch a path in a container's root file system.
//!
//! Owns a descriptor of the root directory; a path becomes a descriptor once, resolved by the
//! kernel inside that root (`RESOLVE_IN_ROOT`), and is never looked up by name again.
//! It never follows a magic link and never resolves outside, whatever links the image holds
//! (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use crate::error::{Context, Error, Result};
use crate::sys::fs::openat2;

const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// A root directory, held by descriptor.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Takes a descriptor of a directory as the root.
    pub fn new(dir: OwnedFd) -> Root {
        Root(dir)
    }

    /// An `O_PATH` descriptor of `path`, links resolved inside the root.
    pub fn resolve(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        openat2(self, relative(path), flags | OFlag::O_PATH, 0, IN_ROOT)
    }

    /// As [`Root::resolve`], but a link anywhere in `path` is `ELOOP`: for /proc and /sys, whose
    /// place must not be redirected by the image (CVE-2019-19921, CVE-2023-28642).
    pub fn resolve_without_links(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        openat2(self, relative(path), flags | OFlag::O_PATH, 0, IN_ROOT | libc::RESOLVE_NO_SYMLINKS)
    }

    /// Opens `path` for use rather than as a place.
    pub fn open(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        openat2(self, relative(path), flags, 0, IN_ROOT)
    }

    /// The directory `path`, made with its parents (mode 0755) where missing.
    ///
    /// A link that leads nowhere is followed inside the root, and what it names is made, as runc does.
    pub fn make_dir(&self, path: &Path) -> Result<OwnedFd> {
        let doing = || format!("making the directory {} in the root", path.display());
        match self.resolve(path, OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => {}
            other => return other.doing(doing),
        }
        // Free of links and made so far; what is still to be walked, last first.
        let mut walked = PathBuf::from("/");
        let mut dir = self.resolve(&walked, OFlag::O_DIRECTORY).doing(doing)?;
        let mut ahead: Vec<PathBuf> = Vec::new();
        push_parts(&mut ahead, path);
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            if part == Path::new("..") {
                walked.pop();
                dir = self.resolve_without_links(&walked, OFlag::O_DIRECTORY).doing(doing)?;
                continue;
            }
            match readlinkat(&dir, &part) {
                Ok(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::ELOOP).doing(doing);
                    }
                    let target = PathBuf::from(target);
                    if target.is_absolute() {
                        walked = PathBuf::from("/");
                        dir = self.resolve(&walked, OFlag::O_DIRECTORY).doing(doing)?;
                    }
                    push_parts(&mut ahead, &target);
                    continue;
                }
                Err(Errno::ENOENT) => match mkdirat(&dir, &part, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno).doing(doing),
                },
                // EINVAL: it is no link.
                Err(Errno::EINVAL) => {}
                Err(errno) => return Err(errno).doing(doing),
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            dir = openat2(&dir, &part, flags, 0, libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS)
                .doing(doing)?;
            walked.push(&part);
        }
        Ok(dir)
    }

    /// The file `path` as a place to mount on, made empty (mode 0644) where missing.
    pub fn make_file(&self, path: &Path) -> Result<OwnedFd> {
        let doing = || format!("making the file {} in the root", path.display());
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            match self.resolve(&path, OFlag::empty()) {
                Err(Errno::ENOENT) => {}
                other => return other.doing(doing),
            }
            let (dir, name) = self.parent(&path)?;
            if let Ok(target) = readlinkat(&dir, &name) {
                // It leads nowhere yet: what it names is made.
                let parent = path.parent().unwrap_or(Path::new("/"));
                path = clean(&parent.join(PathBuf::from(target)));
                continue;
            }
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY;
            match openat2(&dir, &name, flags, 0o644, IN_ROOT) {
                Ok(_) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).doing(doing),
            }
            return openat2(&dir, &name, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0, IN_ROOT).doing(doing);
        }
        Err(Errno::ELOOP).doing(doing)
    }

    /// The directory that holds `path`, made where missing, and the last component.
    pub fn parent(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let path = relative(path);
        let name = path.file_name().ok_or_else(|| Error::invalid("a path in the root without a name"))?;
        let dir = self.make_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, PathBuf::from(name)))
    }
}

/// As the kernel's own limit.
const MOST_LINKS: usize = 40;

/// Puts the parts of `path` on the stack of what is to be walked.
fn push_parts(ahead: &mut Vec<PathBuf>, path: &Path) {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    ahead.extend(parts.rev().map(|part| PathBuf::from(part.as_os_str())));
}

/// Whether `fd` is a directory.
pub fn is_dir(fd: impl AsFd) -> nix::Result<bool> {
    let stat = fstat(fd)?;
    Ok(SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// `path` without its leading slashes; the root itself is `.`.
pub fn relative(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().position(|b| *b != b'/').unwrap_or(bytes.len());
    if start == bytes.len() {
        Path::new(".")
    } else {
        Path::new(std::ffi::OsStr::from_bytes(&bytes[start..]))
    }
}

/// `path` made absolute and cleaned word by word: `.` and `..` are resolved without looking at links.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_stays_below_the_root() {
        for (path, want) in [("", "/"), ("a/../../b", "/b"), ("/a/./b//c/", "/a/b/c"), ("../..", "/")] {
            assert_eq!(clean(Path::new(path)), Path::new(want), "{path}");
        }
    }

    #[test]
    fn links_cannot_lead_outside() {
        let dir = std::env::temp_dir().join(format!("locule-root-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("root/etc")).unwrap();
        std::fs::create_dir_all(dir.join("outside")).unwrap();
        std::os::unix::fs::symlink(dir.join("outside"), dir.join("root/out")).unwrap();
        std::os::unix::fs::symlink("../../outside", dir.join("root/up")).unwrap();
        let fd = openat2(nix::fcntl::AT_FDCWD, dir.join("root"), OFlag::O_PATH, 0, 0).unwrap();
        let root = Root::new(fd);
        // Both lead outside, and are made inside the root.
        root.make_dir(Path::new("/out/x")).unwrap();
        root.make_file(Path::new("/up/file")).unwrap();
        assert!(dir.join("root/outside/file").is_file());
        std::os::unix::fs::symlink("/loop", dir.join("root/loop")).unwrap();
        assert_eq!(root.make_dir(Path::new("/loop/x")).unwrap_err().errno(), Some(Errno::ELOOP));
        assert_eq!(root.resolve_without_links(Path::new("/up"), OFlag::empty()).unwrap_err(), Errno::ELOOP);
        root.make_dir(Path::new("/a/b/c")).unwrap();
        root.make_file(Path::new("/etc/x/y")).unwrap();
        assert!(dir.join("root/a/b/c").is_dir() && dir.join("root/etc/x/y").is_file());
        assert_eq!(std::fs::read_dir(dir.join("outside")).unwrap().count(), 0);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
