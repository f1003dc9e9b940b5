//! The end of a machine: asked for or not, written down, cleaned up, and whether it is started again.

use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use locule_runtime::sys::clone::{self, Exit, pidfd_signal};
use locule_runtime::sys::{process, socket};
use locule_runtime::time::rfc3339;

use super::{Ending, Init, REBOOT, STOP, STOP_TIMEOUT, Supervisor, trouble};
use crate::definition::RestartPolicy;
use crate::keeper::protocol::{inner, packet};
use crate::keeper::record::{Ended, Phase};
use crate::keeper::{child, group, store, unit};
use crate::{Context, Result, boot};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A machine that ran for so long did not fail in a row.
const STEADY: Duration = Duration::from_secs(60);
/// How long the attendant may take to read what is left.
const DRAIN: Duration = Duration::from_secs(5);

impl Supervisor<'_> {
    /// Asks the machine to end, for its owner.
    pub(super) fn stop(&mut self) -> Result<()> {
        // An end for its health becomes its owner's, and nothing starts it again.
        let unhealthy = std::mem::take(&mut self.unhealthy);
        let again = matches!(self.stopping, Some(Some(_))) && !unhealthy;
        self.again = None;
        let asked = std::fs::read_to_string(self.machine.run().join(STOP)).ok();
        let _ = std::fs::remove_file(self.machine.run().join(STOP));
        self.asked |= asked.is_some();
        let asked = asked.and_then(|text| text.trim().parse().ok()).map(Duration::from_millis);
        let own = self.definition.init.stop_timeout.map(|span| span.0);
        let timeout = asked.or(own).unwrap_or(STOP_TIMEOUT);
        match (&self.init, &self.starter, &self.ending) {
            (Some(_), _, _) if again && asked.is_none() => self.kill(),
            (Some(_), _, _) => {
                self.phase(Phase::Stopping)?;
                self.tell_manager(&format!(
                    "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC={}\n",
                    (timeout + Duration::from_secs(15)).as_micros()
                ));
                self.ask_to_end(timeout);
            }
            // It may wait for the lock that whoever stops the machine holds; what it made goes with it.
            (None, Some((pid, _)), _) => {
                let pid = *pid;
                self.stopping = Some(None);
                self.starter = None;
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
                let _ = clone::wait(pid);
                self.claim();
                let ended = Ended::new(None, false, true, rfc3339(SystemTime::now()));
                self.ending = Some(Ending { ended, ran: Duration::ZERO, drain: None, cleaner: None });
                self.clean_up()?;
            }
            (None, None, Some(_)) => {
                self.stopping = Some(None);
                self.claim();
            }
            (None, None, None) => {
                self.claim();
                self.forget();
                self.done = Some(0);
            }
        }
        Ok(())
    }

    pub(super) fn ask_to_end(&mut self, timeout: Duration) {
        let Some(init) = &self.init else { return };
        let at = Instant::now() + timeout;
        // A frozen machine hears nothing.
        if let Some(path) = &init.cgroup {
            let _ = std::fs::write(group(path).join("cgroup.freeze"), "0");
        }
        // The keeper has no right any more to look inside, nor at what init waits for; should nobody be able to, the
        // signal is what is left.
        let asked = child(self.home, "ask", self.machine).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        if asked.is_err() {
            let _ = pidfd_signal(&init.pidfd, init.stop_signal);
        }
        self.stopping = Some(Some(at));
    }

    pub(super) fn kill(&mut self) {
        let Some(init) = &self.init else { return };
        let whole = init.cgroup.as_ref().map(|path| std::fs::write(group(path).join("cgroup.kill"), "1"));
        if !matches!(whole, Some(Ok(()))) {
            let _ = pidfd_signal(&init.pidfd, libc::SIGKILL);
        }
    }

    /// Init has ended. How is written down before anything else.
    pub(super) fn end(&mut self, mut init: Init, exit: Option<Exit>) -> Result<()> {
        let kills = init.new_kills();
        let stopped = self.stopping.is_some() && !self.unhealthy;
        let ended = Ended::new(exit, init.oom, stopped, rfc3339(SystemTime::now()));
        if let Err(err) = ended.write(self.machine.run()) {
            trouble(&format!("{err}; it ended: {}", ended.told()));
        }
        (0..kills).for_each(|_| self.tell_all("oom", &[]));
        self.tell_all("die", &[("exit", ended.shell_code().to_string()), ("asked", stopped.to_string())]);
        self.record.init = None;
        self.record.ready = false;
        self.record.health = None;
        self.health = None;
        if self.stopping.is_some() {
            self.stopping = Some(None);
        }
        if let Some(manager) = &self.manager {
            manager.forget(store::TERMINAL);
            manager.forget(store::INIT);
        }
        let drain = match &self.attendant {
            Some((_, sock))
                if socket::send(sock, &packet(inner::END, ended.told().as_bytes()), &[]).is_ok() =>
            {
                Some(Instant::now() + DRAIN)
            }
            _ => None,
        };
        let waits = drain.is_some();
        self.ending = Some(Ending { ended, ran: init.since.elapsed(), drain, cleaner: None });
        if waits { Ok(()) } else { self.clean_up() }
    }

    pub(super) fn clean_up(&mut self) -> Result<()> {
        let Some(ending) = &mut self.ending else { return Ok(()) };
        ending.drain = None;
        let spawned = child(self.home, "clean", self.machine)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .doing(|| "running the clean-up")?;
        ending.cleaner = Some(spawned.id() as i32);
        Ok(())
    }

    /// It has ended and is cleaned up: is that all?
    pub(super) fn decide(&mut self) -> Result<()> {
        let Some(Ending { ended, ran, .. }) = self.ending.take() else { return Ok(()) };
        let unhealthy = std::mem::take(&mut self.unhealthy);
        if unhealthy {
            self.stopping = None;
        } else if self.stopping.is_some() {
            self.forget();
            self.done = Some(0);
            return Ok(());
        }
        if ran >= STEADY {
            self.record.restarts = 0;
        }
        self.reload();
        let policy = &self.definition.restart;
        let wanted = match policy.policy {
            _ if ended.reboot || unhealthy => true,
            _ if ended.halted() => false,
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => ended.failed(),
            RestartPolicy::Always => true,
        };
        let spent = !ended.reboot && policy.max.is_some_and(|max| self.record.restarts >= max);
        if !wanted || spent {
            self.done = Some(ended.shell_code());
            return Ok(());
        }
        if ended.reboot {
            if self.record.unit.is_some() {
                // systemd starts the unit again, with what has changed of it.
                self.done = Some(REBOOT);
                return Ok(());
            }
            return self.start();
        }
        self.pause(1)
    }

    /// Between two runs nothing ends by the owner's word, and still it is the owner who wants no other.
    fn claim(&self) {
        if let Err(err) = Ended::claim(self.machine) {
            trouble(&err.to_string());
        }
    }

    /// The exit code of the keeper, `code` unless its owner has asked for an end since that was decided: then systemd
    /// must not start the machine again.
    pub(super) fn last_word(&self, code: i32) -> i32 {
        while let Ok(Some(signal)) = process::next_signal(&self.signals) {
            if code == REBOOT && matches!(signal, libc::SIGTERM | libc::SIGINT) {
                self.claim();
                self.forget();
                return 0;
            }
        }
        code
    }

    /// Its owner has stopped it; one that ends with the host, nobody has.
    pub(super) fn forget(&self) {
        if (self.asked || !unit::host_goes_down())
            && let Err(err) = boot::remember(self.machine, false)
        {
            trouble(&err.to_string());
        }
    }

    /// Starts it again, after a pause that doubles each time.
    pub(super) fn pause(&mut self, more: u32) -> Result<()> {
        if let Some(max) = self.definition.restart.max
            && self.record.restarts >= max
        {
            self.done = Some(1);
            return Ok(());
        }
        let first = self.definition.restart.delay.map_or(FIRST_PAUSE, |span| span.0);
        let pause = pause(first, self.record.restarts);
        self.record.restarts += more;
        self.again = Some(Instant::now() + pause);
        self.tell_manager(&format!("STATUS=starting again in {} s\n", pause.as_secs()));
        self.tell_all(
            "restart",
            &[("after", format!("{}s", pause.as_secs())), ("count", self.record.restarts.to_string())],
        );
        self.phase(Phase::Waiting)
    }
}

/// How long to wait before start number `count` in a row.
fn pause(first: Duration, count: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(count.min(20)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let seconds: Vec<u64> = (0..12).map(|count| pause(Duration::from_secs(1), count).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(pause(Duration::from_millis(100), 3), Duration::from_millis(800));
        assert_eq!(pause(Duration::from_secs(1), 4_000_000_000), LONGEST_PAUSE);
        assert_eq!(pause(Duration::from_secs(600), 2), Duration::from_secs(600), "the owner's own wins");
    }
}
