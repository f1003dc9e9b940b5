//! Whose files a thread makes: setfsuid(2) and setfsgid(2), with all capabilities kept.

use nix::errno::Errno;

/// Ids do not change capabilities (linux/securebits.h).
const NO_SETUID_FIXUP: libc::c_int = 1 << 2;

/// This thread makes files as another user until it is dropped.
#[derive(Debug)]
pub struct FileIds {
    bits: libc::c_int,
    user: u32,
    group: u32,
}

fn set_user(id: u32) -> u32 {
    // SAFETY: a plain integer; the call cannot fail in a way that it would tell.
    (unsafe { libc::setfsuid(id) }) as u32
}

fn set_group(id: u32) -> u32 {
    // SAFETY: a plain integer; the call cannot fail in a way that it would tell.
    (unsafe { libc::setfsgid(id) }) as u32
}

fn set_bits(bits: libc::c_int) -> nix::Result<()> {
    // SAFETY: plain integers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }).map(drop)
}

impl FileIds {
    /// Makes files as `id`, user and group.
    pub fn of(id: u32) -> nix::Result<FileIds> {
        // SAFETY: plain integers.
        let bits = Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) })?;
        set_bits(bits | NO_SETUID_FIXUP)?;
        let ids = FileIds { bits, group: set_group(id), user: set_user(id) };
        // Both calls answer with what was before, whether they did it or not.
        if set_group(id) == id && set_user(id) == id { Ok(ids) } else { Err(Errno::EPERM) }
    }
}

impl Drop for FileIds {
    fn drop(&mut self) {
        set_group(self.group);
        set_user(self.user);
        let _ = set_bits(self.bits);
    }
}
