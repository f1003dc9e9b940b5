//! The root file system of a machine, as the life cycle needs it.
//!
//! Owns where it is mounted. How it is kept is the storage's affair.

use std::path::PathBuf;

use locule_images::host;
use locule_images::manifest::Run;
use locule_images::rootfs::Map;

use crate::storage::Storage;
use crate::{Definition, Home, Machine, Result, lift};

/// Where the root file system is mounted while the machine runs.
pub fn place(machine: &Machine) -> PathBuf {
    machine.run().join("bundle/rootfs")
}

fn with<T>(
    home: &Home,
    machine: &Machine,
    definition: &Definition,
    act: impl FnOnce(&Storage<'_>) -> Result<T>,
) -> Result<T> {
    let images = home.images()?;
    act(&Storage::open(machine.dir(), &definition.disk, &images)?)
}

/// Makes it; undone on failure.
pub fn create(home: &Home, machine: &Machine, definition: &Definition, map: Option<Map>) -> Result<()> {
    with(home, machine, definition, |storage| storage.create(&definition.image, map))
}

/// What the image that it was made from says about running it.
pub fn config(home: &Home, machine: &Machine, definition: &Definition) -> Result<Run> {
    if let Ok(record) = with(home, machine, definition, |storage| storage.record()) {
        // The image's name may mean another one by now.
        return Ok(record.run.unwrap_or_default());
    }
    match definition.image.as_str() {
        host::NAME => Ok(Run::default()),
        name => Ok(home.images()?.find(name).map_err(lift)?.config.config.unwrap_or_default()),
    }
}

/// Follows another name of the machine's directory.
pub fn renamed(home: &Home, old: &Machine, new: &Machine, definition: &Definition) -> Result<()> {
    with(home, new, definition, |storage| storage.renamed())?;
    home.images()?.unpin(&old.dir().join(crate::storage::ROOT)).map_err(lift)
}

/// Mounts it for a container with these ids.
pub fn mount(home: &Home, machine: &Machine, definition: &Definition, map: Option<Map>) -> Result<()> {
    let place = place(machine);
    unmount(home, machine)?;
    crate::lock::make_private(&place)?;
    with(home, machine, definition, |storage| storage.mount(&place, map))
}

/// Unmounts it, if it is mounted.
pub fn unmount(home: &Home, machine: &Machine) -> Result<()> {
    with(home, machine, &Definition::default(), |storage| storage.unmount(&place(machine)))
}

/// Removes it with its snapshots.
pub fn remove(home: &Home, machine: &Machine) -> Result<()> {
    unmount(home, machine)?;
    with(home, machine, &Definition::default(), |storage| storage.remove())
}

/// Whether it is mounted.
pub fn is_mounted(machine: &Machine) -> bool {
    let place = place(machine);
    let device = |path: &std::path::Path| {
        std::fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::dev(&meta))
    };
    place.parent().is_some_and(|parent| device(&place).is_some() && device(&place) != device(parent))
}
