//! The store: verified content, unpacked layers and names, as plain files.
//!
//! Owns the directory's form and its locks. What has a final name is whole: everything is written
//! under another name, verified, brought to the disk and then renamed. Keeps no index and no count:
//! what is used is found from the files that use it.
//!
//! ```text
//! blobs/sha256/HEX     content, as in an OCI image layout
//! layers/sha256-HEX/fs a layer unpacked for overlayfs, by chain ID
//! refs/NAME            a name: the manifest that it stands for
//! pins/NAME            a user of layers: a mounted root file system
//! partial/sha256-HEX   content on its way; locked while it is written, kept to be resumed
//! tmp/…                work in hand; locked while it lasts
//! lock                 shared by those who add, exclusive for those who remove
//! ```

mod incoming;
mod layers;
mod prune;
mod refs;
mod verify;

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

pub use incoming::{Incoming, Spool};
pub use layers::{ChunkReader, PendingLayer};
pub use prune::{Pin, Pruned};
pub use refs::{Record, encode};
pub use verify::Problem;

use crate::digest::{Digest, Hashing};
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{Config, Descriptor, Document, LARGEST, Manifest};

/// An image as the store has it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its names, if it was found by one.
    pub record: Record,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: Config,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Where the store is if nobody says: root's below /var/lib, a user's below its data.
    pub fn default_root() -> Result<PathBuf> {
        if nix::unistd::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/locule/images"));
        }
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(home)
            .map(|path| path.join("locule/images"))
            .ok_or_else(|| {
                Error::invalid("neither XDG_DATA_HOME nor HOME is set").hint("name a store with --images")
            })
    }

    /// Opens the store at `root` and makes it where there is none.
    pub fn open(root: &Path) -> Result<Store> {
        let make = |path: &Path| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .doing(|| format!("making the store {}", path.display()))
        };
        for dir in ["blobs/sha256", "blobs/sha512", "layers", "refs", "pins", "partial", "tmp"] {
            make(&root.join(dir))?;
        }
        let root = root.canonicalize().doing(|| format!("opening the store {}", root.display()))?;
        let store = Store { root };
        let marker = store.root.join("oci-layout");
        if !marker.exists() {
            store.write_whole(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(store)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Held while something is added, so that nothing new is taken for unused.
    pub fn share(&self) -> Result<Flock<File>> {
        self.lock(FlockArg::LockShared)
    }

    fn lock(&self, how: FlockArg) -> Result<Flock<File>> {
        let path = self.root.join("lock");
        let doing = || format!("locking the store {}", self.root.display());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .doing(doing)?;
        Flock::lock(file, how).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => {
                Error::new(Kind::Busy, "the store is in use: something is being added")
                    .hint("try again when it has ended")
            }
            errno => Error::sys(errno, doing()),
        })
    }

    /// Where content of `digest` is kept.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// Whether content of `digest` is there.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Opens content.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.blob_path(digest)).map_err(|err| match err.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::NotFound, format!("{digest} is not in the store"))
            }
            _ => Err::<(), _>(err)
                .doing(|| format!("opening {digest}"))
                .err()
                .unwrap_or_else(|| Error::corrupt("")),
        })
    }

    /// Reads a document of the store, verified.
    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open_blob(digest)?;
        let mut reader = Hashing::new(file.take(LARGEST + 1), digest.hasher());
        reader.read_to_end(&mut bytes).doing(|| format!("reading {digest}"))?;
        let (_, found, count) = reader.finish();
        if count > LARGEST {
            return Err(Error::corrupt(format!("the document {digest} is larger than {LARGEST} bytes")));
        }
        if found != *digest {
            return Err(Error::corrupt(format!("{digest} in the store was damaged: it is now {found}"))
                .hint("locule image verify lists what is damaged"));
        }
        Ok(bytes)
    }

    /// Writes a document.
    pub fn write_document(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has_blob(&digest) {
            self.write_whole(&self.blob_path(&digest), bytes)?;
        }
        Ok(digest)
    }

    /// The manifest and the configuration that `descriptor` leads to.
    pub fn read_image(&self, record: &Record) -> Result<Image> {
        let bytes = self.read_document(&record.manifest.digest)?;
        let Document::Manifest(manifest) = Document::read(&bytes, Some(&record.manifest.media_type))? else {
            return Err(Error::corrupt(format!("{} is an index", record.manifest.digest)));
        };
        let config = Config::read(&self.read_document(&manifest.config.digest)?, &manifest)?;
        Ok(Image { record: record.clone(), manifest, config })
    }

    /// Writes a file under another name, brings it to the disk and renames it.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        let doing = || format!("writing {}", path.display());
        // Else `prune` would take it for a rest. Whoever adds holds the lock already, and has it twice here.
        let _share = self.share()?;
        let (temporary, mut file) = self.temporary()?;
        let written = file
            .write_all(bytes)
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path))
            .doing(doing);
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        sync_dir(path.parent().unwrap_or(path))
    }

    /// A new locked file in `tmp`.
    pub(crate) fn temporary(&self) -> Result<(PathBuf, Flock<File>)> {
        loop {
            let path = self.root.join("tmp").join(unique());
            let doing = || format!("making {}", path.display());
            match OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path) {
                Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => {
                    let file = other.doing(doing)?;
                    let file = Flock::lock(file, FlockArg::LockExclusive)
                        .map_err(|(_, errno)| Error::sys(errno, doing()))?;
                    return Ok((path, file));
                }
            }
        }
    }

    /// A new locked directory in `tmp`.
    pub(crate) fn temporary_dir(&self) -> Result<(PathBuf, Flock<File>)> {
        loop {
            let path = self.root.join("tmp").join(unique());
            let doing = || format!("making {}", path.display());
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => {
                    other.doing(doing)?;
                    let dir = File::open(&path).doing(doing)?;
                    let dir = Flock::lock(dir, FlockArg::LockExclusive)
                        .map_err(|(_, errno)| Error::sys(errno, doing()))?;
                    return Ok((path, dir));
                }
            }
        }
    }

    /// The descriptor of content in the store.
    pub fn describe(&self, digest: &Digest, media_type: &str) -> Result<Descriptor> {
        let size = fs::metadata(self.blob_path(digest)).doing(|| format!("looking at {digest}"))?.len();
        Ok(Descriptor {
            media_type: media_type.into(),
            digest: digest.clone(),
            size,
            platform: None,
            annotations: Default::default(),
        })
    }
}

/// Brings a directory's names to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .doing(|| format!("writing the directory {}", path.display()))
}

/// A name that nobody else has: pid, a counter and the time.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{:x}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed), now.as_nanos())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn who_writes_waits_for_who_removes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let removing = store.lock(FlockArg::LockExclusiveNonblock).unwrap();
        let waits = format!(":{} ", removing.metadata().unwrap().ino());
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| store.write_whole(&store.root.join("refs/a"), b"a"));
            let is_waited_for = || {
                let locks = fs::read_to_string("/proc/locks").unwrap();
                locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&waits))
            };
            while !is_waited_for() {
                assert!(!writing.is_finished(), "its temporary file would have been taken for a rest");
                std::thread::yield_now();
            }
            drop(removing);
            writing.join().unwrap().unwrap();
        });
    }
}
