//! Unpacked kernels and their initramfs: once for each image, kept by what is in it.
//!
//! `NAME.elf` files by the digest of the packed image, `NAME.cpio` files by their own, and small files that say which
//! digest a file of the host had when it was looked at last. All of it can be deleted at any time.

use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use locule_runtime::error::Context;
use locule_runtime::{Error, Result};

/// The largest image that is read: distributions' have 15 MB.
const LARGEST: u64 = 256 << 20;

/// Where they are: below the data directory, or a user's own cache.
pub fn directory() -> Result<PathBuf> {
    if let Some(data) = crate::args::data_directory()? {
        return Ok(data.join("kernels"));
    }
    if nix::unistd::geteuid().is_root() && !crate::args::in_user_namespace() {
        return Ok(PathBuf::from(locule_machines::home::DATA).join("kernels"));
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("locule/kernels")).ok_or_else(|| {
        Error::unsupported("there is no place for unpacked kernels")
            .hint("set HOME or XDG_CACHE_HOME, or give --data")
    })
}

/// Makes the directory, through which others may look.
pub fn make(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir).doing(|| format!("making {}", dir.display()))
}

/// The unpacked form of `file`, whose path is `path`; an ELF file is its own.
pub fn unpacked(mut file: File, path: &Path) -> Result<File> {
    let doing = || format!("unpacking the kernel {}", path.display());
    let mut head = [0; 4];
    file.read_exact(&mut head).doing(doing)?;
    file.rewind().doing(doing)?;
    if head == *b"\x7fELF" {
        return Ok(file);
    }
    let dir = directory()?;
    let meta = file.metadata().doing(doing)?;
    let mark = mark(&meta);
    let known = std::fs::read_to_string(dir.join(&mark)).ok().filter(|digest| is_digest(digest));
    if let Some(digest) = known
        && let Ok(file) = File::open(dir.join(format!("{digest}.elf")))
    {
        return Ok(file);
    }
    if meta.size() > LARGEST {
        return Err(Error::invalid(format!("{}: {} bytes are no kernel", doing(), meta.size())));
    }
    let mut packed = Vec::with_capacity(meta.size() as usize);
    file.take(LARGEST).read_to_end(&mut packed).doing(doing)?;
    let digest = digest(&packed);
    make(&dir)?;
    let target = dir.join(format!("{digest}.elf"));
    if !target.exists() {
        let image = locule_vmm::kernel::extract(&packed)
            .map_err(|err| Error::invalid(format!("{}: {err}", doing())))?;
        write(&target, &image)?;
    }
    write(&dir.join(mark), digest.as_bytes())?;
    File::open(&target).doing(|| format!("opening {}", target.display()))
}

/// What `make` makes of `sources`: from the cache, as long as these are the same files.
pub fn made(kind: &str, sources: &[&File], make: impl FnOnce() -> Result<Vec<u8>>) -> Result<File> {
    let dir = directory()?;
    let marks: Vec<String> = sources
        .iter()
        .map(|file| file.metadata().map(|meta| mark(&meta)))
        .collect::<std::io::Result<_>>()
        .doing(|| "looking at what is kept unpacked")?;
    let mark = dir.join(format!("{}.{kind}", marks.join("+")));
    let place = |digest: &str| dir.join(format!("{digest}.{kind}"));
    let known = std::fs::read_to_string(&mark).ok().filter(|digest| is_digest(digest));
    if let Some(digest) = known
        && let Ok(file) = File::open(place(&digest))
    {
        return Ok(file);
    }
    let bytes = make()?;
    let digest = digest(&bytes);
    self::make(&dir)?;
    let target = place(&digest);
    if !target.exists() {
        write(&target, &bytes)?;
    }
    write(&mark, digest.as_bytes())?;
    File::open(&target).doing(|| format!("opening {}", target.display()))
}

/// What a file's content cannot change without.
fn mark(meta: &std::fs::Metadata) -> String {
    format!("{}.{}.{}.{}.{}", meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
}

/// Puts what `from` has to say into `path`, whole or not at all.
pub fn put(path: &Path, from: &mut dyn Read) -> Result<()> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).doing(|| format!("reading what shall be {}", path.display()))?;
    write(path, &bytes)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn digest(bytes: &[u8]) -> String {
    let mut hasher = locule_images::digest::Hasher::sha256();
    hasher.update(bytes);
    hasher.finish().to_string().trim_start_matches("sha256:").to_owned()
}

/// A file that is there whole or not at all; several may write the same one at the same time.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut name = std::ffi::OsString::from(format!(".{}.", std::process::id()));
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.doing(doing)
}
