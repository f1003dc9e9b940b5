//! Packing: a directory tree as the archive of a layer.
//!
//! Owns the writing of archives: names in order, PAX records only where ustar does not suffice, so
//! that the same tree gives the same bytes. Never follows a link.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use nix::unistd::{Whence, lseek};
use tar::{EntryType, Header};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fs::{BENEATH, cstring, lgetxattr, llistxattr, openat2};
use crate::unpack::tree::{is_whiteout, kind, shown};

/// The deepest tree: a descriptor is held for each level.
const DEEPEST: usize = 400;
/// The largest ids that ustar's octal fields hold.
const LARGEST_ID: u32 = 0o7_777_777;

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A whole root file system.
    Whole,
    /// An upper directory of overlayfs: its whiteouts become those of an archive.
    Upper,
}

/// Owners in the tree and in the archive: ids from `inside` on are those from `outside` on in the tree.
#[derive(Debug, Clone, Copy)]
pub struct Shift {
    /// The first id in the tree.
    pub outside: u32,
    /// The first id in the archive.
    pub inside: u32,
    /// How many.
    pub count: u32,
}

struct Packer<W> {
    out: W,
    form: Form,
    shift: Option<Shift>,
    links: HashMap<(u64, u64), Vec<u8>>,
    /// What stands before every name, with its slash.
    prefix: Vec<u8>,
    /// Whether holes are told, which not every reader of layers understands.
    holes: bool,
}

/// An archive of several trees and single files, in the order in which they are given.
pub struct Archive<W> {
    packer: Packer<W>,
}

/// The most regions of data that a sparse file is told with; holes between are written down above.
const MOST_REGIONS: usize = 1 << 15;

/// Writes the tree at `root` as an archive.
pub fn pack<W: Write>(root: BorrowedFd<'_>, out: W, form: Form, shift: Option<Shift>) -> Result<W> {
    let mut packer = Packer { out, form, shift, links: HashMap::new(), prefix: Vec::new(), holes: false };
    packer.tree(root)?;
    packer.write(&[0; 1024])?;
    Ok(packer.out)
}

impl<W: Write> Archive<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Archive<W> {
        let packer = Packer {
            out,
            form: Form::Whole,
            shift: None,
            links: HashMap::new(),
            prefix: Vec::new(),
            holes: true,
        };
        Archive { packer }
    }

    /// The tree at `root`, below the directory `name` of the archive.
    pub fn tree(&mut self, root: BorrowedFd<'_>, name: &str, form: Form) -> Result<()> {
        self.packer.form = form;
        self.packer.prefix = format!("{name}/").into_bytes();
        self.packer.links.clear();
        let packed = self.packer.tree(root);
        self.packer.prefix.clear();
        packed
    }

    /// A small file.
    pub fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin(name, bytes.len() as u64)?;
        self.packer.write(bytes)?;
        self.packer.pad(bytes.len() as u64)
    }

    /// The header of a small file whose bytes come next, by [`Archive::data`].
    pub fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let records = self.packer.sized(&mut header, size);
        self.packer.header(header, name.as_bytes(), b"", records)
    }

    /// All data of the file that was begun.
    pub fn data(&mut self, mut bytes: impl Read, size: u64) -> Result<()> {
        let copied = io::copy(&mut bytes, &mut self.packer.out).doing(|| "writing the archive")?;
        if copied != size {
            return Err(Error::new(Kind::Busy, "writing the archive: a file changed its size meanwhile"));
        }
        self.packer.pad(size)
    }

    /// A file with its holes.
    pub fn sparse(&mut self, name: &str, file: &File) -> Result<()> {
        let size = file.metadata().doing(|| format!("looking at {name}"))?.len();
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.packer.holed(header, Vec::new(), name.as_bytes(), file, size)
    }

    /// Where it goes.
    pub fn out(&self) -> &W {
        &self.packer.out
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<W> {
        self.packer.write(&[0; 1024])?;
        Ok(self.packer.out)
    }
}

impl<W: Write> Packer<W> {
    fn tree(&mut self, root: BorrowedFd<'_>) -> Result<()> {
        let stat = fstat(root).doing(|| "looking at the tree")?;
        self.entry(root, b".", b"", &stat)?;
        self.dir(root, b"", 0)
    }

    /// Sets the size, as a record where the field cannot hold it.
    fn sized(&self, header: &mut Header, size: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        header.set_size(size);
        if size > 0o77_777_777_777 {
            vec![(b"size".to_vec(), size.to_string().into_bytes())]
        } else {
            Vec::new()
        }
    }

    /// A file by the regions that have data (GNU's PAX format 1.0).
    fn holed(
        &mut self,
        mut header: Header,
        mut records: Vec<(Vec<u8>, Vec<u8>)>,
        path: &[u8],
        file: &File,
        size: u64,
    ) -> Result<()> {
        let doing = || format!("packing {}", shown(path));
        let mut regions = regions(file, size).doing(doing)?;
        // An end is told even where there is only a hole.
        if regions.last().is_none_or(|(_, end)| *end < size) {
            regions.push((size, size));
        }
        let mut map = format!("{}\n", regions.len());
        for (begin, end) in &regions {
            map.push_str(&format!("{begin}\n{}\n", end - begin));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(512), 0);
        let data: u64 = regions.iter().map(|(begin, end)| end - begin).sum();
        let stored = map.len() as u64 + data;
        records.extend(self.sized(&mut header, stored));
        let name = [self.prefix.as_slice(), path].concat();
        for (key, value) in [("major", b"1".to_vec()), ("minor", b"0".to_vec()), ("name", name)] {
            records.push((format!("GNU.sparse.{key}").into_bytes(), value));
        }
        records.push((b"GNU.sparse.realsize".to_vec(), size.to_string().into_bytes()));
        let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let stand_in = [b"GNUSparseFile.0/", &last[..last.len().min(80)]].concat();
        self.header(header, &stand_in, b"", records)?;
        self.write(&map)?;
        for (begin, end) in regions {
            let mut reader = At { file, at: begin }.take(end - begin);
            let copied = io::copy(&mut reader, &mut self.out).doing(doing)?;
            if copied != end - begin {
                return Err(Error::new(Kind::Busy, format!("{}: it shrank meanwhile", doing()))
                    .hint("stop what writes to it"));
            }
        }
        self.pad(stored)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).doing(|| "writing the archive")
    }

    fn dir(&mut self, dir: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<()> {
        let doing = || format!("reading the directory {}", shown(path));
        if depth > DEEPEST {
            return Err(Error::new(Kind::Unsupported, format!("{}: it lies too deep", doing())));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let mut names: Vec<Vec<u8>> = Dir::from_fd(openat2(dir, b".", flags, 0, BENEATH).doing(doing)?)
            .doing(doing)?
            .iter()
            .map(|entry| entry.map(|entry| entry.file_name().to_bytes().to_vec()))
            .filter(|name| !matches!(name.as_deref(), Ok(b"." | b"..")))
            .collect::<nix::Result<_>>()
            .doing(doing)?;
        names.sort();
        if self.form == Form::Upper && is_opaque(dir) {
            self.whiteout(&join(path, b".wh..wh..opq"))?;
        }
        for name in names {
            let own = join(path, &name);
            if name.starts_with(b".wh.") {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("{} has a name that means a whiteout in images", shown(&own)),
                ));
            }
            let stat = fstatat(dir, name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .doing(|| format!("looking at {}", shown(&own)))?;
            if is_whiteout(&stat) {
                if self.form == Form::Upper {
                    self.whiteout(&join(path, &[b".wh.", name.as_slice()].concat()))?;
                }
                continue;
            }
            self.entry(dir, &name, &own, &stat)?;
            if kind(&stat) == SFlag::S_IFDIR {
                let inner =
                    openat2(dir, &name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0, BENEATH)
                        .doing(|| format!("opening {}", shown(&own)))?;
                self.dir(inner.as_fd(), &own, depth + 1)?;
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.header(header, path, b"", Vec::new())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &FileStat) -> Result<()> {
        let doing = || format!("packing {}", shown(path));
        let mut header = Header::new_ustar();
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut link = Vec::new();
        let mut size = 0;
        let entry_type = match kind(stat) {
            SFlag::S_IFDIR => EntryType::Directory,
            SFlag::S_IFLNK => {
                link = std::os::unix::ffi::OsStringExt::into_vec(readlinkat(dir, name).doing(doing)?);
                EntryType::Symlink
            }
            SFlag::S_IFCHR => EntryType::Char,
            SFlag::S_IFBLK => EntryType::Block,
            SFlag::S_IFIFO => EntryType::Fifo,
            // A socket is nothing without the process that made it.
            SFlag::S_IFSOCK => return Ok(()),
            _ => {
                size = stat.st_size as u64;
                EntryType::Regular
            }
        };
        let mut entry_type = entry_type;
        if stat.st_nlink > 1 && entry_type != EntryType::Directory {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => {
                    link = first.clone();
                    size = 0;
                    entry_type = EntryType::Link;
                }
                None => drop(self.links.insert((stat.st_dev, stat.st_ino), path.to_vec())),
            }
        }
        header.set_entry_type(entry_type);
        header.set_mode(stat.st_mode & 0o7777);
        for (key, id) in [("uid", stat.st_uid), ("gid", stat.st_gid)] {
            let id = self.inside(id).ok_or_else(|| {
                Error::invalid(format!("{}: its {key} {id} is not one of the container's", doing()))
            })?;
            if id > LARGEST_ID {
                records.push((key.into(), id.to_string().into_bytes()));
            }
            let small = u64::from(if id > LARGEST_ID { 0 } else { id });
            if key == "uid" { header.set_uid(small) } else { header.set_gid(small) }
        }
        if stat.st_mtime_nsec != 0 || stat.st_mtime < 0 {
            let (seconds, nanos) = (stat.st_mtime, stat.st_mtime_nsec);
            let text = match (seconds < 0, nanos) {
                (true, nanos) if nanos > 0 => {
                    let whole = seconds + 1;
                    format!("{}{whole}.{:09}", if whole == 0 { "-" } else { "" }, 1_000_000_000 - nanos)
                }
                _ => format!("{seconds}.{nanos:09}"),
            };
            records.push((b"mtime".to_vec(), text.into_bytes()));
        }
        header.set_mtime(stat.st_mtime.max(0) as u64);
        if matches!(entry_type, EntryType::Char | EntryType::Block) {
            let device = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
            header.set_device_major(device.0).doing(doing)?;
            header.set_device_minor(device.1).doing(doing)?;
        }
        if size > 0o77_777_777_777 {
            records.push((b"size".to_vec(), size.to_string().into_bytes()));
        }
        header.set_size(size);
        if entry_type != EntryType::Link {
            self.attributes(dir, name, path, &mut records)?;
        }
        let mut shown_path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        if entry_type == EntryType::Directory {
            shown_path.push(b'/');
        }
        let file = match entry_type {
            EntryType::Regular => Some(
                openat2(dir, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK, 0, BENEATH)
                    .doing(doing)?,
            ),
            _ => None,
        };
        if let Some(file) = &file
            && self.holes
            && (stat.st_blocks as u64).saturating_mul(512) < size
        {
            let file = File::from(file.try_clone().doing(doing)?);
            records.retain(|(key, _)| key != b"size");
            return self.holed(header, records, &shown_path, &file, size);
        }
        self.header(header, &shown_path, &link, records)?;
        if let Some(file) = file {
            let mut file = File::from(file).take(size);
            let copied = io::copy(&mut file, &mut self.out).doing(doing)?;
            if copied != size {
                return Err(Error::new(Kind::Busy, format!("{}: it shrank meanwhile", doing()))
                    .hint("stop what writes to it"));
            }
            self.pad(size)?;
        }
        Ok(())
    }

    fn inside(&self, id: u32) -> Option<u32> {
        match self.shift {
            None => Some(id),
            Some(shift) => {
                let offset = id.checked_sub(shift.outside)?;
                (offset < shift.count).then(|| shift.inside.checked_add(offset)).flatten()
            }
        }
    }

    fn attributes(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        records: &mut Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        let doing = || format!("reading the attributes of {}", shown(path));
        let mut place = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        place.extend_from_slice(name);
        let place = cstring(&place).doing(doing)?;
        let mut names = match llistxattr(&place) {
            Err(nix::errno::Errno::ENOTSUP) => return Ok(()),
            other => other.doing(doing)?,
        };
        names.sort();
        for name in names {
            let bytes = name.to_bytes();
            if bytes == b"trusted.overlay.redirect" || bytes == b"trusted.overlay.metacopy" {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("{} is only a pointer to a layer below", shown(path)),
                )
                .hint("it was mounted with redirect_dir or metacopy"));
            }
            let kept = (bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay."))
                || bytes == b"security.capability"
                || bytes.starts_with(b"system.posix_acl_");
            if kept {
                let mut value = lgetxattr(&place, &name).doing(doing)?;
                if bytes == b"security.capability" {
                    value = self.capability(value);
                }
                records.push(([b"SCHILY.xattr.", bytes].concat(), value));
            }
        }
        Ok(())
    }

    /// File capabilities as the image has them: those of a user namespace's root become plain ones
    /// (capabilities(7), versions 3 and 2 of the attribute).
    fn capability(&self, mut value: Vec<u8>) -> Vec<u8> {
        const VERSION_2: u8 = 2;
        const VERSION_3: u8 = 3;
        if let [_, _, _, VERSION_3, .., a, b, c, d] = value[..]
            && value.len() == 24
            && self.inside(u32::from_le_bytes([a, b, c, d])) == Some(0)
        {
            value[3] = VERSION_2;
            value.truncate(20);
        }
        value
    }

    fn header(
        &mut self,
        mut header: Header,
        path: &[u8],
        link: &[u8],
        mut records: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        let path = &[self.prefix.as_slice(), path].concat();
        let link = &match header.entry_type() {
            EntryType::Link => [self.prefix.as_slice(), link].concat(),
            _ => link.to_vec(),
        };
        if path.len() > 100 {
            records.push((b"path".to_vec(), path.to_vec()));
        }
        if link.len() > 100 {
            records.push((b"linkpath".to_vec(), link.to_vec()));
        }
        if !records.is_empty() {
            records.sort();
            let text: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_mode(0o644);
            extended.set_uid(0);
            extended.set_gid(0);
            extended.set_mtime(0);
            extended.set_size(text.len() as u64);
            place(&mut extended.as_old_mut().name, b"PaxHeaders/entry");
            extended.set_cksum();
            self.write(extended.as_bytes())?;
            self.write(&text)?;
            self.pad(text.len() as u64)?;
        }
        place(&mut header.as_old_mut().name, path);
        place(&mut header.as_old_mut().linkname, link);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = (512 - size % 512) % 512;
        self.write(&[0; 512][..rest as usize])
    }
}

/// A file from some place on, whatever its offset.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Where a file has data, beginning and end; small holes count as data where there would be too many regions.
fn regions(file: &File, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut regions: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let begin = match lseek(file, at as i64, Whence::SeekData) {
            Ok(begin) => begin as u64,
            // Only a hole is left.
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        if begin >= size {
            break;
        }
        at = (lseek(file, begin as i64, Whence::SeekHole)? as u64).min(size);
        regions.push((begin, at));
    }
    let mut smallest = 4096;
    while regions.len() > MOST_REGIONS {
        smallest *= 2;
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (begin, end) in regions {
            match joined.last_mut() {
                Some(last) if begin - last.1 < smallest => last.1 = end,
                _ => joined.push((begin, end)),
            }
        }
        regions = joined;
    }
    Ok(regions)
}

fn place(field: &mut [u8; 100], text: &[u8]) {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
}

/// `length key=value\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let Ok(place) = cstring(format!("/proc/self/fd/{}/.", dir.as_raw_fd()).as_bytes()) else { return false };
    [c"trusted.overlay.opaque", c"user.overlay.opaque"]
        .iter()
        .any(|name| lgetxattr(&place, name).is_ok_and(|value| value == b"y"))
}
