//! A user namespace for idmapped mounts: made by a process that ends at once.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe, read};

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
