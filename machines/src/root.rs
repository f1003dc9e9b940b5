//! The root file system of a machine, as the life cycle needs it.
//!
//! Owns where it is mounted. How it is kept is the storage's affair.

use std::path::{Path, PathBuf};

use locule_images::Store;
use locule_images::manifest::Run;
use locule_images::rootfs::Map;

use crate::definition::{Disk, DiskKind};
use crate::storage::{self, Storage};
use crate::{Definition, Home, Machine, Result};

/// Where the root file system is mounted while the machine runs.
pub fn place(machine: &Machine) -> PathBuf {
    machine.run().join("bundle/rootfs")
}

/// The machine's storage.
pub fn storage<'a>(machine: &Machine, definition: &Definition, images: &'a Store) -> Result<Storage<'a>> {
    Storage::open(machine.dir(), &definition.disk, images)
}

/// The storage of a machine whose definition may be gone or wrong.
pub fn any<'a>(dir: &Path, images: &'a Store) -> Result<Storage<'a>> {
    Storage::open(dir, &Disk::default(), images)
}

/// Makes it; undone on failure.
pub fn create(home: &Home, machine: &Machine, definition: &Definition, map: Option<Map>) -> Result<()> {
    let images = home.images()?;
    let storage = storage(machine, definition, &images)?;
    storage.create(&definition.image, map)?;
    if definition.disk.kind == DiskKind::Disk {
        return Ok(());
    }
    // What else can fail is found by mounting it once.
    let tried = mount(home, machine, definition, map).and_then(|()| unmount(machine));
    tried.inspect_err(|_| {
        let _ = unmount(machine);
        let _ = storage.remove();
    })
}

/// What the image that it was made from says about running it.
pub fn config(home: &Home, machine: &Machine) -> Result<Run> {
    Ok(any(machine.dir(), &home.images()?)?.record()?.run.unwrap_or_default())
}

/// Keeps the image's layers for `new`, which `old` is about to be called.
pub fn renaming(home: &Home, old: &Machine, new: &Machine) -> Result<()> {
    any(old.dir(), &home.images()?)?.renaming(new.dir())
}

/// Lets go what was kept for `old`, which is called `new` now.
pub fn renamed(home: &Home, old: &Machine, new: &Machine) -> Result<()> {
    any(new.dir(), &home.images()?)?.renamed(old.dir())
}

/// Mounts it for a container with these ids.
pub fn mount(home: &Home, machine: &Machine, definition: &Definition, map: Option<Map>) -> Result<()> {
    let place = place(machine);
    unmount(machine)?;
    crate::lock::make_private(&place)?;
    storage(machine, definition, &home.images()?)?.mount(&place, map)
}

/// Unmounts it, if it is mounted.
pub fn unmount(machine: &Machine) -> Result<()> {
    storage::unmount(&place(machine))
}

/// Removes it with its snapshots.
pub fn remove(home: &Home, machine: &Machine) -> Result<()> {
    unmount(machine)?;
    any(machine.dir(), &home.images()?)?.remove()
}

/// Whether it is mounted.
pub fn is_mounted(machine: &Machine) -> bool {
    let place = place(machine);
    let device = |path: &std::path::Path| {
        std::fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::dev(&meta))
    };
    place.parent().is_some_and(|parent| device(&place).is_some() && device(&place) != device(parent))
}
