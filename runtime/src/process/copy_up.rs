//! `tmpcopyup`: what the image has at a tmpfs's place, copied into the tmpfs before it is attached.
//!
//! Owns nothing; by descriptor on both sides, links copied as links and never followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use crate::error::{Context, Result};
use crate::rootfs::Root;
use crate::sys::fs::openat2;
use crate::sys::process::mknodat;

const NO_LINKS: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;

/// Copies the content of `path` in `root` into the detached mount `target`.
pub fn copy_up(root: &Root, path: &Path, target: &OwnedFd) -> Result<()> {
    let doing = || format!("copying what the image has at {}", path.display());
    let from = root.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).doing(doing)?;
    copy_dir(from, target.as_fd()).doing(doing)
}

fn copy_dir(from: OwnedFd, to: BorrowedFd<'_>) -> nix::Result<()> {
    let mut dir = Dir::from_fd(from)?;
    let names: Vec<_> = dir.iter().filter_map(Result::ok).map(|entry| entry.file_name().to_owned()).collect();
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        let stat = fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => {
                mkdirat(to, path, Mode::S_IRWXU)?;
                let below = openat2(to, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0, NO_LINKS)?;
                copy_dir(
                    openat2(&dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0, NO_LINKS)?,
                    below.as_fd(),
                )?;
                fchmod(&below, mode)?;
            }
            SFlag::S_IFREG => {
                let source = openat2(&dir, path, OFlag::O_RDONLY, 0, NO_LINKS)?;
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
                let copy = openat2(to, path, flags, 0o600, NO_LINKS)?;
                copy_bytes(&source, &copy)?;
                fchmod(&copy, mode)?;
            }
            SFlag::S_IFLNK => symlinkat(readlinkat(&dir, path)?.as_os_str(), to, path)?,
            _ => mknodat(to, name, stat.st_mode, stat.st_rdev)?,
        }
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(to, path, Some(owner.0), Some(owner.1), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        // A change of owner clears set-id bits.
        if mode.intersects(Mode::S_ISUID | Mode::S_ISGID)
            && SFlag::from_bits_truncate(stat.st_mode).contains(SFlag::S_IFREG)
        {
            fchmod(openat2(to, path, OFlag::O_RDONLY, 0, NO_LINKS)?, mode)?;
        }
    }
    Ok(())
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let mut chunk = [0u8; 32 * 1024];
    loop {
        let n = nix::unistd::read(from, &mut chunk)?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = &chunk[..n];
        while !rest.is_empty() {
            let written = nix::unistd::write(to, rest)?;
            rest = &rest[written..];
        }
    }
}

use std::os::unix::ffi::OsStrExt;
