//! Files that appear whole or not at all, names that only one can take, and a lock.
//!
//! Owns no directory. A claim is a hard link to a finished file, which is as exclusive as O_EXCL
//! and never seen empty.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Context, Error, Result};

/// Makes `dir` and those above it, through which others may look for a name they know.
pub fn make_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(dir)
        .doing(|| format!("making the directory {}", dir.display()))
}

fn beside(path: &Path) -> PathBuf {
    // A leading dot keeps it out of every listing here; the pid keeps writers apart.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn write_new(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(content)
}

/// Replaces the file `path`, or makes it.
pub fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let new = beside(path);
    write_new(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .inspect_err(|_| drop(fs::remove_file(&new)))
        .doing(|| format!("writing {}", path.display()))
}

/// As [`replace`], and on the disk when it returns.
pub fn replace_durably(path: &Path, content: &[u8]) -> Result<()> {
    let new = beside(path);
    write_new(&new, content)
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()))
        .inspect_err(|_| drop(fs::remove_file(&new)))
        .doing(|| format!("writing {}", path.display()))
}

/// Takes the name `path` with `content`; false if somebody has it.
pub fn claim(path: &Path, content: &[u8]) -> Result<bool> {
    let new = beside(path);
    let made = write_new(&new, content).and_then(|()| fs::hard_link(&new, path));
    let _ = fs::remove_file(&new);
    match made {
        Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true).doing(|| format!("claiming {}", path.display())),
    }
}

/// Writes over a file that others have bound by its inode: one write, then the new length, so that
/// a reader never meets an empty file.
pub fn overwrite(path: &Path, content: &[u8]) -> Result<()> {
    let write = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path)?;
        file.write_all_at(content, 0)?;
        file.set_len(content.len() as u64)
    };
    write().doing(|| format!("writing {}", path.display()))
}

/// Adds a line to a file.
pub fn append(path: &Path, line: &str) -> Result<()> {
    let write = || OpenOptions::new().append(true).open(path)?.write_all(line.as_bytes());
    write().doing(|| format!("writing {}", path.display()))
}

/// The content, or `None` where there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).doing(|| format!("reading {}", path.display())),
    }
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        other => other.doing(|| format!("removing {}", path.display())),
    }
}

/// Names in a directory, sorted, without those that begin with a dot; none where there is no directory.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("listing {}", dir.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.doing(|| format!("listing {}", dir.display()))?;
        names.extend(entry.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort_unstable();
    Ok(names)
}

/// A lock that ends with this value or with the process.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits until nobody else holds the lock on `path`.
    pub fn take(path: &Path) -> Result<Lock> {
        let doing = || format!("locking {}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .doing(doing)?;
        let file =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::sys(errno, doing()))?;
        Ok(Lock { _file: file })
    }
}
