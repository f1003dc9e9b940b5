//! Layers, unpacked once for all images that have them, under the identity of their whole stack.
//!
//! Owns the way from a compressed stream to a layer directory: undone, hashed and written at the
//! same time, named only when the diffID is right and everything is on the disk.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::Flock;

use super::{Store, sync_dir};
use crate::compress;
use crate::digest::{Digest, Hasher, Hashing, chain_ids};
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{Config, Manifest};
use crate::sys::fs::{cstring, lgetxattr, syncfs};
use crate::unpack::{Options, Unpacked, tree, unpack};

/// Layers that are unpacked at the same time.
pub const AT_ONCE: usize = 4;
/// What travels between the threads of one layer.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// A layer that is unpacked and verified but has no name yet.
#[derive(Debug)]
pub struct PendingLayer {
    path: PathBuf,
    _lock: Flock<File>,
    found: Option<Unpacked>,
}

impl Drop for PendingLayer {
    fn drop(&mut self) {
        remove_tree(&self.path);
    }
}

/// Removes a directory of ours, whatever modes the image gave to what is in it.
pub(super) fn remove_tree(path: &Path) {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = File::open(parent)
    {
        let name = std::os::unix::ffi::OsStrExt::as_bytes(name);
        let _ = tree::remove_all(std::os::fd::AsFd::as_fd(&parent), name, 0);
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    File::open(path).map(OwnedFd::from).doing(|| format!("opening {}", path.display()))
}

/// Chunks from another thread as a reader.
pub struct ChunkReader {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
}

impl ChunkReader {
    /// A reader and the end that feeds it.
    pub fn pair() -> (SyncSender<io::Result<Vec<u8>>>, ChunkReader) {
        let (sender, chunks) = sync_channel(CHUNKS);
        (sender, ChunkReader { chunks, chunk: Vec::new(), at: 0 })
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.chunk, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buf.len().min(self.chunk.len() - self.at);
        buf[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Reads `reader` to its end into chunks; stops when nobody takes them.
fn feed(mut reader: impl Read, chunks: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let mut filled = 0;
        let result = loop {
            match reader.read(&mut chunk[filled..]) {
                Ok(0) => break Ok(true),
                Ok(n) => filled += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => break Err(err),
            }
            if filled == CHUNK {
                break Ok(false);
            }
        };
        chunk.truncate(filled);
        if filled > 0 && chunks.send(Ok(chunk)).is_err() {
            return;
        }
        match result {
            Ok(false) => {}
            Ok(true) => return,
            Err(err) => {
                let _ = chunks.send(Err(err));
                return;
            }
        }
    }
}

impl Store {
    /// The directory of the layer whose stack is `chain`, as overlayfs takes it.
    pub fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.layer_home(chain).join("fs")
    }

    pub(super) fn layer_home(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(format!("{}-{}", chain.algorithm(), chain.hex()))
    }

    /// Whether that layer is unpacked.
    pub fn has_layer(&self, chain: &Digest) -> bool {
        self.layer_path(chain).is_dir()
    }

    /// The layers of an image, the topmost first; a layer that hides all below it is the last.
    pub fn layers(&self, diff_ids: &[Digest]) -> Result<Vec<PathBuf>> {
        let mut layers = Vec::new();
        for chain in chain_ids(diff_ids).iter().rev() {
            let path = self.layer_path(chain);
            if !path.is_dir() {
                return Err(Error::new(
                    Kind::NotFound,
                    format!("the layer {} is not unpacked", chain.short()),
                )
                .hint("pull or import the image again"));
            }
            let place = cstring(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
                .doing(|| format!("opening {}", path.display()))?;
            let opaque = lgetxattr(&place, Options::here().opaque_xattr()).is_ok_and(|value| value == b"y");
            layers.push(path);
            if opaque {
                break;
            }
        }
        Ok(layers)
    }

    /// Unpacks the layer that comes from `reader`, compressed or not, and holds it against `diff_id`.
    pub fn unpack_layer(
        &self,
        reader: impl Read + Send,
        diff_id: &Digest,
        options: &Options,
    ) -> Result<PendingLayer> {
        let (pending, found) = self.unpack_any(reader, diff_id.hasher(), options)?;
        if found != *diff_id {
            return Err(Error::corrupt(format!("the layer should hold {diff_id} and holds {found}"))
                .hint("the image is damaged or was made wrongly"));
        }
        Ok(pending)
    }

    /// Unpacks a layer whose diffID is not known before.
    pub fn unpack_any(
        &self,
        reader: impl Read + Send,
        hasher: Hasher,
        options: &Options,
    ) -> Result<(PendingLayer, Digest)> {
        let (path, lock) = self.temporary_dir()?;
        let mut pending = PendingLayer { path, _lock: lock, found: None };
        let root = pending.path.join("fs");
        fs::DirBuilder::new().mode(0o755).create(&root).doing(|| format!("making {}", root.display()))?;
        let (chunks, plain) = ChunkReader::pair();
        let limits = options.limits;
        let (found, digest) = std::thread::scope(|scope| {
            scope.spawn(move || match compress::reader(reader, &limits) {
                Ok(reader) => feed(reader, &chunks),
                Err(err) => drop(chunks.send(Err(err))),
            });
            let (found, mut rest) = unpack(Hashing::new(plain, hasher), open_dir(&root)?, options)?;
            // The diffID covers also what stands behind the archive's end.
            io::copy(&mut rest, &mut io::sink()).doing(|| "reading the layer")?;
            let (_, digest, _) = rest.finish();
            Ok::<_, Error>((found, digest))
        })?;
        pending.found = Some(found);
        Ok((pending, digest))
    }

    /// Unpacks all layers of an image that are not there, from the store's own content.
    pub fn unpack_image(&self, manifest: &Manifest, config: &Config, options: &Options) -> Result<()> {
        let diff_ids = &config.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        let next = AtomicUsize::new(0);
        let pending: Mutex<Vec<Option<PendingLayer>>> = Mutex::new(chain.iter().map(|_| None).collect());
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(chain.len()) {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let stop = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                        let (Some(layer), false) = (manifest.layers.get(i), stop) else { return };
                        if self.has_layer(&chain[i]) {
                            continue;
                        }
                        let done = self
                            .open_blob(&layer.digest)
                            .and_then(|blob| self.unpack_layer(blob, &diff_ids[i], options))
                            .map_err(|err| {
                                err.context(format!("unpacking the layer {}", layer.digest.short()))
                            });
                        match done {
                            Ok(layer) => {
                                pending.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(layer)
                            }
                            Err(err) => {
                                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(err);
                            }
                        }
                    }
                });
            }
        });
        if let Some(err) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(err);
        }
        self.commit_layers(&chain, pending.into_inner().unwrap_or_else(PoisonError::into_inner), options)
    }

    /// Finishes what was unpacked, lowest first, brings it to the disk and names it.
    pub fn commit_layers(
        &self,
        chain: &[Digest],
        mut pending: Vec<Option<PendingLayer>>,
        options: &Options,
    ) -> Result<()> {
        let mut below: Vec<OwnedFd> = Vec::new();
        let mut any = false;
        for (chain, layer) in chain.iter().zip(&mut pending) {
            let root = match layer {
                Some(layer) => {
                    let root = layer.path.join("fs");
                    if let Some(found) = layer.found.take() {
                        any = true;
                        found
                            .finish(open_dir(&root)?, &below, options)
                            .map_err(|err| err.context(format!("finishing the layer {}", chain.short())))?;
                    }
                    root
                }
                None => self.layer_path(chain),
            };
            below.insert(0, open_dir(&root)?);
        }
        if !any {
            return Ok(());
        }
        let layers = self.root.join("layers");
        // Names must not reach the disk before what they name.
        syncfs(open_dir(&layers)?).doing(|| "writing the layers to the disk")?;
        for (chain, layer) in chain.iter().zip(&pending) {
            let Some(layer) = layer else { continue };
            let to = self.layer_home(chain);
            match nix::fcntl::renameat(nix::fcntl::AT_FDCWD, &layer.path, nix::fcntl::AT_FDCWD, &to) {
                // Somebody else was faster; ours goes away with `layer`.
                Ok(()) | Err(Errno::EEXIST | Errno::ENOTEMPTY) => {}
                Err(errno) => return Err(errno).doing(|| format!("naming the layer {}", chain.short())),
            }
        }
        sync_dir(&layers)
    }
}
