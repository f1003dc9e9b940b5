//! What a crash left of machines, put right.
//!
//! Owns no knowledge of its own: each part's owner tells what is left of it, and takes it away.

use locule_runtime::Status as ContainerStatus;

use crate::keeper::record::Keeper;
use crate::life::{self, Status};
use crate::{Error, Home, Machine, Result, claims, copies, lift};

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    /// A line for each act.
    pub lines: Vec<String>,
    /// The first failure; everything else was done all the same.
    pub failure: Option<Error>,
}

/// Puts all machines right.
pub fn all(home: &Home) -> Result<Done> {
    let mut done = Done::default();
    for name in claims::names(&home.machines())? {
        let Ok(machine) = home.machine(&name) else { continue };
        match one(home, &machine) {
            Ok(lines) => done.lines.extend(lines),
            Err(err) => match done.failure {
                None => done.failure = Some(err),
                Some(_) => locule_runtime::warn::warn(err.to_string()),
            },
        }
    }
    for name in claims::names(&home.run().join(".machines"))? {
        let Ok(machine) = home.machine(&name) else { continue };
        if machine.dir().exists() {
            continue;
        }
        let _lock = machine.lock("repair")?;
        if !machine.dir().exists() && life::container(home, &machine)?.is_none() {
            life::forget_run(&machine)?;
        }
    }
    done.lines
        .extend(claims::sweep(home)?.into_iter().map(|first| format!("freed the user ids from {first}")));
    if home.run().join(".networks").exists() {
        let collected = home.networks()?.gc().map_err(lift)?;
        done.lines.extend(told(&collected));
    }
    Ok(done)
}

fn told(collected: &locule_netns::Collected) -> Vec<String> {
    collected.containers.iter().map(|name| format!("{name}: took it off its networks")).collect()
}

fn one(home: &Home, machine: &Machine) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    if machine.exists() && copies::has_rests(machine) {
        let _lock = machine.lock("repair")?;
        // Whoever was at work and held the lock is done.
        if machine.exists() && copies::has_rests(machine) {
            copies::clear_rests(home, machine)?;
            if !copies::has_rests(machine) {
                lines.push(format!("{}: removed what an interrupted copy left", machine.name()));
            }
        }
    }
    if machine.exists() && Keeper::living(machine).is_some() {
        return Ok(lines);
    }
    if matches!(life::status(home, machine)?, Status::Running | Status::Paused) {
        crate::keeper::spawn(home, machine)?;
        lines.push(format!("{}: gave it a keeper", machine.name()));
        return Ok(lines);
    }
    let _lock = machine.lock("repair")?;
    if !machine.exists() {
        if machine.dir().exists() {
            life::scrap(home, machine)?;
            lines.push(format!("{}: removed what was left of it", machine.name()));
        }
        return Ok(lines);
    }
    // Since it was looked at without the lock it may have been started.
    if Keeper::living(machine).is_some() || !life::status(home, machine)?.is_down() {
        return Ok(lines);
    }
    let container = life::container(home, machine)?;
    let left = container.is_some_and(|container| {
        matches!(
            container.status(),
            Ok(ContainerStatus::Stopped | ContainerStatus::Created | ContainerStatus::Creating)
        )
    });
    let mounted = life::is_mounted(machine);
    life::clean(home, machine)?;
    life::forget_keeper(machine)?;
    if left || mounted {
        lines.push(format!("{}: cleaned up after its end", machine.name()));
    }
    Ok(lines)
}
