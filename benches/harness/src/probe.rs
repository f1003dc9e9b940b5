//! For: running one program and saying what it cost: by time and memory (`timer`) or by system calls (`strace`).
//! Owns: the program while it runs.
//! Never: interprets what the program did beyond its exit status.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one execution cost. `value` is nanoseconds or a number of system calls.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds for [`Timer`], system calls for [`Strace`].
    pub value: u64,
    /// Peak resident size of the largest process, in KiB; 0 when not measured.
    pub peak_kib: u64,
}

/// A way to run a program and to say what it cost.
pub trait Probe {
    /// Runs `program` with `args`; an error is one line with what it printed.
    fn run(&self, program: &Path, args: &[&str]) -> Result<Sample, String>;
}

/// Times a program by `timer`, which has its own watchdog.
pub struct Timer {
    timer: PathBuf,
    stderr: PathBuf,
}

impl Timer {
    /// `tools` holds the compiled `timer`.
    pub fn new(tools: &Path, work: &Path) -> Self {
        Self { timer: tools.join("timer"), stderr: work.join("stderr") }
    }
}

impl Probe for Timer {
    fn run(&self, program: &Path, args: &[&str]) -> Result<Sample, String> {
        let output = Command::new(&self.timer)
            .arg("20")
            .arg(&self.stderr)
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("running {}: {e}", self.timer.display()))?;
        let line = String::from_utf8_lossy(&output.stdout);
        let mut fields = line.split_whitespace();
        match (fields.next(), fields.next(), fields.next()) {
            (Some(value), Some(peak), Some("0")) => Ok(Sample {
                value: value.parse().map_err(|e| format!("reading '{line}': {e}"))?,
                peak_kib: peak.parse().map_err(|e| format!("reading '{line}': {e}"))?,
            }),
            (_, _, Some("hang")) => Err("hung".into()),
            (_, _, Some(status)) => Err(format!("status {status}: {}", last_line(&self.stderr))),
            _ => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

fn last_line(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no message").to_owned()
}

/// Counts system calls by `strace -ff`, of the program and its children until the program exits.
///
/// Not `strace -c`: it reports when the last child ends, and the last child of `create` is a container that waits.
pub struct Strace {
    logs: PathBuf,
}

impl Strace {
    /// Logs go below `work`.
    pub fn new(work: &Path) -> Self {
        Self { logs: work.join("strace") }
    }
}

impl Probe for Strace {
    fn run(&self, program: &Path, args: &[&str]) -> Result<Sample, String> {
        let _ = std::fs::remove_dir_all(&self.logs);
        std::fs::create_dir_all(&self.logs).map_err(|e| format!("making {}: {e}", self.logs.display()))?;
        let marker = self.logs.join("exited");
        // The shell outlives the program, not its children, and so tells when the program has ended.
        let mut strace = Command::new("sh")
            .args([
                "-c",
                r#"log=$1 end=$2; shift 2; strace -D -f -ff -qq -o "$log" "$@"; echo $? >"$end""#,
                "sh",
            ])
            .arg(self.logs.join("log"))
            .arg(&marker)
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("running strace: {e}"))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !marker.exists() {
            if Instant::now() > deadline {
                let _ = strace.kill();
                let _ = strace.wait();
                return Err("hung under strace".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = strace.wait();
        // strace flushes each line, but a child may still be on its way to where it waits.
        std::thread::sleep(Duration::from_millis(300));
        let status = std::fs::read_to_string(&marker).unwrap_or_default();
        if status.trim() != "0" {
            return Err(format!("status {}", status.trim()));
        }
        let mut calls = 0;
        for entry in
            std::fs::read_dir(&self.logs).map_err(|e| format!("reading strace's logs: {e}"))?.flatten()
        {
            if entry.file_name().to_string_lossy().starts_with("log") {
                let text = std::fs::read(entry.path()).unwrap_or_default();
                calls += count_calls(&String::from_utf8_lossy(&text));
            }
        }
        Ok(Sample { value: calls, peak_kib: 0 })
    }
}

/// Lines that are calls: not signals (`---`) and not exits (`+++`).
fn count_calls(log: &str) -> u64 {
    log.lines().filter(|l| l.contains('(') && !l.starts_with("---") && !l.starts_with("+++")).count() as u64
}

#[cfg(test)]
mod tests {
    use super::count_calls;

    #[test]
    fn signals_and_exits_are_not_calls() {
        let log = "getpid() = 1\n--- SIGCHLD {si_signo=SIGCHLD(x)} ---\nread(3, \"\", 1) = 0\n+++ exited with 0 +++\n";
        assert_eq!(count_calls(log), 2);
    }
}
