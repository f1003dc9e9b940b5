//! Small attributes of the calling process that `nix` lacks: keep-caps, personality, limits, groups.
//!
//! Thin wrappers; which values make sense is decided in `attrs`.

use nix::errno::Errno;

/// PR_SET_KEEPCAPS: keep the permitted set over a change of uid from 0; execve(2) resets it.
pub fn set_keep_caps(keep: bool) -> nix::Result<()> {
    // SAFETY: takes an integer; the unused arguments must be zero.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0u64, 0u64, 0u64) }).map(drop)
}

/// personality(2); `persona` is the whole new value.
pub fn personality(persona: u32) -> nix::Result<u32> {
    // SAFETY: takes and returns integers.
    Errno::result(unsafe { libc::personality(libc::c_ulong::from(persona)) }).map(|old| old as u32)
}

/// The personality of the calling process, unchanged.
pub fn current_personality() -> nix::Result<u32> {
    personality(u32::MAX)
}

/// prlimit(2): sets `resource` of process `pid` (0 is the caller); `u64::MAX` is unlimited.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> nix::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the kernel reads one rlimit64, whose fields are 64 bits wide on every architecture.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    Errno::result(ret).map(drop)
}

/// prlimit(2): the soft and hard limit of `resource` of process `pid` (0 is the caller).
pub fn rlimit(pid: i32, resource: u32) -> nix::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64.
    let ret = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<libc::rlimit64>(), &raw mut limit)
    };
    Errno::result(ret).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// setgroups(2) of the calling thread alone; the runtime's init never has a second one.
pub fn set_groups(gids: &[u32]) -> nix::Result<()> {
    // SAFETY: gid_t is u32 for this call on every 64-bit architecture; the kernel reads `len` of them.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, gids.len(), gids.as_ptr()) };
    Errno::result(ret).map(drop)
}
