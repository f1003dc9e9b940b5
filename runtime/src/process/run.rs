//! A workload in the foreground: signals go to it, its terminal is served, its end is reported.
//!
//! Owns the wait; shared by `run` and `exec`.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::create::{self, CreateRequest, Created, Then};
use super::notify::Notify;
use super::terminal::Relay;
use crate::error::{Context, Result};
use crate::state::Store;
use crate::sys::clone::{self, Exit, pidfd_signal};
use crate::sys::process;
use crate::warn::warn_all;

/// What `run` was asked for.
#[derive(Debug)]
pub struct RunRequest {
    /// The container.
    pub create: CreateRequest,
    /// Return once the workload runs.
    pub detach: bool,
    /// Keep the container after its workload has ended.
    pub keep: bool,
    /// Do not become the reaper of what the workload orphans.
    pub no_subreaper: bool,
}

/// Creates and starts a container; in the foreground also waits for its end and deletes it.
///
/// Returns the exit code that a shell would see, 0 when detached.
pub fn run(store: &Store, request: RunRequest) -> Result<i32> {
    if !request.detach {
        if !request.no_subreaper {
            process::set_subreaper().doing(|| "becoming the reaper of the container's orphans")?;
        }
        // Before the clone: a signal that arrives early waits to be passed on; init resets its own mask.
        process::block_signals();
    }
    let mut created = create::make(store, request.create, Then::Run, request.detach)?;
    warn_all(std::mem::take(&mut created.warnings));
    let Created { container, pid, pidfd, master, notify, .. } = created;
    if let Err(err) = container.run_poststart() {
        let _ = clone::wait(pid);
        let _ = container.finish(store);
        return Err(err);
    }
    // Whoever asked for it is told that it failed: nobody would end it any more.
    let give_up = || {
        let _ = container.kill_everything();
        let _ = clone::wait(pid);
        let _ = container.finish(store);
    };
    if request.detach {
        if let Some(notify) = notify {
            notify.see_ready(pid, &pidfd).inspect_err(|_| give_up())?;
        }
        return Ok(0);
    }
    let exit = attend(pid, &pidfd, master, notify.as_ref()).inspect_err(|_| give_up())?;
    if !request.keep {
        container.finish(store)?;
    }
    Ok(exit.shell_code())
}

/// Passes signals and notifications on and serves the terminal until process `pid`, a child, ends.
///
/// Signals must be blocked already. Other children (orphans of the workload) are reaped.
pub fn attend(pid: i32, pidfd: &OwnedFd, master: Option<OwnedFd>, notify: Option<&Notify>) -> Result<Exit> {
    let signals = process::signalfd().doing(|| "listening for signals")?;
    let mut relay = master.map(Relay::new).transpose()?;
    loop {
        // The relay stays until the end: what the workload wrote last is read after it is gone.
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(notify) = notify {
            fds.push(PollFd::new(notify.as_fd(), PollFlags::POLLIN));
        }
        let first_of_relay = fds.len();
        if let Some(relay) = &relay {
            fds.extend(relay.poll_fds());
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.doing(|| "waiting for the workload")?,
        };
        let ready: Vec<bool> =
            fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        drop(fds);
        if let Some(relay) = &mut relay {
            relay.pump(&ready[first_of_relay..])?;
        }
        if let Some(notify) = notify {
            // A manager that went away is no reason to leave the workload alone.
            let _ = notify.pump();
        }
        while let Some(signal) = process::next_signal(&signals).doing(|| "reading a signal")? {
            match signal {
                libc::SIGCHLD => {}
                libc::SIGWINCH => {
                    if let Some(relay) = &relay {
                        relay.resize();
                    }
                }
                // Those that the kernel raises at a fault or a closed pipe of our own are not the workload's.
                libc::SIGPIPE | libc::SIGURG => {}
                other => {
                    let _ = pidfd_signal(pidfd, other);
                }
            }
        }
        // In one pass: a stopped child must not be missed, and orphans must not pile up.
        while let Ok(Some((ended, exit))) = clone::reap_any() {
            if ended == pid {
                if let Some(relay) = &mut relay {
                    relay.drain();
                }
                if let Some(notify) = notify {
                    let _ = notify.pump();
                }
                return Ok(exit);
            }
        }
    }
}
