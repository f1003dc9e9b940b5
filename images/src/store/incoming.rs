//! Content on its way into the store: counted and hashed while it is written.
//!
//! Owns `partial/`: a download that was cut is there to be resumed. Size is checked before digest;
//! content gets its final name only when both are right.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{Store, sync_dir};
use crate::digest::{Digest, Hasher};
use crate::error::{Context, Error, Result};

/// Content of a known digest and size, being written.
#[derive(Debug)]
pub struct Incoming<'a> {
    store: &'a Store,
    file: Flock<File>,
    path: PathBuf,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    have: u64,
}

impl Store {
    /// Begins or resumes content; `None` if it is there. Waits for another who is writing it.
    pub fn incoming(&self, digest: &Digest, size: u64) -> Result<Option<Incoming<'_>>> {
        let path = self.partial_path(digest);
        let doing = || format!("opening {}", path.display());
        loop {
            if self.has_blob(digest) {
                return Ok(None);
            }
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .doing(doing)?;
            let file = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| Error::sys(errno, doing()))?;
            // Whoever had it may have renamed or removed it while we waited.
            if !is_at(&file, &path) {
                continue;
            }
            let mut incoming = Incoming {
                store: self,
                file,
                path: path.clone(),
                digest: digest.clone(),
                size,
                hasher: digest.hasher(),
                have: 0,
            };
            incoming.recount()?;
            return Ok(Some(incoming));
        }
    }

    /// Removes what an attempt left of content, unless somebody is writing it: then it is theirs.
    pub fn discard_partial(&self, digest: &Digest) {
        let path = self.partial_path(digest);
        if let Ok(file) = File::open(&path)
            && let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            && is_at(&lock, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("partial").join(format!("{}-{}", digest.algorithm(), digest.hex()))
    }
}

/// Whether `path` is still the name of `file`.
fn is_at(file: &File, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|named| {
        file.metadata().is_ok_and(|open| (named.dev(), named.ino()) == (open.dev(), open.ino()))
    })
}

impl Incoming<'_> {
    /// Reads what an earlier attempt left.
    fn recount(&mut self) -> Result<()> {
        let doing = || format!("reading {}", self.path.display());
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = self.file.read(&mut buffer).doing(doing)?;
            if n == 0 {
                break;
            }
            self.hasher.update(&buffer[..n]);
            self.have += n as u64;
        }
        if self.have > self.size { self.restart() } else { Ok(()) }
    }

    /// What it will be.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How much is there.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// How much there will be.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is there, for reading from the start.
    pub fn so_far(&self) -> Result<File> {
        File::open(&self.path).doing(|| format!("opening {}", self.path.display()))
    }

    /// Throws away what is there.
    pub fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .doing(|| format!("emptying {}", self.path.display()))?;
        self.hasher = self.digest.hasher();
        self.have = 0;
        Ok(())
    }

    /// Takes more; more than was announced is an error.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.have + bytes.len() as u64 > self.size {
            let err = Error::corrupt(format!(
                "{} is longer than the {} bytes that were announced",
                self.digest, self.size
            ));
            self.discard();
            return Err(err);
        }
        let written = self.file.write_all(bytes).doing(|| format!("writing {}", self.path.display()));
        written.inspect_err(|err| self.make_room(err))?;
        self.hasher.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// Removes what is there: it is of no use to anybody.
    pub fn discard(&mut self) {
        let _ = fs::remove_file(&self.path);
    }

    /// A full disk must not stay full.
    fn make_room(&mut self, why: &Error) {
        if why.is_full() {
            self.discard();
        }
    }

    /// Checks size and digest, and gives it its name.
    pub fn finish(mut self) -> Result<()> {
        if self.have != self.size {
            return Err(Error::corrupt(format!(
                "{} ended after {} of {} bytes",
                self.digest, self.have, self.size
            )));
        }
        let found = self.hasher.clone().finish();
        if found != self.digest {
            self.discard();
            return Err(Error::corrupt(format!("{} was announced, and {found} came", self.digest)));
        }
        let to = self.store.blob_path(&self.digest);
        let doing = || format!("writing {}", to.display());
        // Some file systems find room only now.
        self.file.sync_data().doing(doing).inspect_err(|err| self.make_room(err))?;
        fs::rename(&self.path, &to).doing(doing)?;
        sync_dir(&self.store.root.join("blobs").join(self.digest.algorithm()))
    }
}

/// Content of an unknown digest, being written.
#[derive(Debug)]
pub struct Spool<'a> {
    store: &'a Store,
    file: Flock<File>,
    path: PathBuf,
    hasher: Hasher,
    count: u64,
    kept: bool,
}

impl Store {
    /// Begins content whose digest will be known at its end.
    pub fn spool(&self) -> Result<Spool<'_>> {
        let (path, file) = self.temporary()?;
        Ok(Spool { store: self, file, path, hasher: Hasher::sha256(), count: 0, kept: false })
    }
}

impl Write for Spool<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Spool<'_> {
    /// What is there, for reading from the start.
    pub fn so_far(&self) -> Result<File> {
        File::open(&self.path).doing(|| format!("opening {}", self.path.display()))
    }

    /// Gives the content its name; digest and size.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        let digest = self.hasher.clone().finish();
        let to = self.store.blob_path(&digest);
        let doing = || format!("writing {}", to.display());
        if !to.exists() {
            self.file.sync_data().doing(doing)?;
            fs::rename(&self.path, &to).doing(doing)?;
            self.kept = true;
            sync_dir(&self.store.root.join("blobs").join(digest.algorithm()))?;
        }
        Ok((digest, self.count))
    }
}

impl Drop for Spool<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}
