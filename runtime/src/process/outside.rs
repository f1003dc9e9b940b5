//! What creator and `exec` exchange with the caller beside the container: descriptors, sockets, pid files.
//!
//! Owns nothing for long.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use serde::Serialize;

use crate::contract;
use crate::error::{Context, Error, Result};
use crate::plan::ProcessPlan;
use crate::report::{self, Status};
use crate::state::{State, write_atomic};
use crate::sys::{process, socket};

/// Takes over the descriptors that the caller hands to the workload: `preserve` of them, and those
/// of systemd's socket activation (sd_listen_fds(3)), all from 3 on.
///
/// Call it before anything else is opened: what is not open then would be taken for it later.
pub fn adopt_fds(preserve: u32) -> Result<Vec<OwnedFd>> {
    let count = preserve.saturating_add(listen_fds()).min(1024);
    (3..3 + count as i32)
        .map(|number| {
            process::adopt(number).ok_or_else(|| {
                Error::invalid(format!("--preserve-fds: descriptor {number} is not open"))
                    .hint("it counts the descriptors that follow stderr")
            })
        })
        .collect()
}

/// How many sockets were activated for this very process.
fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Tells the workload of activated sockets (sd_listen_fds(3)).
///
/// `LISTEN_PIDFDID` is never passed on: it is the caller's, and no match would hide the sockets.
pub fn pass_on_sockets(process: &mut ProcessPlan) {
    let count = listen_fds();
    if count > 0 {
        process.set_var("LISTEN_FDS", &count.to_string());
        process.activated = true;
        if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
            process.set_var("LISTEN_FDNAMES", &names);
        }
    }
}

/// `containerProcessState` (config-linux.md, seccomp).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    metadata: &'a str,
    state: serde_json::Value,
}

/// Hands the notification descriptor of process `pid`'s filter to the listener at `path`, with the
/// state of its container: what is remembered, its status and its init's pid.
pub fn send_filter(
    path: &Path,
    metadata: &str,
    (state, status, init): (&State, Status, i32),
    pid: i32,
    fd: &OwnedFd,
) -> Result<()> {
    let doing = || format!("sending the seccomp notification descriptor to {}", path.display());
    let inner = serde_json::from_slice(&report::for_hooks(state, init, status.word())).doing(doing)?;
    let message =
        ProcessState { oci_version: &state.oci_version, fds: ["seccompFd"], pid, metadata, state: inner };
    let text = serde_json::to_vec(&message).doing(doing)?;
    let sock = socket::connect_stream(path)
        .doing(|| format!("failed to connect with seccomp agent {}", path.display()))?;
    socket::send(&sock, &text, &[fd.as_fd()]).doing(doing)
}

/// Removes the pid file of a process that failed after all, if it names that one.
pub fn forget_pid(file: &Path, pid: i32) {
    if std::fs::read(file).is_ok_and(|text| text == pid.to_string().as_bytes()) {
        let _ = std::fs::remove_file(file);
    }
}

/// Writes the pid file, digits only, and sends the pidfd, where the caller asked for them.
pub fn tell_pid(file: Option<&Path>, pidfd_socket: Option<&Path>, pid: i32, pidfd: &OwnedFd) -> Result<()> {
    if let Some(path) = file {
        write_atomic(path, contract::pid_file(pid).as_bytes())?;
    }
    if let Some(path) = pidfd_socket {
        let doing = || format!("sending the pidfd to {}", path.display());
        let sock = socket::connect_stream(path).doing(doing)?;
        socket::send(&sock, b"pidfd", &[pidfd.as_fd()]).doing(doing)?;
    }
    Ok(())
}
