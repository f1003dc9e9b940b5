//! The root file system of a machine, as the life cycle needs it.
//!
//! Owns where it is mounted. How it is kept is the storage's affair.

use std::path::PathBuf;

use locule_images::host;
use locule_images::manifest::Run;
use locule_images::rootfs::{self, Map, Mounted, Rootfs};

use crate::{Definition, Home, Machine, Result, lift};

/// Where the root file system is mounted while the machine runs.
pub fn place(machine: &Machine) -> PathBuf {
    machine.run().join("bundle/rootfs")
}

fn kept(machine: &Machine) -> PathBuf {
    machine.dir().join("root")
}

/// Makes it; undone on failure.
pub fn create(home: &Home, machine: &Machine, definition: &Definition, map: Option<Map>) -> Result<()> {
    // What can fail is found by mounting it once.
    mount(home, machine, definition, map)?;
    unmount(home, machine)
}

/// What the image that it was made from says about running it.
pub fn config(home: &Home, machine: &Machine, image: &str) -> Result<Run> {
    let store = home.images()?;
    // The image's name may mean another one by now.
    let image = match Mounted::read(&kept(machine)).ok().and_then(|mounted| mounted.record) {
        Some(record) => store.read_image(&record),
        None if image == host::NAME => return Ok(Run::default()),
        None => store.find(image),
    };
    Ok(image.map_err(lift)?.config.config.unwrap_or_default())
}

/// Keeps the image's layers for `new`, which `old` is about to be called.
pub fn renaming(home: &Home, old: &Machine, new: &Machine) -> Result<()> {
    let store = home.images()?;
    if let Some(record) = Mounted::read(&kept(old)).ok().and_then(|mounted| mounted.record) {
        let image = store.read_image(&record).map_err(lift)?;
        store.pin(&kept(new), &image.config.rootfs.diff_ids).map_err(lift)?;
    }
    Ok(())
}

/// Lets those of `old` go.
pub fn renamed(home: &Home, old: &Machine) -> Result<()> {
    home.images()?.unpin(&kept(old)).map_err(lift)
}

/// Mounts it for a container with these ids.
pub fn mount(home: &Home, machine: &Machine, definition: &Definition, map: Option<Map>) -> Result<()> {
    let place = place(machine);
    unmount(home, machine)?;
    crate::lock::make_private(&place)?;
    let root = Rootfs {
        image: definition.image.clone(),
        state: kept(machine),
        map,
        read_only: definition.disk.read_only,
        inside: true,
    };
    root.mount(&home.images()?, &place).map_err(lift)
}

/// Unmounts it, if it is mounted.
pub fn unmount(home: &Home, machine: &Machine) -> Result<()> {
    let place = place(machine);
    loop {
        match rootfs::umount(&home.images()?, &place, &kept(machine), true) {
            Ok(()) => {}
            Err(_) if !place.exists() => return Ok(()),
            Err(err) if err.kind() == locule_images::Kind::NotFound => return Ok(()),
            Err(err) => return Err(lift(err)),
        }
    }
}

/// Removes it.
pub fn remove(home: &Home, machine: &Machine) -> Result<()> {
    unmount(home, machine)?;
    rootfs::remove(&home.images()?, &kept(machine)).map_err(lift)
}

/// Whether it is mounted.
pub fn is_mounted(machine: &Machine) -> bool {
    let place = place(machine);
    let device = |path: &std::path::Path| {
        std::fs::metadata(path).ok().map(|meta| std::os::unix::fs::MetadataExt::dev(&meta))
    };
    place.parent().is_some_and(|parent| device(&place).is_some() && device(&place) != device(parent))
}
