//! Capability sets of the calling thread: capget(2), capset(2) and their prctl(2) relatives.
//!
//! Sets are bit masks by capability number, so that a number newer than any name table
//! still can be dropped. Knows no names and decides nothing.

use nix::errno::Errno;

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three classic sets of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What the kernel checks.
    pub effective: u64,
    /// What may become effective.
    pub permitted: u64,
    /// What survives execve(2) together with a file's or ambient capabilities.
    pub inheritable: u64,
}

/// capget(2) of the calling thread.
pub fn get() -> nix::Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Words::default(); 2];
    // SAFETY: version 3 reads one header and writes two word triples, both of the right size.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    Errno::result(ret)?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(words[0].effective, words[1].effective),
        permitted: join(words[0].permitted, words[1].permitted),
        inheritable: join(words[0].inheritable, words[1].inheritable),
    })
}

/// capset(2) of the calling thread: the three sets in one step.
pub fn set(sets: Sets) -> nix::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let word = |shift: u32| Words {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let words = [word(0), word(32)];
    // SAFETY: version 3 reads one header and two word triples, both live during the call.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(ret).map(drop)
}

/// Whether capability `number` is in the bounding set; `EINVAL` when the kernel has no such capability.
pub fn bounding_has(number: u32) -> nix::Result<bool> {
    prctl(libc::PR_CAPBSET_READ, u64::from(number), 0).map(|ret| ret == 1)
}

/// Drops capability `number` from the bounding set; `EINVAL` when the kernel has no such capability.
pub fn bounding_drop(number: u32) -> nix::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, u64::from(number), 0).map(drop)
}

/// Empties the ambient set.
pub fn ambient_clear() -> nix::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

/// Raises capability `number` in the ambient set; it must be permitted and inheritable.
pub fn ambient_raise(number: u32) -> nix::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(number)).map(drop)
}

fn prctl(option: i32, arg2: u64, arg3: u64) -> nix::Result<i32> {
    // SAFETY: these prctl options take integers only; the unused arguments must be zero.
    Errno::result(unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) })
}
