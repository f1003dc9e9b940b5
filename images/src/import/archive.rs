//! OCI and Docker archives: an image in one tar file, of `skopeo`, `docker save`, `podman save`, `ctr export`.
//!
//! The members become content of the store by what they are; their names only lead from one to
//! another and are never paths.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};

use serde::Deserialize;

use super::{Import, layout, rewind};
use crate::compress::{Compression, reader};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::manifest::{Descriptor, LARGEST, Manifest, media};
use crate::reference::Reference;
use crate::store::{Record, Store};
use crate::unpack::tape::{Entry, Kind, Tape};
use crate::unpack::tree::{clean, split};

/// The most members that name something.
const MOST_MEMBERS: usize = 100_000;
/// Documents without a digest of their own.
const DOCUMENTS: [&str; 4] = ["manifest.json", "index.json", "oci-layout", "repositories"];

#[derive(Debug, Clone)]
enum Member {
    Content(Digest, Compression),
    Link(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Imports the archive in `file`.
pub fn import(import: &Import<'_>, store: &Store, mut file: File, stem: &str) -> Result<Vec<Record>> {
    rewind(&mut file)?;
    let plain = reader(file, &import.options.limits).doing(|| "reading the archive")?;
    let mut tape = Tape::new(plain, import.options.limits);
    let mut members: HashMap<String, Member> = HashMap::new();
    let mut documents: HashMap<String, Vec<u8>> = HashMap::new();
    while let Some(entry) = tape.next_entry()? {
        let name = String::from_utf8_lossy(&clean(&entry.path)?).into_owned();
        if members.len() >= MOST_MEMBERS {
            return Err(Error::corrupt("the archive has too many members"));
        }
        match entry.kind {
            Kind::File if DOCUMENTS.contains(&name.as_str()) => {
                if entry.size > LARGEST {
                    return Err(Error::corrupt(format!("{name} is larger than {LARGEST} bytes")));
                }
                let mut bytes = Vec::new();
                Data(&mut tape).read_to_end(&mut bytes).doing(|| format!("reading {name}"))?;
                documents.insert(name, bytes);
            }
            Kind::File => drop(members.insert(name, content(store, &entry, &mut tape)?)),
            Kind::SymLink => {
                let dir = split(name.as_bytes()).0;
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                let target = lexical(&format!("{}/{target}", String::from_utf8_lossy(dir)));
                members.insert(name, Member::Link(target));
            }
            Kind::HardLink => {
                drop(members.insert(name, Member::Link(lexical(&String::from_utf8_lossy(&entry.link)))))
            }
            _ => {}
        }
    }
    let saved = match documents.get("manifest.json") {
        Some(bytes) => serde_json::from_slice::<Vec<Saved>>(bytes).doing(|| "reading manifest.json")?,
        None => Vec::new(),
    };
    if let Some(index) = documents.get("index.json") {
        return layout::index_of(import, store, index, stem, &mut |descriptor| match std::fs::metadata(
            store.blob_path(&descriptor.digest),
        ) {
            Ok(meta) if meta.len() == descriptor.size => Ok(()),
            Ok(meta) => Err(Error::corrupt(format!(
                "{} has {} bytes, and {} were announced",
                descriptor.digest,
                meta.len(),
                descriptor.size
            ))),
            Err(_) => Err(Error::corrupt(format!("{} is not in the archive", descriptor.digest))),
        });
    }
    let mut records = Vec::new();
    for image in &saved {
        records.extend(docker(import, store, image, &members, stem)?);
    }
    if records.is_empty() {
        return Err(Error::invalid("the archive holds no image"));
    }
    Ok(records)
}

fn docker(
    import: &Import<'_>,
    store: &Store,
    image: &Saved,
    members: &HashMap<String, Member>,
    stem: &str,
) -> Result<Vec<Record>> {
    let (config, _) = find(members, &image.config)?;
    let mut layers: Vec<Descriptor> = Vec::new();
    for name in &image.layers {
        let (digest, compression) = find(members, name)?;
        layers.push(store.describe(&digest, compression.layer())?);
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        config: store.describe(&config, media::CONFIG)?,
        layers,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest).doing(|| "writing the manifest")?;
    let digest = store.write_document(&bytes)?;
    let names: Vec<Reference> = import.names(image.repo_tags.as_deref().unwrap_or_default(), stem)?;
    import.take(store, &store.describe(&digest, media::MANIFEST)?, &names, None)
}

/// What `name` leads to, through links.
fn find(members: &HashMap<String, Member>, name: &str) -> Result<(Digest, Compression)> {
    let mut name = lexical(name);
    for _ in 0..8 {
        match members.get(&name) {
            Some(Member::Content(digest, compression)) => return Ok((digest.clone(), *compression)),
            Some(Member::Link(target)) => name = target.clone(),
            None => return Err(Error::corrupt(format!("the archive has no member {name:?}"))),
        }
    }
    Err(Error::corrupt(format!("the archive's links lead from {name:?} in a circle")))
}

/// The data of the entry that the tape stands at.
struct Data<'a, R>(&'a mut Tape<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_data(buf).map_err(io::Error::from)
    }
}

/// Keeps the first bytes of what passes.
struct Start<W> {
    inner: W,
    start: Vec<u8>,
}

impl<W: Write> Write for Start<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        let missing = 4usize.saturating_sub(self.start.len()).min(n);
        self.start.extend_from_slice(&buf[..missing]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn content<R: Read>(store: &Store, entry: &Entry, tape: &mut Tape<R>) -> Result<Member> {
    if entry.regions.is_some() {
        return Err(Error::corrupt("a member of the archive is sparse"));
    }
    let mut writer = Start { inner: store.spool()?, start: Vec::new() };
    io::copy(&mut Data(tape), &mut writer).doing(|| "copying a member of the archive")?;
    let compression = Compression::of(&writer.start);
    let (digest, _) = writer.inner.finish()?;
    Ok(Member::Content(digest, compression))
}

/// A member's name with `.` and `..` taken out by their letters: it only leads to another member.
fn lexical(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
