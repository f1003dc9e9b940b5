//! A machine in the foreground: the caller's own process keeps it, with the caller's terminal or streams.
//!
//! Owns the time from the machine's start to its end. Writes the same records as a keeper, so that others see it run.

use std::fs::OpenOptions;

use locule_runtime::process::create::{Created, Then, make};
use locule_runtime::process::run::attend;
use locule_runtime::process::seal::Seal;
use locule_runtime::state::ProcessId;
use locule_runtime::sys::process;
use locule_runtime::{Store, time};

use super::record::{Ended, Keeper, Phase};
use crate::life::{self, Wishes};
use crate::{Context, Error, Home, Machine, Result};

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
    let Created { pid, pidfd, master, warnings, .. } = started.inspect_err(|_| {
        let _ = life::clean(home, machine);
        let _ = life::forget_keeper(machine);
    })?;
    locule_runtime::warn::warn_all(warnings);
    keeper.phase = Phase::Running;
    keeper.init = Some(pid);
    keeper.ready = true;
    keeper.write(machine.run())?;
    drop(lock);
    let exit = attend(pid, &pidfd, master, None);
    let ended = Ended::new(exit.as_ref().ok().copied(), false, life::is_stop_asked(machine), now());
    life::clean(home, machine)?;
    ended.write(machine.run())?;
    life::forget_keeper(machine)?;
    exit.map(|_| ended.shell_code())
}
