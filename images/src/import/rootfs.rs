//! Root file systems without an image around them: a tarball (an OpenVZ template) or a directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{Import, rewind};
use crate::compress::Compression;
use crate::digest::{Digest, Hasher, Hashing};
use crate::error::{Context, Result};
use crate::manifest::{Config, Descriptor, History, Manifest, RootFs, Run, media};
use crate::pack::{Form, pack};
use crate::store::{Record, Store};

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

fn name(
    import: &Import<'_>,
    store: &Store,
    layer: Descriptor,
    diff_id: Digest,
    stem: &str,
    by: &str,
) -> Result<Vec<Record>> {
    // A system boots; its links are not followed, as they are the archive's.
    let layers = store.layers(std::slice::from_ref(&diff_id))?;
    let has = |path: &str| layers.iter().any(|layer| layer.join(path).symlink_metadata().is_ok());
    let program = if has("usr/sbin/init") || has("sbin/init") { "/sbin/init" } else { "/bin/sh" };
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
