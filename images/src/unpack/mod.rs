//! Unpacking of layers into directories that overlayfs stacks.
//!
//! Owns the rules of the image-spec's layers: order of entries, whiteouts, opaque directories, what
//! is above and what below. Never touches a path outside the directory that it is given.

pub mod limits;
mod meta;
mod pax;
pub mod tape;
pub mod tree;

mod finish;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};
use nix::unistd::{linkat, symlinkat};

pub use limits::Limits;
use tape::{Entry, Kind, Tape};
use tree::{Tree, clean, is_whiteout, look, open_dir, shown, split};

use crate::error::{Context, Error, Result};
use crate::sys::fs::{BENEATH, openat2};

/// A file of this name in an archive hides the rest of the name in the layers below.
const WHITEOUT: &[u8] = b".wh.";
/// The directory that holds it hides all that the layers below have in it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What aufs kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// What becomes of owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Files belong to whom the archive says.
    Keep,
    /// All belong to the caller, who has no right to give files away.
    Squash,
}

/// How layers are unpacked here.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What becomes of owners.
    pub owners: Owners,
    /// Whether device nodes are made, or left out.
    pub devices: bool,
    /// overlayfs reads `user.overlay.*` instead of `trusted.overlay.*` (mounted with `userxattr`).
    pub userxattr: bool,
    /// What an archive may ask for.
    pub limits: Limits,
}

impl Options {
    /// What this process may do: everything as root in the first user namespace; in another one
    /// what its ids allow; without privileges its own files only.
    pub fn here() -> Options {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let root = nix::unistd::geteuid().is_root();
        let all = root && map.split_whitespace().eq(["0", "0", "4294967295"]);
        Options {
            owners: if root && ids(&map) > 1 { Owners::Keep } else { Owners::Squash },
            devices: all,
            userxattr: !all,
            limits: Limits::default(),
        }
    }

    /// The attribute that makes a directory opaque.
    pub fn opaque_xattr(&self) -> &'static std::ffi::CStr {
        if self.userxattr { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" }
    }
}

/// How many ids the text of a `uid_map` maps.
fn ids(map: &str) -> u64 {
    map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

/// What was found while unpacking, and is needed to finish the layer.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of file data.
    pub bytes: u64,
    /// Device nodes that were left out.
    pub devices_skipped: u64,
    /// Directories that no entry described: they take after the layer below.
    implied: BTreeSet<Vec<u8>>,
    /// Hard links to files of a layer below: link and target.
    links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories that hide what is below.
    opaque: BTreeSet<Vec<u8>>,
    /// Final mode and time of each directory.
    dirs: BTreeMap<Vec<u8>, DirMeta>,
}

#[derive(Debug, Clone, Copy)]
struct DirMeta {
    mode: u32,
    mtime: (i64, u32),
}

/// Unpacks the archive in `reader` into the empty directory `dir`.
///
/// The reader is left right behind the archive's end. [`Unpacked::finish`] must follow.
pub fn unpack<R: Read>(reader: R, dir: OwnedFd, options: &Options) -> Result<(Unpacked, R)> {
    let mut layer = Layer::new(dir, options);
    let mut tape = Tape::new(reader, options.limits);
    while let Some(entry) = tape.next_entry()? {
        layer.take(&entry, &mut tape)?;
    }
    Ok((layer.found, tape.into_inner()))
}

/// A layer that is being written, entry by entry.
#[derive(Debug)]
pub struct Layer {
    tree: Tree,
    options: Options,
    found: Unpacked,
    buffer: Vec<u8>,
}

impl Layer {
    /// One that goes into the empty directory `dir`.
    pub fn new(dir: OwnedFd, options: &Options) -> Layer {
        let mut found = Unpacked::default();
        found.implied.insert(Vec::new());
        Layer { tree: Tree::new(dir), options: *options, found, buffer: vec![0; 128 << 10] }
    }

    /// Writes an entry, whose data comes next from `tape`.
    pub fn take<R: Read>(&mut self, entry: &Entry, tape: &mut Tape<R>) -> Result<()> {
        self.found.entries += 1;
        self.apply(entry, tape).map_err(|err| match err.errno() {
            Some(Errno::ENAMETOOLONG) => Error::corrupt(format!("{err}: a name in the archive is too long")),
            _ => err,
        })
    }

    /// What is needed to finish it.
    pub fn into_found(self) -> Unpacked {
        self.found
    }

    fn apply<R: Read>(&mut self, entry: &Entry, tape: &mut Tape<R>) -> Result<()> {
        let path = clean(&entry.path)?;
        if path.iter().filter(|b| **b == b'/').count() >= self.options.limits.depth {
            return Err(Error::corrupt(format!("{} in the archive lies too deep", shown(&path))));
        }
        if path.is_empty() {
            // CVE-2021-29136: a layer that replaces the root by a link.
            if entry.kind != Kind::Dir {
                return Err(Error::corrupt("the archive makes its root something else than a directory"));
            }
            return self.directory(entry, &path);
        }
        let (dir, name) = split(&path);
        if path.split(|b| *b == b'/').any(|part| part != OPAQUE && part.starts_with(AUFS)) {
            return Ok(());
        }
        if dir.split(|b| *b == b'/').any(|part| part.starts_with(WHITEOUT)) {
            return Err(Error::corrupt(format!("{} in the archive lies inside a whiteout", shown(&path))));
        }
        if name == OPAQUE {
            return self.make_opaque(dir);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Error::corrupt(format!(
                    "the whiteout {} in the archive names nothing",
                    shown(&path)
                )));
            }
            return self.whiteout(dir, hidden);
        }
        match entry.kind {
            Kind::Dir => self.directory(entry, &path),
            Kind::File => self.file(entry, &path, tape),
            Kind::HardLink => self.hard_link(entry, &path),
            Kind::SymLink => self.sym_link(entry, &path),
            // overlayfs takes it for a whiteout, so it is one here as well.
            Kind::Char if entry.device == (0, 0) => self.whiteout(dir, name),
            Kind::Char | Kind::Block | Kind::Fifo => self.node(entry, &path),
        }
    }

    /// The directory `path` by descriptor; what is made on the way takes after the layer below.
    fn dir(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>> {
        let implied = &mut self.found.implied;
        self.tree.dir(path, &mut |made| {
            implied.insert(made.to_vec());
        })
    }

    fn make_opaque(&mut self, path: &[u8]) -> Result<()> {
        let xattr = self.options.opaque_xattr();
        let dir = self.dir(path)?;
        meta::set_dir_xattr(dir, xattr, b"y").doing(|| format!("making {} opaque", shown(path)))?;
        self.found.opaque.insert(path.to_vec());
        Ok(())
    }

    /// Hides `name` of the layers below; what this layer has itself stays.
    fn whiteout(&mut self, path: &[u8], name: &[u8]) -> Result<()> {
        let dir = self.dir(path)?;
        let doing = || format!("hiding {}/{}", shown(path), String::from_utf8_lossy(name));
        match look(dir, name).doing(doing)? {
            None => mknodat(dir, name, SFlag::S_IFCHR, Mode::empty(), 0).doing(doing),
            Some(stat) if tree::kind(&stat) == SFlag::S_IFDIR => {
                let own = join(path, name);
                self.found.implied.remove(&own);
                self.make_opaque(&own)
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes room at `path` for something that is no directory.
    fn clear(&mut self, path: &[u8]) -> Result<()> {
        let (dir, name) = split(path);
        self.tree.remove(dir, name)?;
        let below = join(path, b"");
        let gone = |known: &Vec<u8>| known == path || known.starts_with(&below);
        self.found.dirs.retain(|known, _| !gone(known));
        self.found.implied.retain(|known| !gone(known));
        self.found.opaque.retain(|known| !gone(known));
        Ok(())
    }

    fn directory(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let doing = || format!("making the directory {}", shown(path));
        let options = self.options;
        let (above, name) = split(path);
        let mut replaced = false;
        if !path.is_empty() {
            let dir = self.dir(above)?;
            match look(dir, name).doing(doing)? {
                Some(stat) if tree::kind(&stat) == SFlag::S_IFDIR => {}
                found => {
                    if found.is_some() {
                        replaced = true;
                        self.clear(path)?;
                    }
                    let dir = self.dir(above)?;
                    mkdirat(dir, name, Mode::S_IRWXU).doing(doing)?;
                }
            }
        }
        let own = if path.is_empty() {
            self.tree.resolve(path).doing(doing)?
        } else {
            open_dir(self.dir(above)?, name).doing(doing)?
        };
        meta::own_dir(own.as_fd(), entry, &options).map_err(|err| err.context(doing()))?;
        self.found.implied.remove(path);
        self.found.dirs.insert(path.to_vec(), DirMeta { mode: entry.mode, mtime: entry.mtime });
        if replaced {
            // What was here hid the directory of the same name below.
            self.make_opaque(path)?;
        }
        Ok(())
    }

    fn file<R: Read>(&mut self, entry: &Entry, path: &[u8], tape: &mut Tape<R>) -> Result<()> {
        let doing = || format!("writing {}", shown(path));
        let (above, name) = split(path);
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        let create = |dir: BorrowedFd<'_>| openat2(dir, name, flags, 0o600, BENEATH);
        let fd = match create(self.dir(above)?) {
            Err(Errno::EEXIST) => {
                self.clear(path)?;
                create(self.dir(above)?)
            }
            other => other,
        }
        .doing(doing)?;
        let file = File::from(fd);
        let whole = [(0, entry.size)];
        for (offset, length) in entry.regions.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (*offset, offset + length);
            while at < end {
                let most = self.buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                let n = tape.read_data(&mut self.buffer[..most])?;
                if n == 0 {
                    return Err(Error::corrupt(format!("{}: the archive has too little data", doing())));
                }
                file.write_all_at(&self.buffer[..n], at).doing(doing)?;
                at += n as u64;
            }
            self.found.bytes += length;
        }
        if entry.regions.is_some() {
            file.set_len(entry.size).doing(doing)?;
        }
        meta::own_file(file.as_fd(), entry, &self.options).map_err(|err| err.context(doing()))
    }

    fn hard_link(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let target = clean(&entry.link)?;
        let doing = || format!("linking {} to {}", shown(path), shown(&target));
        if target.is_empty() || target.as_slice() == path {
            return Err(Error::corrupt(format!("{}: a file cannot be linked so", doing())));
        }
        let (target_above, target_name) = split(&target);
        let found = match self.tree.resolve(target_above) {
            Ok(dir) => look(dir.as_fd(), target_name).doing(doing)?.map(|stat| (dir, stat)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => None,
            Err(errno) => return Err(errno).doing(doing),
        };
        let Some((target_dir, stat)) = found else {
            // The file may stand in a layer below: known when the layer is finished.
            self.found.links.push((path.to_vec(), target));
            return Ok(());
        };
        if tree::kind(&stat) == SFlag::S_IFDIR || is_whiteout(&stat) {
            return Err(Error::corrupt(format!("{}: the target is no file", doing())));
        }
        let (above, name) = split(path);
        let link = |dir: BorrowedFd<'_>| linkat(&target_dir, target_name, dir, name, AtFlags::empty());
        match link(self.dir(above)?) {
            Err(Errno::EEXIST) => {
                self.clear(path)?;
                link(self.dir(above)?)
            }
            other => other,
        }
        .doing(doing)
    }

    fn sym_link(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let doing = || format!("making the link {}", shown(path));
        let (above, name) = split(path);
        let target = entry.link.as_slice();
        if target.is_empty() {
            return Err(Error::corrupt(format!("{}: it leads to an empty path", doing())));
        }
        let options = self.options;
        let make = |dir: BorrowedFd<'_>| symlinkat(target, dir, name);
        match make(self.dir(above)?) {
            Err(Errno::EEXIST) => {
                self.clear(path)?;
                make(self.dir(above)?)
            }
            other => other,
        }
        .doing(doing)?;
        meta::own_node(self.dir(above)?, name, entry, &options).map_err(|err| err.context(doing()))
    }

    fn node(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        let doing = || format!("making the node {}", shown(path));
        let (kind, device) = match entry.kind {
            Kind::Char => (SFlag::S_IFCHR, entry.device),
            Kind::Block => (SFlag::S_IFBLK, entry.device),
            _ => (SFlag::S_IFIFO, (0, 0)),
        };
        if kind != SFlag::S_IFIFO && !self.options.devices {
            self.found.devices_skipped += 1;
            return Ok(());
        }
        let (above, name) = split(path);
        let options = self.options;
        let device = libc::makedev(device.0, device.1);
        let make = |dir: BorrowedFd<'_>| mknodat(dir, name, kind, Mode::empty(), device);
        match make(self.dir(above)?) {
            Err(Errno::EEXIST) => {
                self.clear(path)?;
                make(self.dir(above)?)
            }
            other => other,
        }
        .doing(doing)?;
        meta::own_node(self.dir(above)?, name, entry, &options).map_err(|err| err.context(doing()))
    }
}

/// `dir/name`, without a slash where there is no directory.
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
