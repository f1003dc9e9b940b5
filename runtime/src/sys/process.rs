//! The calling process: descriptors, execution, attributes of prctl(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// close_range(2) with `CLOSE_RANGE_CLOEXEC` (5.11): marks every descriptor from `first` on.
pub fn cloexec_from(first: u32) -> nix::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: marks descriptors only, closes none.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Takes ownership of an inherited descriptor, if it is open.
///
/// For descriptors that a caller hands over by number (`--preserve-fds`, `LISTEN_FDS`): call it once
/// for each, at start, before anything else is opened.
pub fn adopt(fd: i32) -> Option<OwnedFd> {
    // SAFETY: F_GETFD only looks at the descriptor table.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: open, and by contract nothing in this process owns it yet.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A copy of `fd` numbered `first` or higher that survives execve(2).
pub fn inheritable(fd: impl AsFd, first: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes integers, returns a fresh descriptor.
    let copy = Errno::result(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD, first) })?;
    // SAFETY: nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// dup2(2) onto a fixed number, without close-on-exec, also where it has that number already.
pub fn dup_to(fd: impl AsFd, number: i32) -> nix::Result<()> {
    if fd.as_fd().as_raw_fd() == number {
        // SAFETY: changes a flag of an open descriptor.
        return Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: replaces `number`, which the caller gives up.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop)
}

/// A NULL-terminated vector of pointers for execve(2), borrowing from `strings`.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// execve(2); returns only on failure.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: NUL-terminated strings in NULL-terminated vectors that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Errno::last()
}

/// execveat(2) of the file that `fd` refers to; returns only on failure.
pub fn execveat(fd: impl AsFd, argv: &[CString], env: &[CString]) -> Errno {
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: NUL-terminated strings in NULL-terminated vectors that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
}

/// Overwrites the environment that this process was executed with, in its own memory.
///
/// It stays there, and in /proc/PID/environ, until the next execve(2). `std::env` finds nothing after this.
pub fn forget_environment() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: a NULL-terminated vector of NUL-terminated strings in this process's own stack area or
    // heap; this process has one thread, and nothing that it does later looks at them.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = libc::strlen(*entry);
            std::ptr::write_bytes(*entry, 0, length);
            entry = entry.add(1);
        }
    }
}

/// _exit(2): ends this process without running destructors or flushing what the parent will flush.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Ends this process as one that `signal` ended, as far as the kernel lets it: the first process of a pid namespace
/// is immune to its own signals but for a SIGKILL that claims to be the kernel's; others become 128 and the number.
pub fn end_by(signal: i32) -> ! {
    if signal == libc::SIGKILL {
        // SAFETY: all-zero is a valid siginfo; a process may claim any source for a signal to itself
        // (rt_sigqueueinfo(2)).
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            info.si_signo = signal;
            info.si_code = libc::SI_KERNEL;
            libc::syscall(libc::SYS_rt_sigqueueinfo, libc::getpid(), signal, &raw const info);
        }
    } else {
        // SAFETY: plain integers; an emptied mask and the default action let the signal do what it does.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            // No core of ours for a fault of another's.
            libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
    exit_now(128 + signal)
}

/// prctl(2) with integer arguments.
fn prctl(option: i32, arg: libc::c_ulong) -> nix::Result<()> {
    // SAFETY: the options used here take integers only.
    Errno::result(unsafe {
        libc::prctl(option, arg, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong)
    })
    .map(drop)
}

/// `PR_SET_DUMPABLE` off: no ptrace, and `/proc/self` belongs to root (CVE-2016-9962).
pub fn set_undumpable() -> nix::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// `PR_SET_PDEATHSIG`; 0 clears it.
pub fn set_parent_death_signal(signal: i32) -> nix::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong)
}

/// `PR_SET_CHILD_SUBREAPER`.
pub fn set_subreaper() -> nix::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// `PR_SET_NO_NEW_PRIVS`.
pub fn set_no_new_privs() -> nix::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Sets every signal to its default action and unblocks all.
///
/// Ignored signals and the mask survive exec, and engines start us with both changed.
pub fn reset_signals() {
    // The kernel's own call: libc's refuses the signals that it keeps for itself, which a caller
    // that used posix_spawn(3) leaves ignored.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: a `struct sigaction` of zeroes, at most this long, is SIG_DFL without flags or mask;
        // failures (SIGKILL, SIGSTOP) are of no interest.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8usize) };
    }
    // SAFETY: an empty set is built before use.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Has each of `signals` end this process, with 128 and its number as exit code.
pub fn end_on(signals: &[i32]) {
    extern "C" fn end(signal: i32) {
        // SAFETY: async-signal-safe; ends the process.
        unsafe { libc::_exit(128 + signal) }
    }
    for signal in signals {
        // SAFETY: the handler calls _exit(2) alone.
        unsafe { libc::signal(*signal, end as *const () as libc::sighandler_t) };
    }
}

/// Blocks every signal, so that they can be read from a signalfd.
pub fn block_signals() {
    // SAFETY: a full set is built before use.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// A signalfd(2) for every signal; close-on-exec and non-blocking.
pub fn signalfd() -> nix::Result<OwnedFd> {
    // SAFETY: a full set is built before use; the kernel returns a fresh descriptor.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        let fd = Errno::result(libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The next pending signal of a [`signalfd`].
pub fn next_signal(fd: impl AsFd) -> nix::Result<Option<i32>> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match nix::unistd::read(fd, &mut info) {
        // ssi_signo is the first field of the struct.
        Ok(n) if n == info.len() => Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]]))),
        Ok(_) | Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// mknodat(2) with a device number, relative to `dir`; the name must be one component.
pub fn mknodat(dir: impl AsFd, name: &CStr, mode: u32, dev: u64) -> nix::Result<()> {
    // SAFETY: name is NUL-terminated.
    Errno::result(unsafe { libc::mknodat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode, dev) }).map(drop)
}

/// umask(2).
pub fn umask(mask: u32) -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) }
}

/// statfs(2)'s magic number of the file system of `fd`.
pub fn fs_magic(fd: impl AsFd) -> nix::Result<i64> {
    // SAFETY: statfs is plain integers, filled by the kernel.
    let mut buf: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: buf is live.
    Errno::result(unsafe { libc::fstatfs(fd.as_fd().as_raw_fd(), &raw mut buf) })?;
    Ok(buf.f_type as i64)
}

/// setdomainname(2).
pub fn set_domain_name(name: &str) -> nix::Result<()> {
    // SAFETY: pointer and length describe a live buffer.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// close_range(2) of all descriptors from `first` on but those `kept`; what [`close_for_good`] says holds for each.
pub fn close_all_but(first: u32, kept: &[std::os::fd::BorrowedFd<'_>]) -> nix::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    kept.sort_unstable();
    let mut from = first;
    for end in kept.into_iter().chain([u32::MAX]) {
        if from < end {
            // SAFETY: by contract no owner of these is dropped or used again in this process.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, from, end - 1, 0) })?;
        }
        from = from.max(end.saturating_add(1));
    }
    Ok(())
}

/// close(2) of a descriptor whose owner will never run again in this process.
///
/// For a clone that is about to execute or exit and must let go early of what it holds a copy of.
pub fn close_for_good(fd: std::os::fd::BorrowedFd<'_>) {
    // SAFETY: by contract the owner is never dropped or used again in this process.
    unsafe { libc::close(fd.as_raw_fd()) };
}
