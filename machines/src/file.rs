//! Files that are there whole or not at all, also after a loss of power.
//!
//! Owns the way of writing what lives in the data directory.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Context, Error, Result};

/// Writes `bytes` to `path` (mode 0600) by way of a file beside it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid(format!("{}: not a file's name", doing())));
    };
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(".part");
    let part = dir.join(part);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    if let Err(err) = write() {
        let _ = fs::remove_file(&part);
        return Err(err).doing(doing);
    }
    sync_dir(dir)
}

/// Has the names of a directory on the disk.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).doing(|| format!("writing {}", dir.display()))
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(err).doing(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
