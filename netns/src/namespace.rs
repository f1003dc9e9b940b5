//! Network namespaces that outlive processes: made, bound to a file, opened, removed.
//!
//! Owns the files of one directory. The calling thread enters the new namespace and comes back; no process or thread
//! is started.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Context, Error, Result};
use crate::sys::{file, proc};

/// Namespaces bound to files of a directory.
#[derive(Debug, Clone)]
pub struct Namespaces {
    dir: PathBuf,
}

impl Namespaces {
    /// Those in `dir`.
    pub fn new(dir: &Path) -> Namespaces {
        Namespaces { dir: dir.to_owned() }
    }

    /// The file of the namespace called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes a namespace, with loopback up, and binds it to the file `name`; one of that name must not be there.
    ///
    /// The caller must have one thread only, or accept that just this one moves. If it cannot come back, the error
    /// says so and the caller must end.
    pub fn make(&self, name: &str) -> Result<File> {
        crate::network::check_name(name)?;
        file::make_dir(&self.dir)?;
        let path = self.path(name);
        let doing = || format!("making the network namespace {}", path.display());
        if !file::claim(&path, b"")? {
            // An empty file without a namespace on it was left by a call that was killed.
            if is_namespace(&path)? {
                return Err(Error::taken(format!("the network namespace {} exists", path.display())));
            }
        }
        let home = proc::own_namespace()?;
        unshare(CloneFlags::CLONE_NEWNET).doing(doing)?;
        let bound =
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>);
        // Back home first, whatever became of the mount.
        setns(&home, CloneFlags::CLONE_NEWNET)
            .doing(|| "coming back from a new network namespace".to_owned())
            .map_err(|err| err.hint("the process is in the wrong place and must end"))?;
        if let Err(errno) = bound {
            file::remove(&path)?;
            return Err(Error::sys(errno, doing()));
        }
        let namespace = self.open(name)?;
        crate::wire::loopback(&namespace, &home)?;
        Ok(namespace)
    }

    /// Opens a namespace.
    pub fn open(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        File::open(&path).doing(|| format!("opening the network namespace {}", path.display()))
    }

    /// Unbinds a namespace, which then ends with the last process in it; false if there was none.
    pub fn remove(&self, name: &str) -> Result<bool> {
        crate::network::check_name(name)?;
        let path = self.path(name);
        let doing = || format!("removing the network namespace {}", path.display());
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(Errno::ENOENT) => return Ok(false),
            Err(errno) => return Err(Error::sys(errno, doing())),
        }
        match fs::remove_file(&path) {
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).doing(doing),
        }
    }

    /// Names of all.
    pub fn names(&self) -> Result<Vec<String>> {
        file::names(&self.dir)
    }
}

/// Whether a namespace is bound to the file: it is then of another file system than its directory.
fn is_namespace(path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    let doing = || format!("looking at {}", path.display());
    Ok(device(path).doing(doing)? != device(path.parent().unwrap_or(path)).doing(doing)?)
}
