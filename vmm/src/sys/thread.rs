//! Signals of the monitor's threads.

use std::io;

/// Brings a processor's thread out of the guest. It is blocked everywhere else, so that it is never lost and
/// never delivered.
pub const KICK: i32 = 35;

/// Blocks every signal in the calling thread.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: the set is filled before it is used; only this thread's mask changes.
    let result = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        // glibc keeps its own two signals open.
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// The calling thread's number.
pub fn tid() -> i32 {
    // SAFETY: cannot fail.
    unsafe { libc::gettid() }
}

/// Sends [`KICK`] to a thread of this process. One that is gone is no error.
pub fn kick(tid: i32) {
    // SAFETY: numbers only; the signal is blocked in all threads of the monitor.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, KICK) };
}
