//! The sealed copy: a process that enters a container must not be backed by a file of the host.
//!
//! A container can reach the binary of a process inside it through /proc/PID/exe and, once that
//! process is gone, overwrite it (CVE-2019-5736). `create`, `run` and `exec` therefore execute
//! themselves once more from a copy that cannot be written: an overlay of the binary's directory
//! where the caller may mount, a sealed memfd elsewhere. Other verbs never pay for it.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::fs::openat2;
use crate::sys::mount::{attr, fsconfig_create, fsconfig_string, fsmount, fsopen};
use crate::sys::process::{adopt, close_for_good, execveat, fs_magic, inheritable};

/// Tells the copy that it is one, and which descriptor keeps its mount; what it says is verified.
const MARK: &str = "_LOCULE_SEALED";
/// Out of the way of descriptors that a caller hands over.
const FIRST_FREE: i32 = 400;
const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;

/// What a sealed copy holds on to.
///
/// Letting go of a detached mount waits for an RCU grace period (about 0.1 ms, at times 2 ms), so
/// the creator does it while init works, and not between two executions.
#[derive(Debug, Default)]
pub struct Seal(Option<OwnedFd>);

impl Seal {
    /// Drops a clone's copy, which is not the last one.
    pub(crate) fn close_copy(&self) {
        if let Some(fd) = &self.0 {
            close_for_good(fd.as_fd());
        }
    }
}

/// Returns at once in a sealed copy; elsewhere makes one and continues in it, with the same arguments.
pub fn ensure() -> Result<Seal> {
    let doing = || "protecting the runtime's own binary";
    let own = openat2(AT_FDCWD, "/proc/self/exe", OFlag::O_RDONLY, 0, 0).doing(doing)?;
    if let Some(mark) = std::env::var_os(MARK) {
        if !is_sealed(&own)? {
            return Err(Error::new(
                Kind::System,
                format!("{}: {MARK} is set, but this is no sealed copy", doing()),
            )
            .hint("unset it"));
        }
        let number = mark.to_str().and_then(|mark| mark.parse().ok()).filter(|number| *number >= FIRST_FREE);
        return Ok(Seal(number.and_then(adopt)));
    }
    let (copy, mount) = match overlay_copy() {
        Ok((copy, mount)) => (copy, Some(mount)),
        // Unprivileged, or a file system that cannot be a lower layer.
        Err(_) => (memfd_copy(own).doing(doing)?, None),
    };
    let argv: Vec<CString> =
        std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
    let number = mount.as_ref().map_or(0, |fd| fd.as_raw_fd());
    let mark = CString::new(format!("{MARK}={number}")).unwrap_or_default();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).ok())
        .chain([mark])
        .collect();
    Err(Error::sys(execveat(&copy, &argv, &env), doing()))
}

fn is_sealed(exe: &OwnedFd) -> Result<bool> {
    let doing = || "looking at the runtime's own binary";
    if fs_magic(exe).doing(doing)? == OVERLAYFS_SUPER_MAGIC {
        let flags = nix::sys::statvfs::fstatvfs(exe).doing(doing)?.flags();
        return Ok(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    }
    match fcntl(exe, FcntlArg::F_GET_SEALS) {
        Ok(seals) => Ok(SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_WRITE)),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno).doing(doing),
    }
}

/// The binary in an overlay without an upper layer, and the overlay's mount, to be kept across exec.
///
/// What is opened there cannot be written, not even by root in the container, and its inode is not
/// the host's.
fn overlay_copy() -> nix::Result<(OwnedFd, OwnedFd)> {
    let path =
        std::env::current_exe().map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::ENOENT)))?;
    let (dir, name) = path.parent().zip(path.file_name()).ok_or(Errno::EINVAL)?;
    let dir = openat2(AT_FDCWD, dir, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)?;
    // An overlay wants two layers. Any other directory serves as the lower one: nobody but this
    // process ever sees the mount, and from it only the binary.
    let other = openat2(AT_FDCWD, "/dev", OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)?;
    let layers = format!("/proc/self/fd/{}:/proc/self/fd/{}", dir.as_raw_fd(), other.as_raw_fd());
    let ctx = fsopen(c"overlay")?;
    fsconfig_string(&ctx, c"lowerdir", &CString::new(layers).map_err(|_| Errno::EINVAL)?)?;
    fsconfig_create(&ctx)?;
    let mount = fsmount(&ctx, attr::RDONLY | attr::NODEV | attr::NOSUID)?;
    let copy = openat2(
        &mount,
        std::path::Path::new(name),
        OFlag::O_PATH | OFlag::O_NOFOLLOW,
        0,
        libc::RESOLVE_BENEATH,
    )?;
    Ok((copy, inheritable(&mount, FIRST_FREE)?))
}

fn memfd_copy(own: OwnedFd) -> nix::Result<OwnedFd> {
    let io = |err: std::io::Error| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO));
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Kernels with vm.memfd_noexec want executable ones to say so (6.3).
    let copy = match memfd_create(c"locule", flags | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        Err(Errno::EINVAL) => memfd_create(c"locule", flags)?,
        other => other?,
    };
    let mut source = File::from(own);
    let length = source.metadata().map_err(io)?.len() as usize;
    let mut copied = 0;
    while copied < length {
        match nix::sys::sendfile::sendfile(copy.as_fd(), &source, None, length - copied)? {
            0 => return Err(Errno::EIO),
            n => copied += n,
        }
    }
    debug_assert_eq!(source.read(&mut [0]).unwrap_or(0), 0);
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    // A descriptor that can write would keep the file busy: text file busy on execution.
    openat2(AT_FDCWD, format!("/proc/self/fd/{}", copy.as_raw_fd()), OFlag::O_RDONLY, 0, 0)
}
