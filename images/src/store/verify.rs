//! Checking the store against itself: content by its digest, images by what they need, layers by
//! their archives.
//!
//! Changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use serde::Serialize;

use super::Store;
use crate::compress;
use crate::digest::{Digest, Hasher, Hashing, chain_ids};
use crate::error::{Context, Result};
use crate::sys::fs::{BENEATH, openat2};
use crate::unpack::Limits;
use crate::unpack::tape::{Kind, Tape};
use crate::unpack::tree::{clean, split};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

impl Store {
    /// Reads everything and says what is wrong.
    pub fn verify(&self) -> Result<Vec<Problem>> {
        let _share = self.share()?;
        let mut problems = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = self.root.join("blobs").join(algorithm);
            let doing = || format!("listing {}", dir.display());
            for entry in fs::read_dir(&dir).doing(doing)? {
                let path = entry.doing(doing)?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let why = match format!("{algorithm}:{name}").parse::<Digest>() {
                    Err(err) => Some(err.to_string()),
                    Ok(digest) => content(&path, &digest)?,
                };
                problems.extend(why.map(|why| Problem { what: format!("{algorithm}:{name}"), why }));
            }
        }
        for record in self.records()? {
            let mut tell = |why: String| problems.push(Problem { what: record.reference.clone(), why });
            let image = match self.read_image(&record) {
                Ok(image) => image,
                Err(err) => {
                    tell(err.to_string());
                    continue;
                }
            };
            let chain = chain_ids(&image.config.rootfs.diff_ids);
            for (layer, chain) in image.manifest.layers.iter().zip(&chain) {
                if !self.has_blob(&layer.digest) {
                    tell(format!("the layer {} is missing", layer.digest));
                } else if !self.has_layer(chain) {
                    tell(format!("the layer {} is not unpacked", layer.digest));
                } else if let Some(why) = self.unpacked(&layer.digest, chain)? {
                    tell(why);
                }
            }
        }
        Ok(problems)
    }

    /// Holds the regular files of a layer against its archive.
    fn unpacked(&self, blob: &Digest, chain: &Digest) -> Result<Option<String>> {
        let limits = Limits::default();
        let plain = compress::reader(self.open_blob(blob)?, &limits).doing(|| format!("reading {blob}"))?;
        let mut tape = Tape::new(plain, limits);
        let mut files: BTreeMap<Vec<u8>, Option<(u64, Digest)>> = BTreeMap::new();
        loop {
            let entry = match tape.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(err) => return Ok(Some(err.to_string())),
            };
            let path = clean(&entry.path)?;
            if split(&path).1.starts_with(b".wh.") {
                continue;
            }
            // Links and sparse files have no data of their own to compare in one pass.
            let expected = match (entry.kind, &entry.regions) {
                (Kind::File, None) => {
                    let mut hasher = Hasher::sha256();
                    let mut buffer = [0; 16 << 10];
                    loop {
                        match tape.read_data(&mut buffer)? {
                            0 => break,
                            n => hasher.update(&buffer[..n]),
                        }
                    }
                    Some((entry.size, hasher.finish()))
                }
                _ => None,
            };
            files.insert(path, expected);
        }
        let root = self.layer_path(chain);
        let root: OwnedFd = File::open(&root).doing(|| format!("opening {}", root.display()))?.into();
        for (path, expected) in files {
            let Some((size, digest)) = expected else { continue };
            let shown = String::from_utf8_lossy(&path).into_owned();
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            // An entry may lie behind a link of the same layer, or a later entry may have replaced it.
            let Ok(file) = openat2(root.as_fd(), &path, flags, 0, BENEATH) else {
                if openat2(root.as_fd(), &path, OFlag::O_PATH, 0, crate::sys::fs::IN_ROOT).is_ok() {
                    continue;
                }
                return Ok(Some(format!("/{shown} is missing in the unpacked layer {}", chain.short())));
            };
            let file = File::from(file);
            if !file.metadata().is_ok_and(|meta| meta.is_file()) {
                continue;
            }
            let mut hashing = Hashing::new(file, Hasher::sha256());
            io::copy(&mut (&mut hashing).take(size + 1), &mut io::sink())
                .doing(|| format!("reading /{shown}"))?;
            let (_, found, count) = hashing.finish();
            if (count, &found) != (size, &digest) {
                return Ok(Some(format!("/{shown} was changed in the unpacked layer {}", chain.short())));
            }
        }
        Ok(None)
    }
}

fn content(path: &Path, digest: &Digest) -> Result<Option<String>> {
    let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
    let mut hashing = Hashing::new(file, digest.hasher());
    io::copy(&mut hashing, &mut io::sink()).doing(|| format!("reading {}", path.display()))?;
    let (_, found, _) = hashing.finish();
    Ok((found != *digest).then(|| format!("it was damaged: it is now {found}")))
}
