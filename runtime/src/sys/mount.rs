//! The mount API by descriptor: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2).
//!
//! A mount is made detached, given its attributes, and only then attached, so that nobody ever
//! sees it without them. Kernel floor: 5.12 (mount_setattr).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Attributes of a mount (`MOUNT_ATTR_*` of linux/mount.h), as 64 bits for mount_setattr(2).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-id bits are ignored.
    pub const NOSUID: u64 = 0x2;
    /// Device nodes cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The three access-time modes share these bits; zero is `relatime`.
    pub const ATIME_MASK: u64 = 0x70;
    /// Access times are never written.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always written.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are never written.
    pub const NODIRATIME: u64 = 0x80;
    /// The mount's ids are mapped.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed (5.14).
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr {
    /// Attributes to set, of [`attr`].
    pub set: u64,
    /// Attributes to clear; [`attr::ATIME_MASK`] must be cleared whole to change the mode.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// User namespace of an idmapped mount.
    pub userns_fd: u64,
}

fn own(ret: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = Errno::result(ret)?;
    // SAFETY: the kernel returned a fresh descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// fsopen(2): a context for a new file system of type `kind`.
pub fn fsopen(kind: &CStr) -> nix::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: kind is NUL-terminated.
    own(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// fspick(2): a context for reconfiguring the file system mounted at `target`.
pub fn fspick(target: impl AsFd) -> nix::Result<OwnedFd> {
    const FSPICK_CLOEXEC: libc::c_uint = 1;
    const FSPICK_EMPTY_PATH: libc::c_uint = 8;
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the path is an empty NUL-terminated string.
    own(unsafe { libc::syscall(libc::SYS_fspick, target.as_fd().as_raw_fd(), c"".as_ptr(), flags) })
}

fn fsconfig(ctx: BorrowedFd<'_>, cmd: u32, key: Option<&CStr>, value: Option<&CStr>) -> nix::Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are NULL or NUL-terminated and outlive the call.
    let ret = unsafe { libc::syscall(libc::SYS_fsconfig, ctx.as_raw_fd(), cmd, key, value, 0) };
    Errno::result(ret).map(drop)
}

/// fsconfig(2) with `FSCONFIG_SET_FLAG`: an option without a value.
pub fn fsconfig_flag(ctx: impl AsFd, key: &CStr) -> nix::Result<()> {
    fsconfig(ctx.as_fd(), 0, Some(key), None)
}

/// fsconfig(2) with `FSCONFIG_SET_STRING`: `key=value`.
pub fn fsconfig_string(ctx: impl AsFd, key: &CStr, value: &CStr) -> nix::Result<()> {
    fsconfig(ctx.as_fd(), 1, Some(key), Some(value))
}

/// fsconfig(2) with `FSCONFIG_CMD_CREATE`: makes the superblock.
pub fn fsconfig_create(ctx: impl AsFd) -> nix::Result<()> {
    fsconfig(ctx.as_fd(), 6, None, None)
}

/// fsconfig(2) with `FSCONFIG_CMD_RECONFIGURE`: changes the superblock.
pub fn fsconfig_reconfigure(ctx: impl AsFd) -> nix::Result<()> {
    fsconfig(ctx.as_fd(), 7, None, None)
}

/// fsmount(2): a detached mount of the context's superblock.
pub fn fsmount(ctx: impl AsFd, attrs: u64) -> nix::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    // SAFETY: plain integers.
    own(unsafe {
        libc::syscall(libc::SYS_fsmount, ctx.as_fd().as_raw_fd(), FSMOUNT_CLOEXEC, attrs as libc::c_uint)
    })
}

/// What the file system said about a failure: the last error line of the context's log.
pub fn context_message(ctx: impl AsFd) -> Option<String> {
    let mut line = [0u8; 512];
    let mut said = None;
    while let Ok(n) = nix::unistd::read(ctx.as_fd(), &mut line) {
        if n == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line[..n]);
        let text = text.trim_end();
        said = Some(text.strip_prefix("e ").unwrap_or(text).to_owned());
    }
    said
}

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached copy of the mount at `path` below `dir`.
///
/// An empty path copies the mount of `dir` itself. `recursive` takes the mounts below along.
pub fn clone_tree(dir: impl AsFd, path: &CStr, recursive: bool) -> nix::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: path is NUL-terminated.
    own(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_fd().as_raw_fd(), path.as_ptr(), flags) })
}

/// move_mount(2): attaches the detached `mount` on what the descriptor `target` refers to.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> nix::Result<()> {
    const FROM_EMPTY_PATH: libc::c_uint = 0x4;
    const TO_EMPTY_PATH: libc::c_uint = 0x40;
    // SAFETY: both paths are empty NUL-terminated strings.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            FROM_EMPTY_PATH | TO_EMPTY_PATH,
        )
    };
    Errno::result(ret).map(drop)
}

/// mount_setattr(2) on the mount of `mount` itself.
pub fn set_attr(mount: impl AsFd, recursive: bool, attr: &MountAttr) -> nix::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: attr is a live struct of the size passed; the path is empty and NUL-terminated.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr as *const MountAttr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(ret).map(drop)
}

/// A detached mount of a new `kind` superblock with `options` (`key` or `key=value`).
///
/// For the small file systems of the runtime's own; errors carry no text.
pub fn detached(kind: &CStr, options: &[(&CStr, &CStr)], attrs: u64) -> nix::Result<OwnedFd> {
    let ctx = fsopen(kind)?;
    for (key, value) in options {
        fsconfig_string(&ctx, key, value)?;
    }
    fsconfig_create(&ctx)?;
    fsmount(&ctx, attrs)
}

/// A `CString` from text, `EINVAL` on a NUL byte.
pub fn text(value: &str) -> nix::Result<CString> {
    CString::new(value).map_err(|_| Errno::EINVAL)
}

/// umount2(2) with `MNT_DETACH` of the current directory.
pub fn detach_cwd() -> nix::Result<()> {
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH)
}
