//! The mount API by descriptor: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2).
//!
//! A mount is made detached, given its attributes, and only then attached.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// Read-only.
pub const RDONLY: u64 = 0x1;
/// Device nodes cannot be opened.
pub const NODEV: u64 = 0x4;
/// The mount's ids are mapped.
const IDMAP: u64 = 0x0010_0000;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
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

fn fsconfig(ctx: BorrowedFd<'_>, cmd: u32, key: Option<&CStr>, value: Option<&CStr>) -> nix::Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are NULL or NUL-terminated and outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, ctx.as_raw_fd(), cmd, key, value, 0) }).map(drop)
}

/// fsconfig(2) with `FSCONFIG_SET_FLAG`: an option without a value.
pub fn set_flag(ctx: impl AsFd, key: &CStr) -> nix::Result<()> {
    fsconfig(ctx.as_fd(), 0, Some(key), None)
}

/// fsconfig(2) with `FSCONFIG_SET_STRING`: `key=value`.
pub fn set_string(ctx: impl AsFd, key: &CStr, value: &CStr) -> nix::Result<()> {
    fsconfig(ctx.as_fd(), 1, Some(key), Some(value))
}

/// fsconfig(2) with `FSCONFIG_CMD_CREATE`, then fsmount(2): the detached mount.
pub fn create(ctx: impl AsFd, attrs: u64) -> nix::Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    fsconfig(ctx.as_fd(), 6, None, None)?;
    // SAFETY: plain integers.
    own(unsafe {
        libc::syscall(libc::SYS_fsmount, ctx.as_fd().as_raw_fd(), FSMOUNT_CLOEXEC, attrs as libc::c_uint)
    })
}

/// What the file system said about a failure: the last error line of the context's log.
pub fn message(ctx: impl AsFd) -> Option<String> {
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

/// open_tree(2) with `OPEN_TREE_CLONE`: a detached copy of the mount at `path`.
pub fn clone_tree(dir: impl AsFd, path: &CStr) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as libc::c_uint;
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

/// mount_setattr(2): the ids of the detached `mount` are mapped as in the user namespace (5.12).
pub fn set_idmap(mount: impl AsFd, userns: impl AsFd) -> nix::Result<()> {
    let attr =
        MountAttr { set: IDMAP, clear: 0, propagation: 0, userns_fd: userns.as_fd().as_raw_fd() as u64 };
    // SAFETY: attr is a live struct of the size passed; the path is empty and NUL-terminated.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attr as *const MountAttr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(ret).map(drop)
}
