//! A whole machine as one stream: out of a machine or a snapshot, and into a new machine.
//!
//! Owns the form of the archive: tar with PAX records, compressed by Zstandard. Ids are those of the inside, so that
//! it can be taken in under any range. Everything that is read is hostile until the digest at the end was right.
//!
//! ```text
//! locule-machine.json    what the archive is (first)
//! machine.toml           the definition
//! image/…                overlay: manifest, configuration and layers of the image, unless left out
//! root/…                 the trees of an overlay, or disk.img with its holes
//! sha256                 digest of all bytes before its own (last)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use locule_images::compress::{Compression, reader};
use locule_images::digest::{Digest, Hasher, Hashing};
use locule_images::manifest::{Config, Document, LARGEST, Manifest};
use locule_images::pack::{Archive, Form};
use locule_images::unpack::tape::{Entry, Kind as EntryKind, Tape};
use locule_images::unpack::tree::{clean, shown};
use locule_images::unpack::{Layer, Limits, Options};
use locule_images::{Reference, Store};
use serde::{Deserialize, Serialize};

use super::copy::Progress;
use super::record::{Record, sync_dir};
use super::{Storage, disk, make_dir, open_dir, overlay, project};
use crate::definition::{DiskKind, FILE as DEFINITION};
use crate::{Context, Error, Kind, Result, lift};

/// What the archive is, first in it.
const HEAD: &str = "locule-machine.json";
/// The digest, last in it.
const TAIL: &str = "sha256";
/// The form that is written, and the newest that is read.
const VERSION: u32 = 1;
/// Most bytes of the documents at the beginning.
const DOCUMENT: u64 = 1 << 20;
const CHUNK: usize = 256 << 10;

/// What an archive says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    /// Version of the form.
    pub version: u32,
    /// The machine's name.
    pub name: String,
    /// When it was written.
    pub created: String,
    /// What its disk was made as.
    pub storage: Record,
    /// Whether the image is in it.
    pub image: bool,
}

/// Writes the machine `name`, whose `root` does not change meanwhile, to `out`.
///
/// Without `image` the archive can be taken in only where the image's layers are.
pub fn export(
    images: &Store,
    root: &Path,
    name: &str,
    definition: &str,
    image: bool,
    out: impl Write,
    progress: &mut dyn Progress,
) -> Result<()> {
    let storage = Record { project: None, ..Record::read(root)? };
    let image = image && storage.kind == DiskKind::Overlay && storage.record.is_some();
    let _share = images.share().map_err(lift)?;
    let squeezed = Compression::Zstd.writer(out).doing(|| "compressing the archive")?;
    let mut archive = Archive::new(Hashing::new(Told { inner: squeezed, progress }, Hasher::sha256()));
    let head = Head {
        version: VERSION,
        name: name.to_owned(),
        created: locule_images::time::now(),
        storage: storage.clone(),
        image,
    };
    let text = serde_json::to_vec_pretty(&head).doing(|| "writing the archive")?;
    archive.document(HEAD, &text).map_err(lift)?;
    archive.document(DEFINITION, definition.as_bytes()).map_err(lift)?;
    if image && let Some(record) = &storage.record {
        export_image(images, record, &mut archive).map_err(|err| {
            err.context(format!("writing the image {}", record.reference))
                .hint("pull it again, or leave it out with --no-image")
        })?;
    }
    match storage.kind {
        DiskKind::Overlay => {
            for part in overlay::parts(root)? {
                let tree = open_dir(&root.join(&part))?;
                archive.tree(tree.as_fd(), &format!("root/{}", part.display()), Form::Upper).map_err(lift)?;
            }
        }
        DiskKind::Disk => {
            let path = root.join(disk::FILE);
            let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
            archive.sparse(&format!("root/{}", disk::FILE), &file).map_err(lift)?;
        }
    }
    // The header is part of what the digest covers, so that both sides find it at the same place.
    let length = Digest::of(b"").hex().len() as u64 + 1;
    archive.begin(TAIL, length).map_err(lift)?;
    let digest = format!("{}\n", archive.out().so_far().hex());
    archive.data(digest.as_bytes(), length).map_err(lift)?;
    let (told, _, _) = archive.finish().map_err(lift)?.finish();
    let mut out = told.inner.finish().doing(|| "compressing the archive")?;
    out.flush().doing(|| "writing the archive")
}

fn export_image<W: Write>(
    images: &Store,
    record: &locule_images::store::Record,
    archive: &mut Archive<W>,
) -> Result<()> {
    let image = images.read_image(record).map_err(lift)?;
    let documents = [("manifest", &record.manifest.digest), ("config", &image.manifest.config.digest)];
    for (name, digest) in documents {
        let bytes = images.read_document(digest).map_err(lift)?;
        archive.document(&format!("image/{name}"), &bytes).map_err(lift)?;
    }
    for layer in &image.manifest.layers {
        let blob = images.open_blob(&layer.digest).map_err(lift)?;
        archive.begin(&format!("image/layers/{}", layer.digest.hex()), layer.size).map_err(lift)?;
        archive.data(blob, layer.size).map_err(lift)?;
    }
    Ok(())
}

/// Tells of the bytes that pass.
struct Told<'a, W> {
    inner: W,
    progress: &'a mut dyn Progress,
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.progress.bytes(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// An archive whose beginning was read.
pub struct Import<'a> {
    tape: Tape<Hashing<Box<dyn Read + Send + 'a>>>,
    /// What it says of itself.
    pub head: Head,
    /// The definition.
    pub definition: String,
    next: Option<Entry>,
}

/// What a machine's archive may hold: a disk is larger than any layer, and nearly nothing when it is empty.
fn limits() -> Limits {
    Limits { entries: 64 << 20, bytes: 16 << 40, ratio: 50_000, sparse: 64 << 40, ..Limits::default() }
}

fn corrupt(why: &str) -> Error {
    Error::invalid(format!("reading the archive: {why}"))
}

fn cut_off() -> Error {
    corrupt("it is cut off: its digest is missing")
}

impl<'a> Import<'a> {
    /// Reads the beginning of the archive in `from`.
    pub fn open(from: impl Read + Send + 'a) -> Result<Import<'a>> {
        let plain = reader(from, &limits()).doing(|| "reading the archive")?;
        let mut tape = Tape::new(Hashing::new(plain, Hasher::sha256()), limits());
        let no_machine = || {
            corrupt("it is no machine: locule export writes them")
                .hint("an image is taken in by locule image import")
        };
        let first = tape.next_entry().map_err(|err| no_machine().context(lift(err)))?;
        let first = first.filter(|entry| entry.path == HEAD.as_bytes()).ok_or_else(no_machine)?;
        let head: Head =
            serde_json::from_slice(&small(&first, &mut tape)?).doing(|| format!("reading {HEAD}"))?;
        if head.version > VERSION {
            return Err(Error::unsupported(format!("the archive has version {} of its form", head.version))
                .hint(format!("this locule reads up to version {VERSION}: use a newer one")));
        }
        let second = tape.next_entry().map_err(lift)?;
        let second = second
            .filter(|entry| entry.path == DEFINITION.as_bytes())
            .ok_or_else(|| corrupt("its definition is missing"))?;
        let definition = String::from_utf8(small(&second, &mut tape)?)
            .map_err(|_| corrupt("its definition is not UTF-8"))?;
        let mut import = Import { tape, head, definition, next: None };
        import.advance()?;
        Ok(import)
    }

    fn advance(&mut self) -> Result<()> {
        self.next = self.tape.next_entry().map_err(lift)?;
        Ok(())
    }

    /// The name of the next entry, cleaned.
    fn name(&self) -> Result<Option<Vec<u8>>> {
        self.next.as_ref().map(|entry| clean(&entry.path).map_err(lift)).transpose()
    }

    /// Reads the rest into the storage of a new machine; on failure nothing of it is left.
    pub fn store(mut self, storage: &Storage<'_>, progress: &mut dyn Progress) -> Result<()> {
        if Record::read(&storage.root).is_ok() {
            return Err(Error::new(Kind::Exists, format!("{} is there already", storage.root.display())));
        }
        if storage.disk.kind != self.head.storage.kind {
            return Err(corrupt("its definition says another kind of disk than it holds"));
        }
        storage.clear(&storage.root)?;
        storage.clear_rests()?;
        let part = storage.rest();
        let taken = self.take(storage, &part, progress);
        if taken.is_err() {
            let _ = storage.clear_rests();
            let _ = storage.remove();
        }
        taken.map_err(|err| err.context(format!("taking in machine {}", self.head.name)))
    }

    fn take(&mut self, storage: &Storage<'_>, part: &Path, progress: &mut dyn Progress) -> Result<()> {
        let share = storage.images.share().map_err(lift)?;
        make_dir(part)?;
        let mut record = self.head.storage.clone();
        if self.head.image {
            self.image(storage.images, &record)?;
        }
        let claim = match record.kind {
            DiskKind::Overlay => {
                if let Some(layers) = &record.layers {
                    storage.images.layers(layers).map_err(|err| {
                        lift(err).context(format!("looking for the image {}", record.image))
                    })?;
                    storage.images.pin(&storage.root, layers).map_err(lift)?;
                }
                project::adopt(&storage.dir, open_dir(part)?)?
            }
            DiskKind::Disk => {
                record.layers = None;
                None
            }
        };
        drop(share);
        record.project = claim.as_ref().map(|claim| claim.id);
        let taken = (|| {
            match record.kind {
                DiskKind::Overlay => {
                    project::limit(&storage.dir, open_dir(part)?, record.project, &storage.disk)?;
                    self.trees(part, progress)?;
                }
                DiskKind::Disk => self.disk(part, progress)?,
            }
            self.check_digest()?;
            record.write(part)?;
            locule_images::sys::fs::syncfs(open_dir(part)?)
                .doing(|| format!("writing {}", part.display()))?;
            fs::rename(part, &storage.root).doing(|| format!("naming {}", storage.root.display()))?;
            sync_dir(&storage.dir)
        })();
        match (taken, claim) {
            (Err(err), Some(claim)) => {
                claim.release();
                Err(err)
            }
            (taken, _) => taken,
        }
    }

    /// Takes the image into the store: every byte against its digest.
    fn image(&mut self, images: &Store, record: &Record) -> Result<()> {
        let known =
            record.record.as_ref().ok_or_else(|| corrupt("it holds an image that it does not name"))?;
        let bytes = self.image_document(b"image/manifest")?;
        let digest = images.write_document(&bytes).map_err(lift)?;
        if digest != known.manifest.digest {
            return Err(corrupt("the image's manifest is not the one that it names"));
        }
        let Document::Manifest(manifest) =
            Document::read(&bytes, Some(&known.manifest.media_type)).map_err(lift)?
        else {
            return Err(corrupt("the image's manifest is an index"));
        };
        manifest.check_image().map_err(lift)?;
        let bytes = self.image_document(b"image/config")?;
        if images.write_document(&bytes).map_err(lift)? != manifest.config.digest {
            return Err(corrupt("the image's configuration is not that of its manifest"));
        }
        let config = Config::read(&bytes, &manifest).map_err(lift)?;
        if Some(&config.rootfs.diff_ids) != record.layers.as_ref() {
            return Err(corrupt("the image's layers are not those of the machine"));
        }
        self.layers(images, &manifest)?;
        images.unpack_image(&manifest, &config, &Options::here()).map_err(lift)?;
        // Under its name, unless that stands for another one here.
        if let Ok(reference) = known.reference.parse::<Reference>()
            && images.find_record(&known.reference).is_err()
        {
            images.tag(&reference, &known.manifest, None).map_err(lift)?;
        }
        Ok(())
    }

    fn image_document(&mut self, name: &[u8]) -> Result<Vec<u8>> {
        let entry = self.expect(name)?;
        let bytes = whole(&entry, &mut self.tape, LARGEST)?;
        self.advance()?;
        Ok(bytes)
    }

    fn layers(&mut self, images: &Store, manifest: &Manifest) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        for layer in &manifest.layers {
            let entry = self.expect(format!("image/layers/{}", layer.digest.hex()).as_bytes())?;
            if entry.size != layer.size || entry.regions.is_some() {
                return Err(corrupt("a layer of the image is not as long as its manifest says"));
            }
            let mut incoming = images.incoming(&layer.digest, layer.size).map_err(lift)?;
            if let Some(incoming) = &mut incoming
                && incoming.have() > 0
            {
                incoming.restart().map_err(lift)?;
            }
            loop {
                let n = self.tape.read_data(&mut buffer).map_err(lift)?;
                if n == 0 {
                    break;
                }
                if let Some(incoming) = &mut incoming {
                    incoming.write(&buffer[..n]).map_err(lift)?;
                }
            }
            if let Some(incoming) = incoming {
                incoming.finish().map_err(lift)?;
            }
            self.advance()?;
        }
        Ok(())
    }

    /// The next entry, which must be the file `name`.
    fn expect(&mut self, name: &[u8]) -> Result<Entry> {
        match self.next.take() {
            Some(entry) if entry.path == name && entry.kind == EntryKind::File => Ok(entry),
            Some(entry) => {
                Err(corrupt(&format!("{} stands where {} should", shown(&entry.path), shown(name))))
            }
            None => Err(cut_off()),
        }
    }

    /// Writes the trees of an overlay below `part`.
    fn trees(&mut self, part: &Path, progress: &mut dyn Progress) -> Result<()> {
        let options = Options { limits: limits(), ..Options::here() };
        let mut seen: Vec<PathBuf> = Vec::new();
        while let Some(name) = self.name()?.filter(|name| name != TAIL.as_bytes()) {
            let (tree, _) =
                tree_of(&name).ok_or_else(|| corrupt(&format!("{} is not of a machine", shown(&name))))?;
            let prefix = [b"root/", std::os::unix::ffi::OsStrExt::as_bytes(tree.as_os_str())].concat();
            if seen.contains(&tree) {
                return Err(corrupt(&format!("{} stands in it twice", shown(&prefix))));
            }
            let place = part.join(&tree);
            fs::create_dir_all(&place).doing(|| format!("making {}", place.display()))?;
            let mut layer = Layer::new(open_dir(&place)?, &options);
            while let Some(name) = self.name()?
                && let Some(rest) = below(&name, &prefix)
            {
                let Some(mut entry) = self.next.take() else { break };
                entry.path = rest.to_vec();
                if entry.kind == EntryKind::HardLink {
                    let target = clean(&entry.link).map_err(lift)?;
                    let target = below(&target, &prefix)
                        .ok_or_else(|| corrupt(&format!("{} is a link out of its tree", shown(&name))))?;
                    entry.link = target.to_vec();
                }
                progress.bytes(entry.size);
                layer.take(&entry, &mut self.tape).map_err(lift)?;
                self.advance()?;
            }
            layer.into_found().finish(open_dir(&place)?, &[], &options).map_err(lift)?;
            seen.push(tree);
        }
        match seen.iter().any(|tree| tree == Path::new("upper")) || seen.is_empty() {
            true => Ok(()),
            false => Err(corrupt("the machine's upper directory is missing")),
        }
    }

    /// Writes the disk into `part`.
    fn disk(&mut self, part: &Path, progress: &mut dyn Progress) -> Result<()> {
        let entry = self.expect(format!("root/{}", disk::FILE).as_bytes())?;
        let path = part.join(disk::FILE);
        let doing = || format!("writing {}", path.display());
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).doing(doing)?;
        file.set_len(entry.size).doing(doing)?;
        let mut buffer = vec![0; CHUNK];
        let whole = [(0, entry.size)];
        for (offset, length) in entry.regions.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (*offset, offset + length);
            while at < end {
                let most = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                let n = self.tape.read_data(&mut buffer[..most]).map_err(lift)?;
                if n == 0 {
                    return Err(cut_off());
                }
                if buffer[..n].iter().any(|byte| *byte != 0) {
                    file.write_all_at(&buffer[..n], at).doing(doing)?;
                }
                at += n as u64;
                progress.bytes(n as u64);
            }
        }
        self.advance()
    }

    /// Holds everything that was read against the digest at the end.
    fn check_digest(&mut self) -> Result<()> {
        let found = self.tape.reader().so_far();
        let entry = self.expect(TAIL.as_bytes())?;
        let told = small(&entry, &mut self.tape)?;
        if told.trim_ascii_end() != found.hex().as_bytes() {
            return Err(corrupt("it is damaged: its digest is another"));
        }
        match self.tape.next_entry().map_err(lift)? {
            None => Ok(()),
            Some(_) => Err(corrupt("something stands behind its digest")),
        }
    }
}

/// The tree of an overlay that the entry `name` belongs to, and the rest of the name.
fn tree_of(name: &[u8]) -> Option<(PathBuf, &[u8])> {
    let rest = name.strip_prefix(b"root/")?;
    // Only what names the tree; the rest may be any bytes.
    let parts: Vec<&str> =
        rest.splitn(4, |byte| *byte == b'/').map_while(|part| std::str::from_utf8(part).ok()).collect();
    let plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%._-:@".contains(&byte))
    };
    match parts.as_slice() {
        [tree @ ("upper" | "skeleton"), ..] => {
            Some((PathBuf::from(tree), rest.get(tree.len() + 1..).unwrap_or(b"")))
        }
        ["trees", tree, "upper", ..] if plain(tree) => {
            let path = format!("trees/{tree}/upper");
            let length = path.len();
            Some((PathBuf::from(path), rest.get(length + 1..).unwrap_or(b"")))
        }
        _ => None,
    }
}

/// What stands below `prefix` in `name`.
fn below<'n>(name: &'n [u8], prefix: &[u8]) -> Option<&'n [u8]> {
    match name.strip_prefix(prefix)? {
        b"" => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}

fn small<R: Read>(entry: &Entry, tape: &mut Tape<R>) -> Result<Vec<u8>> {
    whole(entry, tape, DOCUMENT)
}

/// All bytes of a file that has at most `most`.
fn whole<R: Read>(entry: &Entry, tape: &mut Tape<R>, most: u64) -> Result<Vec<u8>> {
    if entry.kind != EntryKind::File || entry.size > most || entry.regions.is_some() {
        return Err(corrupt(&format!("{} is no file of at most {most} bytes", shown(&entry.path))));
    }
    let mut bytes = vec![0; entry.size as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match tape.read_data(&mut bytes[filled..]).map_err(lift)? {
            0 => return Err(cut_off()),
            n => filled += n,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trees_of_a_machine_are_taken() {
        let tree = |name: &str| tree_of(name.as_bytes()).map(|(tree, rest)| (tree, rest.to_vec()));
        assert_eq!(tree("root/upper"), Some(("upper".into(), b"".to_vec())));
        assert_eq!(tree("root/upper/etc/x"), Some(("upper".into(), b"etc/x".to_vec())));
        assert_eq!(
            tree("root/trees/var%2flib/upper/a"),
            Some(("trees/var%2flib/upper".into(), b"a".to_vec()))
        );
        for name in
            ["root", "root/work/x", "upper/x", "root/trees/../upper", "root/trees/a", "root/storage.json"]
        {
            assert_eq!(tree(name), None, "{name}");
        }
        assert_eq!(below(b"root/upperx", b"root/upper"), None);
    }
}
