//! Machines made, removed and renamed.
//!
//! Owns the order that makes each whole or nothing: the definition comes last and goes first.

use std::fs;
use std::path::Path;
use std::time::Duration;

use locule_images::host;
use locule_images::rootfs::Map;
use nix::errno::Errno;

use super::{clean, container, is_alive, status, stop};
use crate::state::State;
use crate::{
    Context, Definition, Error, Home, Kind, Machine, Result, claims, events, file, lift, lock, root,
};

/// Makes a machine of its image.
pub fn create(home: &Home, name: &str, definition: &Definition, text: &str) -> Result<Machine> {
    make(home, name, "launch", definition, text, |machine, map| {
        check(home, definition)?;
        root::create(home, machine, definition, map)
    })
}

/// Makes a machine for the act `act`: its directory, its ids, by `fill` its root file system, and last its
/// definition, which makes it one.
pub fn make(
    home: &Home,
    name: &str,
    act: &str,
    definition: &Definition,
    text: &str,
    fill: impl FnOnce(&Machine, Option<Map>) -> Result<()>,
) -> Result<Machine> {
    let machine = home.machine(name)?;
    let _lock = machine.lock(act)?;
    if machine.exists() {
        return Err(Error::new(Kind::Exists, format!("there is a machine {name:?}"))
            .hint("choose another name, or remove it: locule rm"));
    }
    // A container that an engine made has the name as well.
    if container(home, &machine)?.is_some_and(|container| container.status().is_ok_and(is_alive)) {
        return Err(
            Error::new(Kind::Exists, format!("there is a container {name:?}")).hint("choose another name")
        );
    }
    // What does not go together is refused before anything is made.
    let sound =
        Definition::parse(text, Path::new(crate::definition::FILE)).and_then(|_| check(home, definition));
    if let Err(err) = sound.and_then(|()| scrap(home, &machine)) {
        if !machine.dir().exists() {
            let _ = fs::remove_dir_all(machine.run());
        }
        return Err(err);
    }
    let act = || {
        lock::make_private(machine.dir())?;
        let mut state = State::new()?;
        let map = match definition.privileged {
            true => None,
            false => Some(claims::take_ids(home, &machine, &mut state)?),
        };
        state.save(machine.dir())?;
        fill(&machine, map)?;
        file::write_whole(&machine.dir().join(crate::definition::FILE), text.as_bytes())?;
        crate::boot::enlist(home, &machine, definition)?;
        file::sync_dir(&home.machines())
    };
    match act() {
        Ok(()) => {
            events::tell(home.run(), name, "create", &[("image", definition.image.clone())]);
            Ok(machine)
        }
        Err(err) => {
            // Its own failure would hide the reason; the next call finds what is left.
            let _ = scrap(home, &machine);
            let _ = fs::remove_dir_all(machine.run());
            Err(err.context(format_args!("making machine {name}")))
        }
    }
}

/// Refuses a definition that could never start, before anything is made.
fn check(home: &Home, definition: &Definition) -> Result<()> {
    if definition.image.is_empty() {
        return Err(Error::invalid("image is missing: name one, or host"));
    }
    match definition.image.as_str() {
        host::NAME => Ok(()),
        image => home.images()?.find(image).map(drop).map_err(lift),
    }
}

/// Removes everything that a machine without a definition has.
pub fn scrap(home: &Home, machine: &Machine) -> Result<()> {
    if !machine.dir().exists() {
        return Ok(());
    }
    let map = State::load(machine.dir()).ok().and_then(|state| state.map);
    crate::keeper::unit::disable(machine)?;
    root::remove(home, machine)?;
    if let Some(map) = map {
        claims::release_ids(home, map)?;
    }
    let doing = || format!("removing {}", machine.dir().display());
    match fs::remove_dir_all(machine.dir()) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err).doing(doing),
        _ => {}
    }
    file::sync_dir(&home.machines())
}

/// Removes a machine with everything that it has; with `force` also one that runs.
pub fn remove(home: &Home, name: &str, force: bool) -> Result<()> {
    let machine = home.machine(name)?;
    if !machine.exists() && !machine.dir().exists() {
        return home.find(name).map(drop);
    }
    // A definition that cannot be read protects nothing, and must not be in the way of the machine's end.
    if machine.definition().is_ok_and(|definition| definition.protected) {
        return Err(Error::new(Kind::State, format!("machine {name} is protected"))
            .hint(format!("locule set {name} protected=off")));
    }
    if !status(home, &machine)?.is_down() {
        if !force {
            return Err(Error::new(
                Kind::State,
                format!("machine {name} is {}", status(home, &machine)?.word()),
            )
            .hint("stop it first, or use --force"));
        }
        stop(home, &machine, Some(Duration::ZERO))?;
    }
    let _lock = machine.lock("rm")?;
    if !status(home, &machine)?.is_down() {
        return Err(
            Error::new(Kind::State, format!("machine {name} was started meanwhile")).hint("stop it first")
        );
    }
    clean(home, &machine)?;
    // From here on it is no machine any more, whatever happens.
    file::remove(&machine.dir().join(crate::definition::FILE))?;
    scrap(home, &machine)?;
    events::tell(home.run(), name, "remove", &[]);
    // The lock's directory goes last; who waits for the lock then finds no machine.
    let _ = fs::remove_dir_all(machine.run());
    Ok(())
}

/// Gives a machine that does not run another name.
pub fn rename(home: &Home, old: &str, new: &str) -> Result<()> {
    let machine = home.find(old)?;
    let other = home.machine(new)?;
    // Both names are taken for the time, always in the same order.
    let (first, second) = if old < new { (&machine, &other) } else { (&other, &machine) };
    let _first = first.lock("rename")?;
    let _second = second.lock("rename")?;
    let taken = || {
        Error::new(Kind::Exists, format!("there is a machine or container {new:?}"))
            .hint("choose another name")
    };
    if other.exists() || container(home, &other)?.is_some() {
        return Err(taken());
    }
    if !status(home, &machine)?.is_down() {
        return Err(Error::new(Kind::State, format!("machine {old} runs")).hint("stop it first"));
    }
    clean(home, &machine)?;
    scrap(home, &other)?;
    root::renaming(home, &machine, &other)?;
    let disabled = crate::keeper::unit::is_disabled(&machine);
    if !disabled {
        crate::keeper::unit::disable(&machine)?;
    }
    let doing = || format!("renaming machine {old} to {new}");
    match nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        machine.dir(),
        nix::fcntl::AT_FDCWD,
        other.dir(),
        nix::fcntl::RenameFlags::RENAME_NOREPLACE,
    ) {
        Err(Errno::EEXIST) => return Err(taken()),
        done => done.doing(doing)?,
    }
    file::sync_dir(&home.machines())?;
    root::renamed(home, &machine, &other)?;
    claims::renamed(home, &other)?;
    if !disabled {
        crate::boot::enlist(home, &other, &other.definition()?)?;
    }
    let _ = fs::remove_dir_all(machine.run());
    Ok(())
}
