//! A worker: one act of the runtime in a process of its own, whose standard descriptors are the workload's.
//!
//! The outcome goes to the agent as one JSON text over a pipe, written before the worker ends: so whoever
//! sees an orphan of it can read the orphan's pid there.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use locule_channel::document::{Failure, FailureKind, Running};
use locule_runtime::cgroup::Manager;
use locule_runtime::error::{Context, Result};
use locule_runtime::isolation::Isolation;
use locule_runtime::isolation::control::TREES;
use locule_runtime::process::create::{CreateRequest, Then, make};
use locule_runtime::process::exec::{ExecRequest, exec};
use locule_runtime::process::seal::Seal;
use locule_runtime::spec::StringMap;
use locule_runtime::sys::process::{adopt, cloexec_from};
use locule_runtime::{Error, Kind, Store};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::{STATE, setup};

/// What a worker tells.
pub type Outcome = std::result::Result<Running, Failure>;

/// Does `act` and writes how it went to the inherited descriptor numbered `result`.
pub fn main(act: &str, result: &str, words: &[&str]) -> i32 {
    let Some(pipe) = result.parse().ok().filter(|number| *number > 2).and_then(adopt) else {
        eprintln!("locule-guest: no descriptor {result:?} to tell the outcome to");
        return 1;
    };
    let _ = cloexec_from(3);
    setup::usual_limits();
    let outcome: Outcome = match (act, words) {
        ("create", [id, bundle, console @ ..]) => create(id, bundle, console.first().copied()),
        ("start", [id]) => start(id),
        ("remove", [id, trees @ ..]) => remove(id, trees),
        ("exec", [id, file, cgroup, console @ ..]) => exec_in(id, file, cgroup, console.first().copied()),
        _ => Err(Error::invalid(format!("unknown act {act:?}"))),
    }
    .map_err(|err| failure(&err));
    let code = i32::from(outcome.is_err());
    tell(pipe, &outcome);
    code
}

fn tell(pipe: OwnedFd, outcome: &Outcome) {
    if let Ok(text) = serde_json::to_vec(outcome) {
        let _ = File::from(pipe).write_all(&text);
    }
}

/// An error of the runtime in the channel's form.
pub fn failure(err: &Error) -> Failure {
    let kind = match err.kind() {
        Kind::System => FailureKind::System,
        Kind::Invalid => FailureKind::Invalid,
        Kind::Unsupported => FailureKind::Unsupported,
        Kind::NotFound => FailureKind::NotFound,
        Kind::Exists => FailureKind::Exists,
        Kind::State => FailureKind::State,
        Kind::NotRunning => FailureKind::NotRunning,
        Kind::NotExecutable => FailureKind::NotExecutable,
        Kind::CommandNotFound => FailureKind::CommandNotFound,
    };
    Failure { kind, message: err.to_string() }
}

fn create(id: &str, bundle: &str, console: Option<&str>) -> Result<Running> {
    let store = Store::create_root(Path::new(STATE), false)?;
    let request = CreateRequest {
        id: id.to_owned(),
        bundle: PathBuf::from(bundle),
        pid_file: None,
        pidfd_socket: None,
        console_socket: console.map(PathBuf::from),
        preserved: Vec::new(),
        no_pivot: false,
        no_new_keyring: false,
        manager: Manager::Cgroupfs,
        rootless: false,
        isolation: Some(Isolation::Namespaces),
        machine: StringMap::new(),
        // The binary is on a file system that nobody in the machine can write.
        seal: Seal::default(),
    };
    let made = make(&store, request, Then::Wait, true)?;
    Ok(Running { pid: made.pid, warnings: made.warnings })
}

fn start(id: &str) -> Result<Running> {
    let container = Store::open(Path::new(STATE))?.load(id)?;
    container.start()?;
    let pid = container.state().init.as_ref().map_or(0, |init| init.pid);
    Ok(Running { pid, warnings: Vec::new() })
}

/// Ends a container and leaves nothing of it, so that the host can take away the `trees` that it shares for it.
fn remove(id: &str, trees: &[&str]) -> Result<Running> {
    if !id.is_empty() {
        locule_runtime::delete(&Store::open(Path::new(STATE))?, id, true)?;
    }
    for tree in trees {
        unmount(&format!("{TREES}/{tree}"))?;
    }
    Ok(Running::default())
}

/// Unmounts all that is mounted on `path`. umount2(2) looks a path up without the flag that would have the kernel mount
/// there what a share announces, so that this never makes what it is to undo.
fn unmount(path: &str) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Files, and directories that nobody visited, have nothing mounted.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno).doing(|| format!("unmounting {path}")),
        }
    }
}

fn exec_in(id: &str, file: &str, cgroup: &str, console: Option<&str>) -> Result<Running> {
    let act = || "reading the process to execute";
    let text = std::fs::read(file).doing(act)?;
    let process = serde_json::from_slice(&text).doing(act)?;
    let container = Store::open(Path::new(STATE))?.load(id)?;
    let request = ExecRequest {
        process,
        detach: true,
        pid_file: None,
        pidfd_socket: None,
        console_socket: console.map(PathBuf::from),
        preserved: Vec::new(),
        ignore_paused: true,
        cgroup: Some(cgroup.to_owned()).filter(|path| !path.is_empty()),
        seal: Seal::default(),
    };
    let done = exec(&container, request)?;
    Ok(Running { pid: done.pid, warnings: done.warnings })
}
