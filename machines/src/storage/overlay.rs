//! The kind `overlay`: the image's layers below, an own upper directory above, and a project around it.
//!
//! Owns what of a machine's `root` is its own data, and what is made anew whenever it is mounted.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use locule_images::rootfs::{Map, Rootfs};
use locule_images::{Digest, Store};

use super::copy::Copy;
use crate::{Context, Result, lift};

/// Mounts what is in `root` on `target`.
pub fn mount(
    root: &Path,
    images: &Store,
    image: &str,
    layers: Option<&[Digest]>,
    target: &Path,
    map: Option<Map>,
) -> Result<()> {
    let rootfs =
        Rootfs { image: image.to_owned(), state: root.to_owned(), map, read_only: false, inside: true };
    rootfs.mount_layers(images, layers, target).map_err(lift)
}

/// The directories that hold data, below a `root`: `upper`, and for the image `host` the skeleton and an upper
/// directory for each of its trees.
pub fn parts(root: &Path) -> Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    let mut look = |path: PathBuf| -> Result<()> {
        match fs::symlink_metadata(root.join(&path)) {
            Ok(meta) if meta.is_dir() => parts.push(path),
            Ok(_) => {}
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err).doing(|| format!("looking at {}", root.join(&path).display())),
        }
        Ok(())
    };
    look("skeleton".into())?;
    look("upper".into())?;
    let trees = root.join("trees");
    match fs::read_dir(&trees) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.doing(|| format!("listing {}", trees.display()))?;
                look(Path::new("trees").join(entry.file_name()).join("upper"))?;
            }
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
        Err(err) => return Err(err).doing(|| format!("listing {}", trees.display())),
    }
    parts.sort();
    Ok(parts)
}

/// Copies the data of the overlay in `from` into the directory `to`.
pub fn copy(from: &Path, to: &Path, copy: &mut Copy<'_>) -> Result<()> {
    for part in parts(from)? {
        let (source, target) = (from.join(&part), to.join(&part));
        fs::create_dir_all(&target).doing(|| format!("making {}", target.display()))?;
        let open =
            |path: &Path| File::open(path).map(OwnedFd::from).doing(|| format!("opening {}", path.display()));
        copy.tree(open(&source)?.as_fd(), open(&target)?.as_fd())
            .map_err(|err| err.context(format!("copying {}", source.display())))?;
    }
    Ok(())
}
