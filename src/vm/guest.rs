//! The program that runs as the first process of a machine: where it is found.

use std::fs::File;
use std::path::{Path, PathBuf};

use locule_runtime::error::Context;
use locule_runtime::{Error, Result};

/// Its name.
const NAME: &str = "locule-guest";
/// Where packages put it.
const PLACES: [&str; 3] = ["/usr/libexec/locule", "/usr/local/libexec/locule", "/usr/lib/locule"];

/// Opens it; it is found beside this program, or where packages put it.
pub fn open() -> Result<File> {
    let places = places();
    for place in &places {
        let path = place.join(NAME);
        match File::open(&path) {
            Ok(file) => return check(file, &path),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(err).doing(|| format!("opening {}", path.display())),
        }
    }
    let listed: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    Err(Error::unsupported(format!("{NAME}, the first program of a machine, is missing"))
        .hint(format!("install it in one of {}", listed.join(", "))))
}

/// Only its owner, who is root or the caller, may change what runs as root in every machine.
fn check(file: File, path: &Path) -> Result<File> {
    let meta = file.metadata().doing(|| format!("looking at {}", path.display()))?;
    if !meta.is_file() || !super::is_trusted(&meta) {
        return Err(Error::invalid(format!(
            "{} is not a file that only root and you may write",
            path.display()
        )));
    }
    Ok(file)
}

/// Where it is looked for.
pub fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(own) = own_directory() {
        places.push(own.clone());
        if let Some(parent) = own.parent() {
            places.push(parent.join("libexec/locule"));
        }
    }
    places.extend(PLACES.map(PathBuf::from));
    places.dedup();
    places
}

/// The directory that this program was called from. The kernel knows a sealed copy alone, which lies nowhere.
fn own_directory() -> Option<PathBuf> {
    let name = std::env::args_os().next()?;
    let name = Path::new(&name);
    let called = if name.components().count() > 1 {
        std::path::absolute(name).ok()?
    } else {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file())?
    };
    std::fs::canonicalize(called).ok()?.parent().map(Path::to_path_buf)
}
