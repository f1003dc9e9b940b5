//! Orphans of killed calls, and inits whose creator has ended, come to this process: it buries them.
//!
//! Owns the difference between those and the calls that a thread waits for itself. Where the lane
//! runs, process 1 may be one that reaps nobody, and ten minutes of zombies would fill the table.

use std::collections::HashSet;
use std::process::{Child, Command};
use std::sync::{Arc, RwLock};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// The pids that somebody waits for.
#[derive(Debug, Clone)]
pub struct Reaper(Arc<RwLock<HashSet<i32>>>);

impl Reaper {
    /// Makes this process the parent of every orphan below it.
    pub fn start() -> Reaper {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let reaper = Reaper(Arc::default());
        let own = reaper.clone();
        std::thread::spawn(move || own.reap());
        reaper
    }

    /// Starts a call that the caller waits for.
    pub fn spawn(&self, command: &mut Command) -> Child {
        // Nobody looks at who has ended between the birth and the note of it.
        let mut awaited = self.0.write().unwrap();
        let child = command.spawn().unwrap();
        awaited.insert(child.id() as i32);
        child
    }

    /// Waits for such a call.
    pub fn wait(&self, mut child: Child) -> std::process::ExitStatus {
        let status = child.wait().unwrap();
        self.0.write().unwrap().remove(&(child.id() as i32));
        status
    }

    fn reap(&self) {
        loop {
            let seen = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let pid = match seen {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
                // Without a child there is nobody to wait for.
                _ => Pid::from_raw(0),
            };
            if pid.as_raw() != 0 && !self.0.read().unwrap().contains(&pid.as_raw()) {
                let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            } else {
                // It is somebody's, who is about to wait for it.
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    }
}
