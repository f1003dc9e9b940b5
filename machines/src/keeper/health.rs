//! Health: a command that is run inside a machine again and again.
//!
//! Owns when it is run and what its answers mean. Never reads what it prints.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use locule_runtime::sys::clone::{Exit, pidfd_open, pidfd_signal};

use super::child_of;
use crate::definition::Health;
use crate::{Home, Machine};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
/// The file that names the command's process.
const PID: &str = "health.pid";

/// What an answer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Same,
    /// It is healthy.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// The checks of a machine that runs.
#[derive(Debug)]
pub struct Checks {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    retries: u32,
    /// Failures before this do not count.
    grace: Instant,
    next: Instant,
    failures: u32,
    last: Verdict,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pid: i32,
    until: Instant,
    pid_file: PathBuf,
    /// It was killed for its time.
    late: bool,
}

impl Checks {
    /// As the owner asked for; the first is due after one interval.
    pub fn new(health: &Health) -> Checks {
        let now = Instant::now();
        let interval = health.interval.map_or(INTERVAL, |span| span.0).max(Duration::from_millis(100));
        Checks {
            command: health.command.clone(),
            interval,
            timeout: health.timeout.map_or(TIMEOUT, |span| span.0),
            retries: health.retries.unwrap_or(RETRIES).max(1),
            grace: now + health.start_period.map_or(Duration::ZERO, |span| span.0),
            next: now + interval,
            failures: 0,
            last: Verdict::Same,
            running: None,
        }
    }

    /// When there is something to do.
    pub fn due(&self) -> Option<Instant> {
        Some(self.running.as_ref().map_or(self.next, |running| running.until))
    }

    /// Does what is due.
    pub fn turn(&mut self, home: &Home, machine: &Machine, now: Instant) -> Verdict {
        match &mut self.running {
            Some(running) if running.until <= now => {
                // First what runs inside, whose end ends the rest; what does not is killed the next time.
                let inside = std::fs::read_to_string(&running.pid_file).ok();
                let inside = inside.and_then(|text| text.trim().parse().ok()).and_then(open);
                match inside.filter(|_| !running.late) {
                    Some(pidfd) => drop(pidfd_signal(&pidfd, libc::SIGKILL)),
                    None => drop(open(running.pid).map(|pidfd| pidfd_signal(&pidfd, libc::SIGKILL))),
                }
                running.late = true;
                running.until = now + Duration::from_secs(2);
                Verdict::Same
            }
            Some(_) => Verdict::Same,
            None if self.next <= now => {
                let pid_file = machine.run().join(PID);
                let _ = std::fs::remove_file(&pid_file);
                let spawned = child_of(home)
                    .arg("exec")
                    .arg("--pid-file")
                    .arg(&pid_file)
                    .args([machine.name(), "--"])
                    .args(&self.command)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn();
                match spawned {
                    Ok(child) => {
                        let until = now + self.timeout;
                        self.running = Some(Running { pid: child.id() as i32, until, pid_file, late: false });
                        Verdict::Same
                    }
                    Err(_) => self.count(false, now),
                }
            }
            None => Verdict::Same,
        }
    }

    /// Takes the end of process `pid`; `None` where it was not the command.
    pub fn ended(&mut self, pid: i32, exit: Exit, now: Instant) -> Option<Verdict> {
        let running = self.running.take_if(|running| running.pid == pid)?;
        let _ = std::fs::remove_file(&running.pid_file);
        Some(self.count(exit == Exit::Code(0) && !running.late, now))
    }

    fn count(&mut self, good: bool, now: Instant) -> Verdict {
        self.next = now + self.interval;
        let verdict = if good {
            self.failures = 0;
            Verdict::Healthy
        } else if now < self.grace && self.last == Verdict::Same {
            Verdict::Same
        } else {
            self.failures += 1;
            if self.failures < self.retries { Verdict::Same } else { Verdict::Unhealthy }
        };
        if verdict == Verdict::Same || verdict == self.last {
            return Verdict::Same;
        }
        self.last = verdict;
        verdict
    }
}

fn open(pid: i32) -> Option<OwnedFd> {
    pidfd_open(pid).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Span;

    #[test]
    fn failures_count_in_a_row_and_after_the_grace() {
        let span = |seconds| Some(Span(Duration::from_secs(seconds)));
        let health = Health { command: vec!["x".into()], start_period: span(10), ..Health::default() };
        let mut checks = Checks::new(&health);
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        for second in 1..9 {
            assert_eq!(checks.count(false, after(second)), Verdict::Same, "within the grace");
        }
        assert_eq!(checks.count(false, after(20)), Verdict::Same);
        assert_eq!(checks.count(false, after(21)), Verdict::Same);
        assert_eq!(checks.count(false, after(22)), Verdict::Unhealthy);
        assert_eq!(checks.count(false, after(23)), Verdict::Same, "told once");
        assert_eq!(checks.count(true, after(24)), Verdict::Healthy);
        assert_eq!(checks.count(false, after(25)), Verdict::Same);
        assert_eq!(checks.count(true, after(26)), Verdict::Same);
        assert_eq!(checks.count(false, after(27)), Verdict::Same);
        assert_eq!(checks.count(false, after(28)), Verdict::Same, "a success begins the row anew");
        assert_eq!(checks.count(false, after(29)), Verdict::Unhealthy);
    }
}
