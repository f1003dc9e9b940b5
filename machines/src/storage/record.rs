//! What a machine's storage remembers of itself, in `storage.json` of its directory.
//!
//! Owns that file and the way in which small files are written whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use locule_images::Digest;
use locule_images::manifest::Run;
use locule_images::store::Record as Image;
use serde::{Deserialize, Serialize};

use crate::definition::DiskKind;
use crate::{Context, Result};

/// The file's name.
pub const FILE: &str = "storage.json";

/// What a root file system was made as.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// How it is kept.
    pub kind: DiskKind,
    /// The name of the image that it was made from.
    pub image: String,
    /// That image; none for `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Image>,
    /// The layers of that image, lowest first; none for `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<Digest>>,
    /// How the image is to be run: it may be gone from the store, its layers are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The project that its files belong to, where their file system knows projects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
}

impl Record {
    /// Reads the one in `root`.
    pub fn read(root: &Path) -> Result<Record> {
        let path = root.join(FILE);
        let doing = || format!("reading {}", path.display());
        let bytes = fs::read(&path).doing(doing)?;
        serde_json::from_slice(&bytes).doing(doing)
    }

    /// Writes it into `root`.
    pub fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(FILE);
        let text = serde_json::to_vec_pretty(self).doing(|| format!("writing {}", path.display()))?;
        write_whole(&path, &text)
    }
}

/// Writes a file under another name, brings it to the disk and renames it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let written = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(part, path))
        .doing(doing);
    if written.is_err() {
        let _ = fs::remove_file(part);
    }
    written?;
    sync_dir(path.parent().unwrap_or(path))
}

/// Brings a directory's names to the disk.
pub fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .doing(|| format!("writing the directory {}", path.display()))
}
