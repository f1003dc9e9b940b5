//! Kernel keyrings: the keyctl(2) operations that a session keyring takes.
//!
//! Serial numbers in and out; names and permissions are decided in `attrs::keyring`.

use std::ffi::CStr;

use nix::errno::Errno;

const JOIN_SESSION_KEYRING: i32 = 1;
const SETPERM: i32 = 5;
const DESCRIBE: i32 = 6;

/// Makes the keyring `name` (a new one, or one that may be searched) the session keyring.
pub fn join_session(name: &CStr) -> nix::Result<i32> {
    // SAFETY: the name is NUL-terminated and live.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) };
    Errno::result(ret).map(|serial| serial as i32)
}

/// `type;uid;gid;perm;description` of a key.
pub fn describe(serial: i32) -> nix::Result<String> {
    let mut text = vec![0u8; 512];
    // SAFETY: the kernel writes at most the given number of bytes.
    let ret = unsafe { libc::syscall(libc::SYS_keyctl, DESCRIBE, serial, text.as_mut_ptr(), text.len()) };
    let length = Errno::result(ret)? as usize;
    // The length counts the NUL and may exceed the buffer; the fields that matter come first.
    text.truncate(length.saturating_sub(1).min(512));
    String::from_utf8(text).map_err(|_| Errno::EILSEQ)
}

/// Sets the permission mask of a key.
pub fn set_permissions(serial: i32, mask: u32) -> nix::Result<()> {
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, serial, mask) }).map(drop)
}
