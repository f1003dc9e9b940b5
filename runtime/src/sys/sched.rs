//! Scheduling system calls without a wrapper: sched_setattr(2), ioprio_set(2), set_mempolicy(2), affinity.
//!
//! All act on the calling thread or a pid. Bit masks are slices of 64-bit words, lowest first.

use nix::errno::Errno;

/// `struct sched_attr`, version 1 (56 bytes, kernel 5.3).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attr {
    /// Size of the struct; filled in by [`set_attr`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// DEADLINE, nanoseconds.
    pub runtime: u64,
    /// DEADLINE, nanoseconds.
    pub deadline: u64,
    /// DEADLINE, nanoseconds.
    pub period: u64,
    /// Utilization clamp, lower bound.
    pub util_min: u32,
    /// Utilization clamp, upper bound.
    pub util_max: u32,
}

/// sched_setattr(2) of the calling thread.
pub fn set_attr(attr: &Attr) -> nix::Result<()> {
    let attr = Attr { size: size_of::<Attr>() as u32, ..*attr };
    // SAFETY: the kernel reads `size` bytes of a live struct.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0u32) }).map(drop)
}

/// sched_getattr(2) of the calling thread.
pub fn get_attr() -> nix::Result<Attr> {
    let mut attr = Attr::default();
    let size = size_of::<Attr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into a struct of that size.
    let ret = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0u32) };
    Errno::result(ret).map(|_| attr)
}

/// ioprio_set(2) of the calling thread; class in the bits from 13 up, level below.
pub fn set_io_priority(value: u32) -> nix::Result<()> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// ioprio_get(2) of the calling thread.
pub fn io_priority() -> nix::Result<u32> {
    const WHO_PROCESS: i32 = 1;
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) }).map(|value| value as u32)
}

/// sched_setaffinity(2) of `pid` (0 is the caller); the kernel intersects the mask with the cpuset.
pub fn set_affinity(pid: i32, mask: &[u64]) -> nix::Result<()> {
    // SAFETY: the kernel reads the given number of bytes from the slice.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) };
    Errno::result(ret).map(drop)
}

/// sched_getaffinity(2) of `pid` (0 is the caller), for up to 8192 CPUs, the most that Linux can have.
pub fn affinity(pid: i32) -> nix::Result<Vec<u64>> {
    let mut mask = vec![0u64; 128];
    // SAFETY: the kernel writes at most the given number of bytes into the vector's buffer.
    let ret = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, pid, size_of_val(mask.as_slice()), mask.as_mut_ptr())
    };
    let bytes = Errno::result(ret)? as usize;
    mask.truncate(bytes.div_ceil(size_of::<u64>()));
    Ok(mask)
}

/// set_mempolicy(2) of the calling thread: `mode` with its flags, nodes as a bit mask.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> nix::Result<()> {
    // The kernel counts one bit less than it is told (get_nodes in mm/mempolicy.c), hence the extra one.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits - 1` bits, which is the slice exactly, or nothing.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode as i32, pointer, bits) }).map(drop)
}

/// get_mempolicy(2) of the calling thread: mode with flags, and the nodes.
pub fn memory_policy() -> nix::Result<(u32, Vec<u64>)> {
    let mut mode = 0i32;
    let mut nodes = vec![0u64; 16];
    // SAFETY: the kernel writes one int and at most the given number of bits.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            nodes.as_mut_ptr(),
            nodes.len() * 64,
            std::ptr::null::<u8>(),
            0u64,
        )
    };
    Errno::result(ret).map(|_| (mode as u32, nodes))
}
