//! User namespaces: one for idmapped mounts, made by a process that ends at once, and one of a
//! user's own, in which this process is root.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, getpid, pipe, read, setresgid, setresuid};

/// A user namespace in which the ids from 0 on are `first` and the following of here.
pub fn mapped(first: u32, count: u32) -> std::io::Result<OwnedFd> {
    let (ready, tell) = pipe()?;
    // SAFETY: the child only makes system calls on memory of its own and never returns.
    match unsafe { fork() }? {
        ForkResult::Child => {
            if unshare(CloneFlags::CLONE_NEWUSER).is_ok() {
                let _ = nix::unistd::write(&tell, b"1");
            }
            drop(tell);
            loop {
                nix::unistd::pause();
            }
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let made = || {
                let mut byte = [0];
                // The child holds the other end until it is killed, so it writes or nobody does.
                match read(&ready, &mut byte) {
                    Ok(1) => {}
                    _ => return Err(Errno::EPERM.into()),
                }
                for map in ["uid_map", "gid_map"] {
                    std::fs::write(format!("/proc/{child}/{map}"), format!("0 {first} {count}\n"))?;
                }
                File::open(format!("/proc/{child}/ns/user")).map(OwnedFd::from)
            };
            let made = made();
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            made
        }
    }
}

/// Moves this process, which has one thread, into a new user namespace and becomes root there.
///
/// The maps are written from outside: `map` runs in a child that stays there, and gets this
/// process's id. `also` are namespaces that come into being with it.
pub fn enter(also: CloneFlags, map: impl FnOnce(Pid) -> bool) -> std::io::Result<()> {
    let own = getpid();
    let (ready, tell) = pipe()?;
    // SAFETY: the caller has one thread, so the child may do what any process may; it never returns.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(tell);
            // Without the byte, the other side gave up.
            let mapped = matches!(read(&ready, &mut [0]), Ok(1)) && map(own);
            // SAFETY: ends the child without running what the parent registered for its own end.
            unsafe { libc::_exit(if mapped { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            drop(ready);
            let made = unshare(CloneFlags::CLONE_NEWUSER | also);
            if made.is_ok() {
                nix::unistd::write(&tell, b"1")?;
            }
            drop(tell);
            let status = waitpid(child, None)?;
            made?;
            if status != WaitStatus::Exited(child, 0) {
                return Err(Errno::EPERM.into());
            }
            let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
            Ok(())
        }
    }
}
