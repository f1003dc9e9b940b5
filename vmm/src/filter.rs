//! What each kind of thread may still ask of the kernel, and with which rights; any other call fails with EPERM.
//!
//! A filter is inherited by threads that the filtered one starts, and can only become narrower: nothing that
//! needs more may be started from a virtual processor's or the devices' thread.

use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use locule_runtime::sys::caps;

use crate::{Error, Result};

type Rules = std::collections::BTreeMap<i64, Vec<SeccompRule>>;

/// A kind of thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A virtual processor: it runs the guest and answers its exits.
    Processor,
    /// The devices: queues, sockets, tap devices and disks.
    Devices,
    /// The devices, where one of them connects to UNIX sockets of the host's.
    ConnectingDevices,
    /// The file server: files beneath the descriptors that it has.
    Files,
    /// The session: the channel, standard streams, signals, the control socket.
    Session,
}

/// What every thread needs: its memory, its locks, its end, and words on standard error.
const COMMON: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

const PROCESSOR: &[i64] = &[libc::SYS_epoll_ctl, libc::SYS_eventfd2, libc::SYS_fcntl];

const DEVICES: &[i64] = &[
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_fdatasync,
    libc::SYS_fcntl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_accept4,
    libc::SYS_shutdown,
];

const FILES: &[i64] = &[
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_copy_file_range,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_listxattr,
    libc::SYS_removexattr,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_capset,
    libc::SYS_capget,
    libc::SYS_umask,
    libc::SYS_fchdir,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
];

const SESSION: &[i64] = &[
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_accept4,
    // Of a datagram socket that it has, as it may make none: to be told when the listener has room again.
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    // Beside `statx`, of what is added to the file server's tree: whether its file system tells anything at close.
    libc::SYS_fstatfs,
    libc::SYS_openat2,
    libc::SYS_geteuid,
    libc::SYS_rt_sigaction,
    libc::SYS_kill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_ctl,
];

/// What connecting takes, beside a `socket` of the host's own kind.
const CONNECTING: &[i64] = &[libc::SYS_connect];

/// What starting a thread takes, beside a `clone` for one.
const THREADS: &[i64] = &[
    // Refused by `no_clone3` in a way that makes the C library take `clone`, whose flags a filter can see.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
];

// KVM's calls that a processor makes while the guest runs.
const KVM_RUN: u64 = 0xae80;
const KVM_SET_GSI_ROUTING: u64 = 0x4008_ae6a;
const KVM_IRQFD: u64 = 0x4020_ae76;
const KVM_IOEVENTFD: u64 = 0x4040_ae79;

/// The `ioctl` requests of a thread.
fn requests(kind: Kind) -> &'static [u64] {
    match kind {
        Kind::Processor => &[KVM_RUN, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD],
        Kind::Devices | Kind::ConnectingDevices => &[libc::TUNSETVNETHDRSZ, libc::TUNSETOFFLOAD],
        Kind::Files => &[],
        // Terminals, and the devices at their end.
        Kind::Session => &[libc::TCGETS, libc::TIOCGWINSZ, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_IOEVENTFD],
    }
}

/// The `prctl` requests of a thread.
fn options(kind: Kind) -> &'static [i32] {
    match kind {
        Kind::Files => &[libc::PR_SET_NAME, libc::PR_GET_SECUREBITS, libc::PR_SET_SECUREBITS],
        Kind::Session => &[libc::PR_SET_NAME, libc::PR_SET_DUMPABLE, libc::PR_SET_PDEATHSIG],
        Kind::Processor | Kind::Devices | Kind::ConnectingDevices => &[],
    }
}

fn starts_threads(kind: Kind) -> bool {
    matches!(kind, Kind::Files | Kind::Session)
}

fn calls(kind: Kind) -> &'static [i64] {
    match kind {
        Kind::Processor => PROCESSOR,
        Kind::Devices | Kind::ConnectingDevices => DEVICES,
        Kind::Files => FILES,
        Kind::Session => SESSION,
    }
}

/// The filter of a kind of thread.
pub fn program(kind: Kind) -> Result<BpfProgram> {
    let wrong = |error: &dyn std::fmt::Display| {
        Error::refused(format!("making the system call filter of {kind:?} threads"), error.to_string())
    };
    let more = match kind {
        Kind::ConnectingDevices => CONNECTING,
        _ if starts_threads(kind) => THREADS,
        _ => &[],
    };
    let mut rules: Rules =
        COMMON.iter().chain(calls(kind)).chain(more).map(|call| (*call, Vec::new())).collect();
    let mut only = |call: i64, conditions: Vec<SeccompCondition>| {
        SeccompRule::new(conditions)
            .map(|rule| rules.entry(call).or_default().push(rule))
            .map_err(|error| wrong(&error))
    };
    let condition = |argument, length, operator, value| {
        SeccompCondition::new(argument, length, operator, value).map_err(|error| wrong(&error))
    };
    // Memory, but none that can be executed.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = MaskedEq(libc::PROT_EXEC as u64);
        only(call, vec![condition(2, SeccompCmpArgLen::Dword, executable, 0)?])?;
    }
    for request in requests(kind) {
        only(libc::SYS_ioctl, vec![condition(1, SeccompCmpArgLen::Dword, Eq, *request)?])?;
    }
    for option in options(kind) {
        only(libc::SYS_prctl, vec![condition(0, SeccompCmpArgLen::Dword, Eq, *option as u64)?])?;
    }
    if starts_threads(kind) {
        let thread = libc::CLONE_THREAD as u64;
        only(libc::SYS_clone, vec![condition(0, SeccompCmpArgLen::Qword, MaskedEq(thread), thread)?])?;
    }
    if kind == Kind::ConnectingDevices {
        only(libc::SYS_socket, vec![condition(0, SeccompCmpArgLen::Dword, Eq, libc::AF_UNIX as u64)?])?;
    }
    if kind == Kind::Files {
        // A working directory and a mask of its own, and no other namespace.
        only(libc::SYS_unshare, vec![condition(0, SeccompCmpArgLen::Qword, Eq, libc::CLONE_FS as u64)?])?;
    }
    compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
        .map_err(|error| wrong(&error))
}

/// Of the calling thread alone. It is not root with all rights after a later execve(2), as there is none.
fn give_up_capabilities() -> nix::Result<()> {
    let none = caps::Sets { effective: 0, permitted: 0, inheritable: 0 };
    caps::set(none)
}

/// Makes `clone3` a call that this kernel seems not to have.
fn no_clone3() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn compile(
    rules: Rules,
    other: SeccompAction,
    listed: SeccompAction,
) -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, other, listed, architecture).and_then(BpfProgram::try_from)
}

/// Narrows the calling thread, and those that it starts, for good. All but the file server give up every capability.
pub fn enter(kind: Kind) -> Result<()> {
    let refused = |error: &dyn std::fmt::Display| {
        Error::refused(format!("filtering the calls of a {kind:?} thread"), error.to_string())
    };
    let program = program(kind)?;
    if kind != Kind::Files {
        give_up_capabilities().map_err(|error| refused(&error))?;
    }
    if starts_threads(kind) {
        let first = no_clone3().map_err(|error| refused(&error))?;
        seccompiler::apply_filter(&first).map_err(|error| refused(&error))?;
    }
    seccompiler::apply_filter(&program).map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_refuses_what_is_not_in_it() {
        for kind in [Kind::Processor, Kind::Devices, Kind::ConnectingDevices, Kind::Files, Kind::Session] {
            let refused = std::thread::spawn(move || {
                enter(kind).unwrap();
                // Allowed in all of them, then in none.
                nix::unistd::gettid();
                nix::unistd::chdir("/").unwrap_err()
            });
            assert_eq!(refused.join().unwrap(), nix::errno::Errno::EPERM, "{kind:?}");
        }
    }

    #[test]
    fn no_thread_gets_memory_that_can_be_executed() {
        use vm_memory::mmap::{MmapRegion, MmapRegionError};
        let map = |protection| match MmapRegion::<()>::build(
            None,
            4096,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        ) {
            Ok(_) => None,
            Err(MmapRegionError::Mmap(err)) => err.raw_os_error(),
            Err(err) => panic!("{err}"),
        };
        let seen = std::thread::spawn(move || {
            enter(Kind::Devices).unwrap();
            (map(libc::PROT_READ | libc::PROT_WRITE), map(libc::PROT_READ | libc::PROT_EXEC))
        });
        assert_eq!(seen.join().unwrap(), (None, Some(libc::EPERM)));
    }
}
