//! The kind `disk`: a sparse file with an ext4 in it, on a loop device.
//!
//! Owns the file `disk.img` of a machine's `root`, and that it is never mounted twice: whoever attaches it locks it,
//! and the loop device keeps that lock as long as it lives. Ids on the disk are those of the inside; the mount is
//! idmapped, so that the same disk serves any range.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use locule_images::rootfs::Map;
use locule_images::sys::fs::{BENEATH, openat2};
use locule_images::sys::{mount, userns};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statfs::fstatfs;

use super::Usage;
use crate::definition::Size;
use crate::sys::files;
use crate::sys::loops::Loop;
use crate::{Context, Error, Kind, Result};

/// The file's name.
pub const FILE: &str = "disk.img";
/// The size of a disk if nobody says: its blocks are taken from the host as they are written.
pub const DEFAULT_SIZE: u64 = 10 << 30;
/// The least that a file system with a journal and room for a system needs.
const LEAST: u64 = 16 << 20;
/// Sizes are multiples of it.
const ALIGN: u64 = 1 << 20;
/// A host's file system that has less than this is taken for the reason of a failed write.
const NEARLY_FULL: u64 = 8 << 20;
/// ext4's block, which mkfs.ext4 chooses by itself for all but small disks.
const BLOCK: u64 = 4096;

/// A disk's file.
#[derive(Debug, Clone)]
pub struct Disk {
    path: PathBuf,
}

/// A disk whose file system is mounted somewhere, and a mount of it that nobody else sees.
#[derive(Debug)]
pub struct Live {
    device: Loop,
    mount: OwnedFd,
    /// Its root directory.
    pub root: OwnedFd,
}

impl Disk {
    /// The one in the directory `root`.
    pub fn new(root: &Path) -> Disk {
        Disk { path: root.join(FILE) }
    }

    /// Makes the file with an empty file system and gives its root directory to `fill`.
    pub fn make(&self, size: Option<Size>, fill: impl FnOnce(&OwnedFd) -> Result<()>) -> Result<()> {
        let size = size.map_or(DEFAULT_SIZE, |size| size.0);
        if size < LEAST {
            return Err(Error::invalid(format!("a disk of {}", Size(size)))
                .hint(format!("it must have at least {}", Size(LEAST))));
        }
        let size = size.next_multiple_of(ALIGN);
        // Under another name first: a disk that is there is whole.
        let part = self.path.with_extension("part");
        let made = || {
            let doing = || format!("making {}", part.display());
            let file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .read(true)
                .mode(0o600)
                .open(&part)
                .doing(doing)?;
            file.set_len(size).doing(doing)?;
            drop(file);
            make_file_system(&part)?;
            let disk = Disk { path: part.clone() };
            let live = disk.attach(false)?;
            fill(&live.root)?;
            // Unmounting writes it all, but tells nobody whether that went well.
            locule_images::sys::fs::syncfs(&live.root).doing(|| format!("writing {}", part.display()))?;
            drop(live);
            File::open(&part).and_then(|file| file.sync_all()).doing(doing)?;
            fs::rename(&part, &self.path).doing(|| format!("naming {}", self.path.display()))?;
            super::record::sync_dir(self.path.parent().unwrap_or(&self.path))
        };
        let made = made().map_err(|err| match err.errno() {
            // The device knows no other word for a file that cannot grow any more.
            Some(Errno::EIO) if is_full(self.path.parent().unwrap_or(&self.path)) => {
                Error::sys(Errno::ENOSPC, format!("making {}", self.path.display()))
            }
            _ => err,
        });
        if made.is_err() {
            let _ = fs::remove_file(&part);
        }
        made
    }

    fn open(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path)
            .doing(|| format!("opening {}", self.path.display()))
    }

    /// A mount of the file system: of the loop device that it is on already, or a new one.
    pub fn attach(&self, read_only: bool) -> Result<Live> {
        match self.live()? {
            Some(live) => Ok(live),
            None => self.attach_new(read_only),
        }
    }

    fn attach_new(&self, read_only: bool) -> Result<Live> {
        let doing = || format!("attaching {}", self.path.display());
        let file = self.open()?;
        // The lock belongs to this open file, which the loop device takes over. What still holds it here is a
        // device that is about to go.
        let lock = whole_file();
        fcntl(&file, FcntlArg::F_OFD_SETLKW(&lock)).doing(doing)?;
        let device = Loop::attach(&file, read_only).doing(doing).map_err(|err| match err.errno() {
            Some(Errno::ENOENT | Errno::ENXIO) => err.hint("this kernel or /dev has no loop devices"),
            _ => err,
        })?;
        Live::new(device, read_only).map_err(|err| err.context(format!("mounting {}", self.path.display())))
    }

    /// The mounted file system, if it is mounted anywhere.
    pub fn live(&self) -> Result<Option<Live>> {
        let file = self.open()?;
        if !is_locked(&file).doing(|| format!("asking whether {} is in use", self.path.display()))? {
            return Ok(None);
        }
        let Some(device) = self.device(&file)? else { return Ok(None) };
        let live = Live::new(device, false)
            .map_err(|err| err.context(format!("opening the file system of {}", self.path.display())))?;
        Ok(Some(live))
    }

    /// The loop device that the file is on.
    fn device(&self, file: &File) -> Result<Option<Loop>> {
        let doing = || "looking through the loop devices in /sys/block";
        let meta = file.metadata().doing(doing)?;
        for entry in fs::read_dir("/sys/block").doing(doing)? {
            let entry = entry.doing(doing)?;
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix("loop")).and_then(|n| n.parse().ok());
            let Some(number) = number else { continue };
            if !entry.path().join("loop/backing_file").exists() {
                continue;
            }
            if let Some(device) = Loop::of(number, meta.dev(), meta.ino()) {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// Mounts it on `target`, idmapped for `map`.
    pub fn mount(&self, target: &Path, map: Option<Map>) -> Result<()> {
        let doing = || format!("mounting {} on {}", self.path.display(), target.display());
        let place = File::open(target).map(OwnedFd::from).doing(doing)?;
        let live = self.attach(false)?;
        if let Some(map) = map {
            let userns = userns::mapped(map.first, map.count)
                .doing(|| format!("{}: making a user namespace for it", doing()))?;
            mount::set_idmap(&live.mount, &userns).doing(|| format!("{}: mapping its ids", doing()))?;
        }
        mount::attach(&live.mount, &place).doing(doing)
    }

    /// The size of the device.
    pub fn size(&self) -> Result<u64> {
        let meta = fs::metadata(&self.path).doing(|| format!("looking at {}", self.path.display()))?;
        Ok(meta.len())
    }

    /// Makes it larger, mounted or not.
    pub fn grow(&self, size: Size) -> Result<()> {
        let size = size.0.next_multiple_of(ALIGN);
        let doing = || format!("growing {} to {}", self.path.display(), Size(size));
        let now = self.size()?;
        if size < now {
            return Err(Error::unsupported(format!(
                "shrinking {} from {} to {}: ext4 cannot become smaller while it is mounted",
                self.path.display(),
                Size(now),
                Size(size)
            ))
            .hint("locule compact gives unused room back to the host, whatever the size is"));
        }
        let file = self.open()?;
        let live = self.attach(false)?;
        file.set_len(size).and_then(|()| file.sync_all()).doing(doing)?;
        let grown = live.device.reread_size().and_then(|()| grow_file_system(&live.root, size));
        match grown {
            Ok(()) => Ok(()),
            // It needs CAP_SYS_RESOURCE, which programs in containers lack; nobody needs it for a closed one.
            Err(Errno::EPERM) => {
                drop(live);
                match self.live()? {
                    None => grow_closed(&self.path),
                    Some(live) => {
                        // The file system is what it was, and so is its device again.
                        file.set_len(now).doing(doing)?;
                        live.device.reread_size().doing(doing)?;
                        Err(Error::sys(Errno::EPERM, doing())
                            .hint("stop the machine first: here only a closed disk can grow"))
                    }
                }
            }
            Err(errno) => Err(errno).doing(doing),
        }
    }

    /// Gives blocks that the file system does not use back to the host; how many bytes the file takes less.
    pub fn compact(&self) -> Result<u64> {
        let doing = || format!("giving back the unused room of {}", self.path.display());
        let taken = || fs::metadata(&self.path).map(|meta| meta.blocks() * 512).doing(doing);
        let before = taken()?;
        let live = self.attach(false)?;
        files::trim(&live.root).doing(doing).map_err(|err| match err.errno() {
            Some(Errno::EOPNOTSUPP) => err.hint("the host's file system cannot punch holes into files"),
            _ => err,
        })?;
        locule_images::sys::fs::syncfs(&live.root).doing(doing)?;
        Ok(before.saturating_sub(taken()?))
    }

    /// What is used and what there is.
    pub fn usage(&self) -> Result<Usage> {
        let doing = || format!("measuring {}", self.path.display());
        if let Some(live) = self.live()? {
            let fs = fstatfs(&live.root).doing(doing)?;
            let block = fs.block_size() as u64;
            return Ok(Usage {
                bytes: Some((fs.blocks() - fs.blocks_free()) * block),
                most_bytes: Some(fs.blocks() * block),
                inodes: Some(fs.files() - fs.files_free()),
                most_inodes: Some(fs.files()),
            });
        }
        let block = SuperBlock::read(&self.open()?).doing(doing)?;
        Ok(Usage {
            bytes: Some((block.blocks - block.free_blocks) * block.size),
            most_bytes: Some(block.blocks * block.size),
            inodes: Some(block.inodes - block.free_inodes),
            most_inodes: Some(block.inodes),
        })
    }
}

/// What ext4 says of itself (ext4's `struct ext4_super_block`).
struct SuperBlock {
    inodes: u64,
    free_inodes: u64,
    blocks: u64,
    free_blocks: u64,
    size: u64,
}

impl SuperBlock {
    fn read(file: &File) -> std::io::Result<SuperBlock> {
        let mut bytes = [0u8; 1024];
        file.read_exact_at(&mut bytes, 1024)?;
        let word = |at: usize| {
            u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
        };
        let wide = word(0x60) & 0x80 != 0;
        let both = |low: usize, high: usize| word(low) | if wide { word(high) << 32 } else { 0 };
        if word(0x38) & 0xffff != 0xef53 {
            return Err(std::io::Error::other("there is no ext4 in it"));
        }
        let block = SuperBlock {
            inodes: word(0),
            free_inodes: word(16),
            blocks: both(4, 0x150),
            free_blocks: both(12, 0x158),
            size: 1024 << word(24).min(6),
        };
        match block.free_blocks <= block.blocks && block.free_inodes <= block.inodes {
            true => Ok(block),
            false => Err(std::io::Error::other("its ext4 is damaged: more is free than there is")),
        }
    }
}

/// Whether the file system of the directory has next to nothing left.
fn is_full(dir: &Path) -> bool {
    File::open(dir)
        .ok()
        .and_then(|dir| fstatfs(&dir).ok())
        .is_some_and(|fs| fs.blocks_available().saturating_mul(fs.block_size() as u64) < NEARLY_FULL)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn is_locked(file: &File) -> nix::Result<bool> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn grow_file_system(root: &OwnedFd, size: u64) -> nix::Result<()> {
    let block = fstatfs(root)?.block_size() as u64;
    files::grow_ext4(root, size / block.max(1))
}

fn make_file_system(path: &Path) -> Result<()> {
    let block = BLOCK.to_string();
    // What has not been written needs no place: tables and journal come when they are used.
    let extended = "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    ext4_tool("mkfs.ext4", &["-q", "-F", "-m", "0", "-b", &block, "-E", extended], path, &[0])
}

/// Grows a file system that is not mounted to the size of its file.
fn grow_closed(path: &Path) -> Result<()> {
    // resize2fs takes none that was not checked since it was mounted; 1 is "mended".
    ext4_tool("e2fsck", &["-f", "-p"], path, &[0, 1])?;
    ext4_tool("resize2fs", &[], path, &[0])
}

/// Runs one of e2fsprogs' tools on the file `path`; `good` are the exit codes of success.
fn ext4_tool(program: &'static str, words: &[&str], path: &Path, good: &[i32]) -> Result<()> {
    let doing = || format!("running {program} on {}", path.display());
    let output = Command::new(program)
        .args(words)
        .arg(path)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .doing(doing)
        .map_err(|err| match err.errno() {
            Some(Errno::ENOENT) => err.hint("install e2fsprogs, or choose the storage kind overlay"),
            _ => err,
        })?;
    if output.status.code().is_some_and(|code| good.contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    Err(Error::new(Kind::System, format!("{}: it ended with {}: {said}", doing(), output.status)))
}

/// A new, detached mount of the file system on the device; of a mounted one, another mount of the same.
fn mount_device(device: &Loop, read_only: bool) -> Result<OwnedFd> {
    let doing = || format!("mounting {}", device.path());
    let ctx = mount::fsopen(c"ext4").doing(doing)?;
    let source = std::ffi::CString::new(device.path()).map_err(|_| Errno::EINVAL).doing(doing)?;
    let made = mount::set_string(&ctx, c"source", &source)
        .and_then(|()| if read_only { mount::set_flag(&ctx, c"ro") } else { Ok(()) })
        .and_then(|()| mount::create(&ctx, mount::NODEV | if read_only { mount::RDONLY } else { 0 }));
    made.map_err(|errno| {
        let err = Error::sys(errno, doing());
        match mount::message(&ctx) {
            Some(said) => err.hint(said),
            None => err,
        }
    })
}

impl Live {
    fn new(device: Loop, read_only: bool) -> Result<Live> {
        let mount = mount_device(&device, read_only)?;
        // The descriptor of a mount is none that can be read or asked.
        let root = openat2(mount.as_fd(), b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0, BENEATH)
            .doing(|| format!("opening {}", device.path()))?;
        Ok(Live { device, mount, root })
    }
}
