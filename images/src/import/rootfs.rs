//! Root file systems without an image around them: a tarball (an OpenVZ template) or a directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;

use super::{Import, rewind};
use crate::compress::Compression;
use crate::digest::{Digest, Hasher, Hashing};
use crate::error::{Context, Result};
use crate::manifest::{Config, Descriptor, History, Manifest, RootFs, Run, media};
use crate::pack::{Form, pack};
use crate::store::{Record, Store};
use crate::sys::fs::{IN_ROOT, openat2};

/// The program that boots a system, for every distribution.
const INIT: &str = "/sbin/init";

/// Imports a tarball as an image of one layer; its bytes stay as they are.
pub fn tarball(import: &Import<'_>, store: &Store, mut file: File, stem: &str) -> Result<Vec<Record>> {
    rewind(&mut file)?;
    let mut start = [0; 4];
    let n = io::Read::read(&mut file, &mut start).doing(|| "reading the archive")?;
    let compression = Compression::of(&start[..n]);
    rewind(&mut file)?;
    let mut spool = store.spool()?;
    io::copy(&mut file, &mut spool).doing(|| "copying the archive")?;
    let (digest, _) = spool.finish()?;
    let layer = store.describe(&digest, compression.layer())?;
    let (pending, diff_id) = store.unpack_any(store.open_blob(&digest)?, Hasher::sha256(), import.options)?;
    store.commit_layers(std::slice::from_ref(&diff_id), vec![Some(pending)], import.options)?;
    name(import, store, layer, diff_id, stem, "locule image import of a tarball")
}

/// Imports a directory as an image of one layer.
pub fn directory(import: &Import<'_>, store: &Store, dir: &OwnedFd, stem: &str) -> Result<Vec<Record>> {
    let (layer, diff_id) = layer(store, dir, Form::Whole, None, import.compression)?;
    let pending = store.unpack_layer(store.open_blob(&layer.digest)?, &diff_id, import.options)?;
    store.commit_layers(std::slice::from_ref(&diff_id), vec![Some(pending)], import.options)?;
    name(import, store, layer, diff_id, stem, "locule image import of a directory")
}

/// Packs the tree in `dir` as a layer into the store.
pub(crate) fn layer(
    store: &Store,
    dir: &OwnedFd,
    form: Form,
    shift: Option<crate::pack::Shift>,
    compression: Compression,
) -> Result<(Descriptor, Digest)> {
    let doing = || "compressing the layer";
    let squeezed = compression.writer(store.spool()?).doing(doing)?;
    let plain = pack(dir.as_fd(), Hashing::new(squeezed, Hasher::sha256()), form, shift)?;
    let (squeezed, diff_id, _) = plain.finish();
    let (digest, _) = squeezed.finish().doing(doing)?.finish()?;
    Ok((store.describe(&digest, compression.layer())?, diff_id))
}

/// Whether the layer is a system that boots. Links in it lead to what is in it, not to the host's own init.
fn has_init(store: &Store, diff_id: &Digest) -> Result<bool> {
    for layer in store.layers(std::slice::from_ref(diff_id))? {
        let root = File::open(&layer).doing(|| format!("opening {}", layer.display()))?;
        if openat2(root.as_fd(), INIT.as_bytes(), OFlag::O_PATH, 0, IN_ROOT).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn name(
    import: &Import<'_>,
    store: &Store,
    layer: Descriptor,
    diff_id: Digest,
    stem: &str,
    by: &str,
) -> Result<Vec<Record>> {
    let program = if has_init(store, &diff_id)? { INIT } else { "/bin/sh" };
    let config = Config {
        created: Some(crate::time::now()),
        platform: import.platform.clone(),
        config: Some(Run { cmd: Some(vec![program.into()]), ..Run::default() }),
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
        history: Some(vec![History {
            created: Some(crate::time::now()),
            created_by: Some(by.into()),
            ..History::default()
        }]),
        ..Config::default()
    };
    let config = serde_json::to_vec(&config).doing(|| "writing the configuration")?;
    let config = store.write_document(&config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        config: store.describe(&config, media::CONFIG)?,
        layers: vec![layer],
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest).doing(|| "writing the manifest")?;
    let digest = store.write_document(&bytes)?;
    let names = import.names(&[], stem)?;
    import.take(store, &store.describe(&digest, media::MANIFEST)?, &names, None)
}
