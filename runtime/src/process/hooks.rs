//! Hooks of the runtime-spec: programs of the caller's, with the container's state on their stdin.
//!
//! Owns their processes until they end or their time is up. What they print is kept for the error
//! message and goes nowhere else.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Error, Kind, Result};
use crate::report;
use crate::spec::Hook;
use crate::state::State;
use crate::sys::clone::pidfd_open;
use crate::sys::process;
use crate::warn::warn;

/// The one stage at which only the workload's own descriptors are left, those to be kept among them.
const START_CONTAINER: &str = "startContainer";
/// How much of a hook's output an error quotes.
const QUOTED: u64 = 512;

/// Runs the hooks of `stage` in order, stopping at the first that fails; `state` is the state JSON.
pub fn run(stage: &str, hooks: &[Hook], state: &[u8]) -> Result<()> {
    run_all(stage, hooks, state, None)
}

/// Runs the `startContainer` hooks; one without an environment of its own gets the workload's, as with runc.
pub fn run_start_container(hooks: &[Hook], state: &[u8], env: &[CString]) -> Result<()> {
    let env = || env.iter().map(|entry| entry.to_string_lossy().into_owned()).collect();
    let with_env = |hook: &Hook| match hook.env.is_empty() {
        true => Hook { env: env(), ..hook.clone() },
        false => hook.clone(),
    };
    run_all(START_CONTAINER, &hooks.iter().map(with_env).collect::<Vec<_>>(), state, None)
}

/// The same while the container's `init` lives: at its end a hook that still runs is killed, so
/// that a forced deletion need not wait for a hook that never ends.
pub fn run_beside(init: &OwnedFd, stage: &str, hooks: &[Hook], state: &[u8]) -> Result<()> {
    run_all(stage, hooks, state, Some(init))
}

fn run_all(stage: &str, hooks: &[Hook], state: &[u8], init: Option<&OwnedFd>) -> Result<()> {
    if !hooks.is_empty() && stage != START_CONTAINER {
        // What the caller leaked into this process stays here.
        process::cloexec_from(3).doing(|| "closing the caller's descriptors to hooks")?;
    }
    for (at, hook) in hooks.iter().enumerate() {
        run_one(hook, state, init).map_err(|err| {
            err.context(format_args!("error running {stage} hook #{at}: {}", hook.path.display()))
        })?;
    }
    Ok(())
}

/// Runs the `poststop` hooks of a container that is gone.
///
/// A failing one keeps neither the later ones nor the caller (runtime.md, lifecycle, step 13).
pub fn run_poststop(hooks: &[Hook], state: &State) {
    let text = report::for_hooks(state, 0, "stopped");
    for hook in hooks {
        if let Err(err) = run("poststop", std::slice::from_ref(hook), &text) {
            warn(err.to_string());
        }
    }
}

fn run_one(hook: &Hook, state: &[u8], init: Option<&OwnedFd>) -> Result<()> {
    // Files in memory rather than pipes: a hook that reads nothing, or leaves a child with its
    // output open, can block nobody.
    let mut input = File::from(memfd_create(c"state", MFdFlags::MFD_CLOEXEC).doing(|| "making its stdin")?);
    input.write_all(state).and_then(|()| input.rewind()).doing(|| "writing its stdin")?;
    let mut output =
        File::from(memfd_create(c"output", MFdFlags::MFD_CLOEXEC).doing(|| "making its stdout")?);
    let clone = |file: &File| file.try_clone().map(Stdio::from).doing(|| "making its stdout");

    let mut command = Command::new(&hook.path);
    if let Some((arg0, rest)) = hook.args.split_first() {
        command.arg0(arg0).args(rest);
    }
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    command.stdin(Stdio::from(input)).stdout(clone(&output)?).stderr(clone(&output)?);
    let mut child = command.spawn().doing(|| "starting it")?;

    let seconds = hook.timeout.filter(|seconds| *seconds > 0);
    if seconds.is_some() || init.is_some() {
        let limit = seconds.map(|seconds| Duration::from_secs(seconds as u64));
        let why = match await_end(child.id() as i32, limit, init).doing(|| "waiting for it")? {
            End::Own => None,
            End::Time => Some(format!("it did not end within {} s", seconds.unwrap_or_default())),
            End::Init => Some("the container's init ended meanwhile".to_owned()),
        };
        if let Some(why) = why {
            child.kill().and_then(|()| child.wait()).doing(|| "killing it")?;
            return Err(Error::new(Kind::System, format!("{why}, and it was killed")));
        }
    }
    let status = child.wait().doing(|| "waiting for it")?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(libc::SIGSYS)) => {
            "killed by SIGSYS (bad system call): linux.seccomp holds for it too".into()
        }
        (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
    };
    let mut said = Vec::new();
    let _ = output.rewind().and_then(|()| output.take(QUOTED).read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    Err(Error::new(Kind::System, if said.is_empty() { how } else { format!("{how}, output: {said}") }))
}

/// What ended the wait for a hook.
enum End {
    Own,
    Time,
    Init,
}

fn await_end(pid: i32, limit: Option<Duration>, init: Option<&OwnedFd>) -> nix::Result<End> {
    let pidfd = pidfd_open(pid)?;
    let end = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up: less than a millisecond left must not become a busy loop.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(init.map(|init| PollFd::new(init.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(End::Time),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) if fds[0].any() == Some(true) => return Ok(End::Own),
            Ok(_) => return Ok(End::Init),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: vec!["PATH=/usr/bin:/bin".into(), "A=b".into()], timeout }
    }

    #[test]
    fn state_env_and_order() {
        let out = std::env::temp_dir().join(format!("locule-hook-{}", std::process::id()));
        let file = out.display();
        run("poststop", &[sh(&format!("cat > {file}; echo $A$HOME >> {file}"), None)], b"{\"x\":1}").unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "{\"x\":1}b\n", "only the hook's own environment");
        std::fs::remove_file(out).unwrap();
    }

    #[test]
    fn failure_quotes_the_output() {
        let err =
            run("prestart", &[sh("true", None), sh("echo bad news >&2; exit 3", None)], b"{}").unwrap_err();
        assert_eq!(
            err.to_string(),
            "error running prestart hook #1: /bin/sh: exit status 3, output: bad news"
        );
    }

    #[test]
    fn time_is_limited() {
        let err = run("prestart", &[sh("sleep 60", Some(1))], b"{}").unwrap_err();
        assert!(err.to_string().contains("within 1 s"), "{err}");
    }
}
