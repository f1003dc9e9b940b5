//! A machine in the foreground: the caller's own process keeps it, with the caller's terminal or streams.
//!
//! Owns the time from the machine's start to its end. Writes the same records as a keeper, so that others see it run.

use std::fs::OpenOptions;
use std::path::Path;

use locule_runtime::process::create::{Created, Then, make};
use locule_runtime::process::run::attend;
use locule_runtime::process::seal::Seal;
use locule_runtime::state::ProcessId;
use locule_runtime::sys::process;
use locule_runtime::{Container, Store, cgroup, time};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::record::{Ended, Keeper, Phase};
use crate::life::{self, Wishes};
use crate::visible::View;
use crate::{Context, Error, Home, Machine, Result, events};

/// Starts `machine`, serves it until its first process ends, and returns that one's exit code.
///
/// Without `interactive` it reads from nothing.
pub fn attached(home: &Home, machine: &Machine, interactive: bool, seal: Seal) -> Result<i32> {
    let now = || time::rfc3339(std::time::SystemTime::now());
    if !interactive {
        let null = OpenOptions::new().read(true).open("/dev/null").doing(|| "opening /dev/null")?;
        process::dup_to(&null, 0).doing(|| "leaving standard input")?;
    }
    process::set_subreaper().doing(|| "becoming the reaper of the machine's orphans")?;
    process::block_signals();
    let lock = machine.lock("start")?;
    let _keeper = super::lock(machine)?;
    if !life::status(home, machine)?.is_down() {
        return Err(Error::new(crate::Kind::State, format!("machine {} runs already", machine.name())));
    }
    life::forget_stop(machine)?;
    let definition = machine.definition()?;
    let mut keeper = Keeper {
        keeper: ProcessId::of(std::process::id() as i32)?,
        phase: Phase::Starting,
        since: now(),
        init: None,
        ready: false,
        health: None,
        restarts: 0,
        unit: None,
        failure: None,
        status: None,
    };
    keeper.write(machine.run())?;
    let wishes = Wishes { cgroup: super::cgroup_path(machine), ..Wishes::default() };
    let started = life::prepare(home, machine, &definition, wishes, seal).and_then(|prepared| {
        let created = make(&Store::open(home.run())?, prepared.request, Then::Wait, false)?;
        life::connect(home, machine, &definition, created.pid)?;
        created.container.start()?;
        Ok(created)
    });
    let Created { container, pid, pidfd, master, warnings, .. } = started.inspect_err(|_| {
        let _ = life::clean(home, machine);
        let _ = life::forget_keeper(machine);
    })?;
    locule_runtime::warn::warn_all(warnings);
    keeper.phase = Phase::Running;
    keeper.init = Some(pid);
    keeper.ready = true;
    keeper.write(machine.run())?;
    drop(lock);
    events::tell(home.run(), machine.name(), "start", &[("pid", pid.to_string())]);
    serve(machine, &container);
    let exit = attend(pid, &pidfd, master, None);
    let ended = Ended::new(exit.as_ref().ok().copied(), false, life::is_stop_asked(machine), now());
    let told = [("exit", ended.shell_code().to_string()), ("asked", ended.stopped.to_string())];
    events::tell(home.run(), machine.name(), "die", &told);
    life::clean(home, machine)?;
    ended.write(machine.run())?;
    life::forget_keeper(machine)?;
    exit.map(|_| ended.shell_code())
}

/// Has a thread serve the machine's own numbers until this process ends: nothing is cloned any more, and without it the
/// numbers would be those of the start.
fn serve(machine: &Machine, container: &Container) {
    let Some(record) = &container.state().cgroup else { return };
    let group = Path::new(cgroup::MOUNT).join(record.path.strip_prefix("/").unwrap_or(&record.path));
    let view =
        View::new(&machine.run().join(life::VIEW)).and_then(|mut view| view.begin(&group).map(|()| view));
    let mut view = match view {
        Ok(view) => view,
        Err(err) => return locule_runtime::warn::warn(err.to_string()),
    };
    std::thread::spawn(move || {
        loop {
            match poll(&mut [PollFd::new(view.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
                Ok(_) if view.serve().is_ok() => {}
                Err(Errno::EINTR) => {}
                // Nobody waits for a view that is gone.
                _ => return,
            }
        }
    });
}
