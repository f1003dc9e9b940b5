//! The attendant's jail: what it may still ask of the kernel.
//!
//! It reads bytes that a machine chose, so it keeps no capability and may make only the calls of the list below; any
//! other fails with EPERM. It cannot make a process, execute, connect to anything or change its identity.

use locule_runtime::sys::caps;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::{Context, Error, Kind, Result};

const CALLS: &[i64] = &[
    // Bytes, on descriptors that it has and files of the log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_splice,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_ftruncate,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    // Terminals, and how a process ended.
    libc::SYS_ioctl,
    // The console socket, the keeper, journald.
    libc::SYS_accept4,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // Itself.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Gives up everything but those calls, for good.
pub fn enter() -> Result<()> {
    let doing = || "jailing the attendant";
    let wrong = |err: &dyn std::fmt::Display| Error::new(Kind::System, format!("{}: {err}", doing()));
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|err| wrong(&err))?;
    let filter = SeccompFilter::new(
        CALLS.iter().map(|call| (*call, Vec::new())).collect(),
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        arch,
    )
    .map_err(|err| wrong(&err))?;
    let program: BpfProgram = filter.try_into().map_err(|err: seccompiler::BackendError| wrong(&err))?;
    for number in 0..64 {
        // Those that this kernel does not know are refused, and were never there.
        let _ = caps::bounding_drop(number);
    }
    caps::set(caps::Sets { effective: 0, permitted: 0, inheritable: 0 }).doing(doing)?;
    seccompiler::apply_filter(&program).map_err(|err| wrong(&err))
}
