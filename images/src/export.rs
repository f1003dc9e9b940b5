//! Export: images as archives, and changes as layers.
//!
//! Owns the form of the archives. One form serves all readers: an OCI layout, and for Docker's
//! older loaders a `manifest.json` beside it that points at the same content. Digests stay.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use tar::{EntryType, Header};

use crate::compress::Compression;
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::import::pack_layer;
use crate::manifest::{Config, History, Index, Manifest, media};
use crate::pack::{Form, Shift};
use crate::reference::Reference;
use crate::rootfs::Mounted;
use crate::store::{Image, Record, Store};
use crate::unpack::Options;

/// Who shall be able to read the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// Readers of OCI archives.
    Oci,
    /// These and `docker load` of any version.
    Docker,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes `images` as one archive.
pub fn save(store: &Store, images: &[Image], archive: Archive, out: impl Write) -> Result<()> {
    let _share = store.share()?;
    let mut out = out;
    let mut index = Index {
        schema_version: 2,
        media_type: Some(media::INDEX.into()),
        manifests: Vec::new(),
        annotations: Default::default(),
    };
    let mut saved = Vec::new();
    let mut content: BTreeSet<Digest> = BTreeSet::new();
    let place = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm(), digest.hex());
    for image in images {
        let reference: Reference = image.record.reference.parse()?;
        let mut entry = image.record.manifest.clone();
        entry.annotations.insert("io.containerd.image.name".into(), reference.to_string());
        if let Some(tag) = reference.tag() {
            entry.annotations.insert("org.opencontainers.image.ref.name".into(), tag.into());
        }
        index.manifests.push(entry);
        content.extend([image.record.manifest.digest.clone(), image.manifest.config.digest.clone()]);
        content.extend(image.manifest.layers.iter().map(|layer| layer.digest.clone()));
        saved.push(Saved {
            config: place(&image.manifest.config.digest),
            repo_tags: reference
                .tag()
                .map(|tag| format!("{}:{tag}", familiar(&reference)))
                .into_iter()
                .collect(),
            layers: image.manifest.layers.iter().map(|layer| place(&layer.digest)).collect(),
        });
    }
    let doing = || "writing the archive";
    for dir in ["blobs/", "blobs/sha256/"] {
        header(&mut out, dir, EntryType::Directory, 0)?;
    }
    for digest in &content {
        let file = store.open_blob(digest)?;
        let size = file.metadata().doing(doing)?.len();
        header(&mut out, &place(digest), EntryType::Regular, size)?;
        let copied = io::copy(&mut io::Read::take(file, size), &mut out).doing(doing)?;
        if copied != size {
            return Err(Error::corrupt(format!("{digest} in the store was cut")));
        }
        pad(&mut out, size)?;
    }
    let index = serde_json::to_vec(&index).doing(doing)?;
    document(&mut out, "index.json", &index)?;
    if archive == Archive::Docker {
        document(&mut out, "manifest.json", &serde_json::to_vec(&saved).doing(doing)?)?;
    }
    let layout = serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"})).doing(doing)?;
    document(&mut out, "oci-layout", &layout)?;
    out.write_all(&[0; 1024]).and_then(|()| out.flush()).doing(doing)
}

/// A name as Docker shows it.
fn familiar(reference: &Reference) -> String {
    match (reference.registry(), reference.repository()) {
        ("docker.io", repository) => repository.strip_prefix("library/").unwrap_or(repository).to_owned(),
        _ => reference.name(),
    }
}

fn header(out: &mut impl Write, name: &str, kind: EntryType, size: u64) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    let field = &mut header.as_old_mut().name;
    let n = name.len().min(field.len());
    field[..n].copy_from_slice(&name.as_bytes()[..n]);
    if name.len() > 100 {
        // Only a SHA-512 is that long: its name goes into ustar's prefix.
        header.set_path(name).doing(|| "writing the archive")?;
    }
    header.set_cksum();
    out.write_all(header.as_bytes()).doing(|| "writing the archive")
}

fn document(out: &mut impl Write, name: &str, bytes: &[u8]) -> Result<()> {
    header(out, name, EntryType::Regular, bytes.len() as u64)?;
    out.write_all(bytes).doing(|| "writing the archive")?;
    pad(out, bytes.len() as u64)
}

fn pad(out: &mut impl Write, size: u64) -> Result<()> {
    let rest = (512 - size % 512) % 512;
    out.write_all(&[0; 512][..rest as usize]).doing(|| "writing the archive")
}

/// Makes an image of a mounted root file system: its image, and what was changed as a layer.
pub fn commit(
    store: &Store,
    state: &Path,
    name: &Reference,
    compression: Compression,
    comment: Option<&str>,
    options: &Options,
) -> Result<Record> {
    let doing = || format!("committing {} as {name}", state.display());
    let _share = store.share()?;
    let mounted = Mounted::read(state).map_err(|err| err.context(doing()))?;
    let Some(record) = &mounted.record else {
        return Err(Error::new(
            Kind::Unsupported,
            format!("{}: the image host is no base for a commit", doing()),
        ));
    };
    let base = store.read_image(record).map_err(|err| err.context(doing()))?;
    let upper = state.join("upper");
    let upper: OwnedFd = File::open(&upper).doing(|| format!("opening {}", upper.display()))?.into();
    let shift = mounted.map.map(|map| Shift { outside: map.first, inside: 0, count: map.count });
    let (layer, diff_id) =
        pack_layer(store, &upper, Form::Upper, shift, compression).map_err(|err| err.context(doing()))?;
    let now = crate::time::now();
    let mut config: Config = base.config.clone();
    config.created = Some(now.clone());
    config.rootfs.diff_ids.push(diff_id);
    config.history.get_or_insert_default().push(History {
        created: Some(now),
        created_by: Some("locule image commit".into()),
        comment: comment.map(str::to_owned),
        ..History::default()
    });
    let config_digest = store.write_document(&serde_json::to_vec(&config).doing(doing)?)?;
    let mut layers = base.manifest.layers.clone();
    layers.push(layer);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        config: store.describe(&config_digest, media::CONFIG)?,
        layers,
        annotations: base.manifest.annotations.clone(),
    };
    let digest = store.write_document(&serde_json::to_vec(&manifest).doing(doing)?)?;
    store.unpack_image(&manifest, &config, options).map_err(|err| err.context(doing()))?;
    store.tag(name, &store.describe(&digest, media::MANIFEST)?, None)
}
