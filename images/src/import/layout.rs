//! OCI image layouts: a directory with an index and content by digest.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;

use super::{Import, follow};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::manifest::{Descriptor, Document, LARGEST, media};
use crate::store::{Record, Store};
use crate::sys::fs::{BENEATH, openat2};

/// Names that tools give to the entries of an index, the most telling first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Imports the layout in `dir`.
pub fn import(import: &Import<'_>, store: &Store, dir: &OwnedFd, stem: &str) -> Result<Vec<Record>> {
    let open = |path: &str| {
        openat2(dir.as_fd(), path.as_bytes(), OFlag::O_RDONLY | OFlag::O_NOFOLLOW, 0, BENEATH)
            .map(File::from)
            .doing(|| format!("opening {path} of the layout"))
    };
    let mut index = Vec::new();
    open("index.json")?.take(LARGEST).read_to_end(&mut index).doing(|| "reading index.json")?;
    index_of(import, store, &index, stem, &mut |descriptor| {
        copy(
            store,
            descriptor,
            open(&format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex()))?,
        )
    })
}

/// Brings the content behind `descriptor` into the store, from `source`.
fn copy(store: &Store, descriptor: &Descriptor, mut source: File) -> Result<()> {
    let Some(mut incoming) = store.incoming(&descriptor.digest, descriptor.size)? else { return Ok(()) };
    incoming.restart()?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match source.read(&mut buffer).doing(|| format!("reading {}", descriptor.digest))? {
            0 => return incoming.finish().map_err(|err| err.context("copying content")),
            n => incoming.write(&buffer[..n])?,
        }
    }
}

/// Imports what `index` lists; `bring` puts content into the store.
pub fn index_of(
    import: &Import<'_>,
    store: &Store,
    index: &[u8],
    stem: &str,
    bring: &mut dyn FnMut(&Descriptor) -> Result<()>,
) -> Result<Vec<Record>> {
    let Document::Index(index) = Document::read(index, Some(media::INDEX))? else {
        return Err(Error::corrupt("index.json is no index"));
    };
    let mut records = Vec::new();
    let images: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| media::is_manifest(&entry.media_type) || media::is_index(&entry.media_type))
        .collect();
    if import.name.is_some() && images.len() > 1 {
        return Err(Error::invalid(format!("it holds {} images, and one name was given", images.len()))
            .hint("import without a name to keep their own"));
    }
    for entry in images {
        let mut fetch = |descriptor: &Descriptor| {
            if descriptor.size > LARGEST {
                return Err(Error::corrupt(format!(
                    "the document {} is larger than {LARGEST} bytes",
                    descriptor.digest
                )));
            }
            bring(descriptor)?;
            store.read_document(&descriptor.digest)
        };
        let (manifest, bytes, from): (Descriptor, Vec<u8>, Option<Digest>) =
            follow(entry, &import.platform, &mut fetch)?;
        let Document::Manifest(image) = Document::read(&bytes, Some(&manifest.media_type))? else {
            return Err(Error::corrupt("an index in the place of an image"));
        };
        image.check_image()?;
        for descriptor in std::iter::once(&image.config).chain(&image.layers) {
            bring(descriptor)?;
        }
        let said: Vec<String> =
            NAMES.iter().filter_map(|key| entry.annotations.get(*key)).take(1).cloned().collect();
        let names = import.names(&said, stem)?;
        records.extend(import.take(store, &manifest, &names, from.as_ref())?);
    }
    if records.is_empty() {
        return Err(Error::invalid("it holds no image"));
    }
    Ok(records)
}
