//! Removing what nothing uses: found by following names and pins, not by counting.
//!
//! Owns the only removal of content. Works under the exclusive lock, so nobody is adding.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};

use super::layers::remove_tree;
use super::{Store, refs};
use crate::digest::{Digest, chain_ids};
use crate::error::{Context, Result};

/// A user of layers that no name stands for: a root file system that is or will be mounted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pin {
    /// Where the user keeps its state; a pin whose user is gone counts no more.
    pub state: PathBuf,
    /// The layers, by diffID, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Content.
    pub blobs: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// Rests of work that was cut off.
    pub rests: u64,
    /// Bytes of content.
    pub bytes: u64,
}

impl Store {
    /// Keeps layers for a user whose state is in the directory `state`.
    pub fn pin(&self, state: &Path, diff_ids: &[Digest]) -> Result<()> {
        let pin = Pin { state: state.to_owned(), diff_ids: diff_ids.to_vec() };
        let text = serde_json::to_vec(&pin).doing(|| format!("pinning the layers of {}", state.display()))?;
        self.write_whole(&self.pin_path(state), &text)
    }

    /// Lets them go.
    pub fn unpin(&self, state: &Path) -> Result<()> {
        match fs::remove_file(self.pin_path(state)) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.doing(|| format!("releasing the layers of {}", state.display())),
        }
    }

    fn pin_path(&self, state: &Path) -> PathBuf {
        let name = refs::encode(&state.to_string_lossy());
        let name = if name.len() > 200 { Digest::of(name.as_bytes()).hex().to_owned() } else { name };
        self.root.join("pins").join(name)
    }

    /// All pins; those of users that are gone are removed on the way.
    fn pins(&self) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        for path in entries(&self.root.join("pins"))? {
            let bytes = fs::read(&path).doing(|| format!("reading {}", path.display()))?;
            let pin: Pin = serde_json::from_slice(&bytes).doing(|| format!("reading {}", path.display()))?;
            if pin.state.exists() {
                pins.push(pin);
            } else {
                fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
            }
        }
        Ok(pins)
    }

    /// Removes what neither a name nor a pin needs. `rests` also takes downloads that could be resumed.
    pub fn prune(&self, rests: bool) -> Result<Pruned> {
        let _lock = self.lock(FlockArg::LockExclusiveNonblock)?;
        let mut blobs: BTreeSet<PathBuf> = BTreeSet::new();
        let mut layers: BTreeSet<PathBuf> = BTreeSet::new();
        for record in self.records()? {
            // What cannot be read is not thrown away: it may be mended.
            let image = self.read_image(&record).map_err(|err| {
                err.context(format!("looking what {} needs", record.reference))
                    .hint("remove the image or pull it again first")
            })?;
            let digests = [&record.manifest.digest, &image.manifest.config.digest];
            blobs.extend(digests.into_iter().chain(&record.index).map(|digest| self.blob_path(digest)));
            blobs.extend(image.manifest.layers.iter().map(|layer| self.blob_path(&layer.digest)));
            layers
                .extend(chain_ids(&image.config.rootfs.diff_ids).iter().map(|chain| self.layer_home(chain)));
        }
        for pin in self.pins()? {
            layers.extend(chain_ids(&pin.diff_ids).iter().map(|chain| self.layer_home(chain)));
        }
        let mut pruned = Pruned::default();
        for path in entries(&self.root.join("layers"))?.into_iter().filter(|path| !layers.contains(path)) {
            // First out of the way, so that a cut removal leaves no half layer with a name.
            let (away, _lock) = self.temporary_dir()?;
            fs::rename(&path, away.join("layer")).doing(|| format!("removing {}", path.display()))?;
            remove_tree(&away);
            pruned.layers += 1;
        }
        for algorithm in ["sha256", "sha512"] {
            let dir = self.root.join("blobs").join(algorithm);
            for path in entries(&dir)?.into_iter().filter(|path| !blobs.contains(path)) {
                pruned.bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
                fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
                pruned.blobs += 1;
            }
        }
        // Everybody who works in these holds the store's lock shared.
        for path in entries(&self.root.join("tmp"))? {
            remove_tree(&path);
            pruned.rests += 1;
        }
        if rests {
            for path in entries(&self.root.join("partial"))? {
                fs::remove_file(&path).doing(|| format!("removing {}", path.display()))?;
                pruned.rests += 1;
            }
        }
        Ok(pruned)
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let doing = || format!("listing {}", dir.display());
    fs::read_dir(dir).doing(doing)?.map(|entry| entry.map(|entry| entry.path()).doing(doing)).collect()
}
