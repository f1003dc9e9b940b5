//! Unpacking on the real kernel: what a layer makes, and what it must never reach.
//!
//! Every test has a canary tree beside the directory that is unpacked into; it must be untouched.
#![allow(missing_docs, clippy::unwrap_used, clippy::new_without_default, reason = "a test")]

mod attacks;
mod layers;
mod random;
mod tarball;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use locule_images::unpack::{Options, unpack};

/// A place to unpack in, with canaries around it.
pub struct Place {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, String>,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("dir/deep")).unwrap();
        fs::write(outside.join("file"), "canary").unwrap();
        fs::write(outside.join("dir/file"), "canary").unwrap();
        fs::set_permissions(outside.join("dir"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("dir/file", outside.join("link")).unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let before = snapshot(&outside);
        Place { dir, before }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// The canaries' directory, as an absolute path for links.
    pub fn outside(&self) -> String {
        self.dir.path().join("outside").to_str().unwrap().to_owned()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub fn unpack_with(&self, archive: &[u8], options: &Options) -> Result<(), String> {
        self.unpack_over(archive, &[], options)
    }

    pub fn unpack_over(&self, archive: &[u8], below: &[&Path], options: &Options) -> Result<(), String> {
        let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        let below: Vec<OwnedFd> = below.iter().map(|path| open(path)).collect();
        let result = unpack(archive, open(&self.root()), options)
            .and_then(|(found, _)| found.finish(open(&self.root()), &below, options));
        self.check();
        result.map_err(|err| err.to_string())
    }

    #[track_caller]
    pub fn unpack(&self, archive: &[u8]) {
        self.unpack_with(archive, &Options::here()).unwrap();
    }

    #[track_caller]
    pub fn refuse(&self, archive: &[u8], words: &str) {
        let told = self.unpack_with(archive, &Options::here()).unwrap_err();
        assert!(told.contains(words), "{told}");
    }

    /// Fails if anything outside the root changed.
    #[track_caller]
    pub fn check(&self) {
        assert_eq!(snapshot(&self.dir.path().join("outside")), self.before, "something outside was touched");
        let mut names: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["outside", "root"], "something was made outside");
    }
}

/// Everything about a tree that an escape could change.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut ahead = vec![dir.to_owned()];
    while let Some(path) = ahead.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let told = format!(
            "{:o} {} {} {} {}.{} {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec(),
            content
        );
        if meta.is_dir() {
            ahead.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        seen.insert(path, told);
    }
    seen
}
