//! Import: images and root file systems that are files.
//!
//! Owns the decision what a file is, by its content. Everything that is taken goes through the
//! store's verification; names in archives are never paths.

mod archive;
mod layout;
mod rootfs;

pub(crate) use rootfs::layer as pack_layer;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::compress::{Compression, reader};
use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::manifest::{Config, Descriptor, Document, Platform, media};
use crate::reference::Reference;
use crate::store::{Record, Store};
use crate::unpack::Options;
use crate::unpack::tape::{Kind as EntryKind, Tape};
use crate::unpack::tree::clean;

/// What to import, and how.
#[derive(Debug)]
pub struct Import<'a> {
    /// The name that it gets; without, the names that the archive says.
    pub name: Option<Reference>,
    /// Which of several platforms.
    pub platform: Platform,
    /// How a directory is compressed.
    pub compression: Compression,
    /// How layers are unpacked.
    pub options: &'a Options,
}

impl Import<'_> {
    /// Imports what is at `path`.
    pub fn path(&self, store: &Store, path: &Path) -> Result<Vec<Record>> {
        let stem = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let done = self.share_and(store, |store| {
            let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
            let meta = file.metadata().doing(|| format!("looking at {}", path.display()))?;
            if meta.is_dir() {
                let dir = OwnedFd::from(file);
                return match path.join("oci-layout").is_file() {
                    true => layout::import(self, store, &dir, &stem),
                    false => rootfs::directory(self, store, &dir, &stem),
                };
            }
            self.file(store, file, &stem)
        });
        done.map_err(|err| err.context(format!("importing {}", path.display())))
    }

    /// Imports an archive from a stream, which cannot be read twice.
    pub fn stream(&self, store: &Store, mut stream: impl Read) -> Result<Vec<Record>> {
        let done = self.share_and(store, |store| {
            let mut spool = store.spool()?;
            io::copy(&mut stream, &mut spool).doing(|| "reading the archive")?;
            self.file(store, spool.so_far()?, "stdin")
        });
        done.map_err(|err| err.context("importing from standard input"))
    }

    /// Runs `work` so that nothing new counts as unused, and tidies up after it.
    fn share_and(
        &self,
        store: &Store,
        work: impl FnOnce(&Store) -> Result<Vec<Record>>,
    ) -> Result<Vec<Record>> {
        let share = store.share()?;
        let done = work(store);
        drop(share);
        // What no image needs, or all of it if there is no image. Others at work prevent it: no harm.
        let _ = store.prune(false);
        done
    }

    fn file(&self, store: &Store, file: File, stem: &str) -> Result<Vec<Record>> {
        match holds(&file, self.options)? {
            Holds::Image => archive::import(self, store, file, stem),
            Holds::Tree => rootfs::tarball(self, store, file, stem),
        }
    }

    /// Unpacks what `manifest` describes, whose content is in the store, and names it.
    fn take(
        &self,
        store: &Store,
        manifest: &Descriptor,
        names: &[Reference],
        index: Option<&Digest>,
    ) -> Result<Vec<Record>> {
        let bytes = store.read_document(&manifest.digest)?;
        let Document::Manifest(image) = Document::read(&bytes, Some(&manifest.media_type))? else {
            return Err(Error::corrupt(format!("{} is an index in the place of an image", manifest.digest)));
        };
        image.check_image()?;
        let config = Config::read(&store.read_document(&image.config.digest)?, &image)?;
        store.unpack_image(&image, &config, self.options)?;
        names.iter().map(|name| store.tag(name, manifest, index)).collect()
    }

    /// The names of an image: what was asked for, what the archive says, or the file's name.
    fn names(&self, said: &[String], stem: &str) -> Result<Vec<Reference>> {
        if let Some(name) = &self.name {
            return Ok(vec![name.clone()]);
        }
        let mut names: Vec<Reference> = Vec::new();
        for text in said {
            // Without a slash or a colon it is a tag alone.
            let whole =
                if text.contains(['/', ':']) { text.clone() } else { format!("{}:{text}", local(stem)) };
            names.push(whole.parse()?);
        }
        if names.is_empty() {
            names.push(local(stem).parse()?);
        }
        Ok(names)
    }
}

/// A name under `localhost/` made from a file's name.
fn local(stem: &str) -> String {
    let mut stem = stem;
    for end in [".gz", ".zst", ".tgz", ".tar", ".oci"] {
        stem = stem.strip_suffix(end).unwrap_or(stem);
    }
    let name: String = stem
        .to_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    format!("localhost/{}", if name.is_empty() { "image" } else { &name })
}

#[derive(Debug, PartialEq, Eq)]
enum Holds {
    /// An OCI or a Docker archive.
    Image,
    /// A root file system.
    Tree,
}

/// What a (compressed) archive holds: looks until it is sure.
fn holds(file: &File, options: &Options) -> Result<Holds> {
    let mut file = file.try_clone().doing(|| "reading the archive")?;
    rewind(&mut file)?;
    let plain = reader(&file, &options.limits).doing(|| "reading the archive")?;
    let mut tape = Tape::new(plain, options.limits);
    let mut dirs = false;
    while let Some(entry) = tape.next_entry()? {
        let path = clean(&entry.path)?;
        match path.as_slice() {
            b"manifest.json" | b"oci-layout" | b"index.json" => return Ok(Holds::Image),
            b"" | b"blobs" | b"blobs/sha256" | b"repositories" => {}
            path if part_of_image(path) => {}
            // Legacy archives have a directory for each layer.
            _ if entry.kind == EntryKind::Dir => dirs = true,
            _ => return Ok(Holds::Tree),
        }
    }
    if dirs { Ok(Holds::Tree) } else { Err(Error::invalid("the archive is empty")) }
}

/// `blobs/sha256/HEX`, `HEX.json`, `HEX.tar`, `HEX/layer.tar`, `HEX/json`, `HEX/VERSION`.
fn part_of_image(path: &[u8]) -> bool {
    let is_hex = |text: &[u8]| text.len() == 64 && text.iter().all(u8::is_ascii_hexdigit);
    if let Some(rest) = path.strip_prefix(b"blobs/sha256/") {
        return is_hex(rest);
    }
    let (first, rest) = match path.iter().position(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (path, &b""[..]),
    };
    match rest {
        b"" => [&b".json"[..], b".tar", b""].iter().any(|end| first.strip_suffix(*end).is_some_and(is_hex)),
        b"layer.tar" | b"json" | b"VERSION" => is_hex(first),
        _ => false,
    }
}

fn rewind(file: &mut File) -> Result<()> {
    io::Seek::rewind(file).map_err(|_| {
        Error::new(Kind::Unsupported, "the file cannot be read twice").hint("give it on standard input, as -")
    })
}

/// The manifest behind `entry` of an index, through nested indexes, with what `fetch` brings.
pub(crate) fn follow(
    entry: &Descriptor,
    platform: &Platform,
    fetch: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>>,
) -> Result<(Descriptor, Vec<u8>, Option<Digest>)> {
    let mut entry = entry.clone();
    let mut index = None;
    for _ in 0..4 {
        let bytes = fetch(&entry)?;
        match Document::read(&bytes, Some(&entry.media_type))? {
            Document::Manifest(_) => {
                if !media::is_manifest(&entry.media_type) {
                    entry.media_type = media::MANIFEST.into();
                }
                return Ok((entry, bytes, index));
            }
            Document::Index(found) => {
                index.get_or_insert(entry.digest.clone());
                entry = found.choose(platform)?.clone();
            }
        }
    }
    Err(Error::corrupt("indexes are nested too deep"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_become_names() {
        for (given, name) in [
            ("debian-13.tar.gz", "localhost/debian-13"),
            ("My Image_v1.tar", "localhost/my-image-v1"),
            ("-", "localhost/image"),
        ] {
            assert_eq!(local(given), name);
            assert!(local(given).parse::<Reference>().is_ok());
        }
    }
}
