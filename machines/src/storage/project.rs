//! Projects: who owns which project id, and how much a project may use.
//!
//! Owns the claims in `DATA/claims/projid` and the words that say why a file system has no limits. A claim is a
//! file that names its machine; one whose machine knows nothing of it is free again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::fstatfs;

use super::record::Record;
use crate::definition::Disk;
use crate::sys::files;
use crate::sys::quota::{self, Quota};
use crate::{Context, Error, Kind, Result};

/// The first id: far above those that people write into /etc/projid.
const FIRST: u32 = 0x4c00_0000;
/// How many ids there are to choose from.
const COUNT: u32 = 0x0100_0000;

const EXT4: i64 = 0xef53;
const XFS: i64 = 0x5846_5342;

/// An id that is claimed; held until the machine's own record names it.
#[derive(Debug)]
pub struct Claim {
    /// The id.
    pub id: u32,
    path: PathBuf,
    _held: Flock<File>,
}

impl Claim {
    /// Claims an id for the machine's directory `dir`, below `DATA/machines`.
    pub fn take(dir: &Path) -> Result<Claim> {
        let claims = place(dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&claims)
            .doing(|| format!("making {}", claims.display()))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let mut number = hash(&name);
        for _ in 0..COUNT {
            let id = FIRST + number % COUNT;
            number = number.wrapping_add(1);
            if let Some(claim) = try_take(&claims, dir, id)? {
                return Ok(claim);
            }
        }
        Err(Error::new(Kind::System, "every project id of locule's is taken"))
    }

    /// Gives it back.
    pub fn release(self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn place(dir: &Path) -> PathBuf {
    let data = dir.parent().and_then(Path::parent).unwrap_or(dir);
    data.join("claims").join("projid")
}

/// FNV-1a: the same name finds the same id again.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn try_take(claims: &Path, dir: &Path, id: u32) -> Result<Option<Claim>> {
    let path = claims.join(id.to_string());
    let doing = || format!("claiming the project id {id} by {}", path.display());
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .doing(doing)?;
    // Whoever holds it is about to record it.
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno).doing(doing),
    };
    let mut owner = String::new();
    file.read_to_string(&mut owner).doing(doing)?;
    if !owner.is_empty() {
        let owner = Path::new(&owner);
        // The machine may stand in a directory that is about to get its name.
        let has = |dir: &Path| Record::read(&dir.join("root")).is_ok_and(|record| record.project == Some(id));
        if has(owner) || anybody(dir, &has) {
            return Ok(None);
        }
    }
    // Removed between opening and locking: somebody else may have made another one.
    use std::os::unix::fs::MetadataExt;
    let same = fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()));
    if !same {
        return Ok(None);
    }
    let name = dir.to_string_lossy();
    file.set_len(0)
        .and_then(|()| std::io::Seek::rewind(&mut *file))
        .and_then(|()| file.write_all(name.as_bytes()))
        .and_then(|()| file.sync_all())
        .doing(doing)?;
    Ok(Some(Claim { id, path, _held: file }))
}

/// Whether any machine beside `dir` has it: a machine may have been renamed after it was written down.
fn anybody(dir: &Path, has: &impl Fn(&Path) -> bool) -> bool {
    let machines = dir.parent().and_then(|machines| fs::read_dir(machines).ok());
    machines.into_iter().flatten().flatten().any(|machine| has(&machine.path()))
}

/// Gives back the id `id` of the machine's directory `dir`, unless it is another's by now.
pub fn release(dir: &Path, id: u32) {
    let path = place(dir).join(id.to_string());
    if fs::read_to_string(&path).is_ok_and(|owner| Path::new(&owner) == dir) {
        let _ = fs::remove_file(path);
    }
}

/// The machine that was in `old` is in `dir` now.
pub fn moved(dir: &Path, id: u32) -> Result<()> {
    let path = place(dir).join(id.to_string());
    super::record::write_whole(&path, dir.to_string_lossy().as_bytes())
}

/// Gives the new directory `root` to a project where its file system knows them.
pub fn adopt(dir: &Path, root: impl AsFd) -> Result<Option<Claim>> {
    if files::project(&root).is_err() {
        return Ok(None);
    }
    let claim = Claim::take(dir)?;
    match files::set_project(&root, claim.id) {
        Ok(()) => Ok(Some(claim)),
        // ext4 without the feature, and file systems that have flags but no projects.
        Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOTTY | Errno::EPERM | Errno::ENOSYS) => {
            claim.release();
            Ok(None)
        }
        Err(errno) => {
            let doing = format!("giving {} to the project {}", dir.display(), claim.id);
            claim.release();
            Err(errno).doing(|| doing)
        }
    }
}

/// Puts the limits of `disk` in force for what is in `root`, and looks whether the kernel took them.
pub fn limit(dir: &Path, root: impl AsFd, project: Option<u32>, disk: &Disk) -> Result<()> {
    let wanted = disk.size.is_some() || disk.inodes.is_some();
    let Some(project) = project else {
        return if wanted { Err(lacking(dir, &root)) } else { Ok(()) };
    };
    let (bytes, inodes) = (disk.size.map_or(0, |size| size.0), disk.inodes.unwrap_or(0));
    match quota::set(&root, project, bytes, inodes) {
        Ok(()) => {}
        Err(_) if !wanted => return Ok(()),
        Err(Errno::ESRCH | Errno::ENOSYS | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOTTY) => {
            return Err(lacking(dir, &root));
        }
        Err(errno) => return Err(errno).doing(|| format!("limiting the disk of {}", dir.display())),
    }
    if !wanted {
        return Ok(());
    }
    let taken = quota::get(&root, project).doing(|| format!("reading the quota of {}", dir.display()))?;
    // A limit that is only counted, not enforced, does not show in statfs(2).
    let shown = fstatfs(&root).doing(|| format!("looking at {}", dir.display()))?;
    let size = shown.blocks().saturating_mul(shown.block_size() as u64);
    let rounding = shown.block_size() as u64 + 1024;
    let bytes_hold = bytes == 0 || (taken.most_bytes >= bytes && size <= bytes + rounding);
    let inodes_hold = inodes == 0 || (taken.most_inodes == inodes && shown.files() <= inodes);
    if bytes_hold && inodes_hold { Ok(()) } else { Err(lacking(dir, &root)) }
}

/// What the project uses and may use, where its file system counts.
pub fn usage(root: impl AsFd, project: u32) -> Option<Quota> {
    quota::get(root, project).ok()
}

/// Why there are no limits, and what to do.
fn lacking(dir: &Path, root: impl AsFd) -> Error {
    let kind = fstatfs(&root).map_or(0, |fs| fs.filesystem_type().0);
    let hint = match kind {
        EXT4 => {
            "run tune2fs -O project,quota on the unmounted device and mount it with -o prjquota, or choose the \
             storage kind disk"
        }
        XFS => {
            "mount it with -o pquota (for a root file system rootflags=pquota on the kernel's command line), or \
             choose the storage kind disk"
        }
        _ => "ext4 and XFS have them; or choose the storage kind disk",
    };
    let word = match kind {
        EXT4 => "ext4",
        XFS => "XFS",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "ZFS",
        _ => "its file system",
    };
    Error::unsupported(format!(
        "limiting the disk of {}: the {word} that it lies on does not enforce project quotas",
        dir.display()
    ))
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_claimed_once_and_found_again() {
        let data = tempfile::tempdir().unwrap();
        let dir = |name: &str| data.path().join("machines").join(name);
        let web = Claim::take(&dir("web1")).unwrap();
        let id = web.id;
        assert!((FIRST..FIRST + COUNT).contains(&id));
        // Another machine whose name leads to the same place gets the next one while it is held.
        assert!(try_take(&place(&dir("x")), &dir("x"), id).unwrap().is_none());
        drop(web);
        // Nobody recorded it: free again.
        assert_eq!(try_take(&place(&dir("x")), &dir("x"), id).unwrap().unwrap().id, id);
        // Recorded: taken, also by name.
        let root = dir("x").join("root");
        fs::create_dir_all(&root).unwrap();
        let record = Record {
            kind: Default::default(),
            image: "host".into(),
            record: None,
            layers: None,
            run: None,
            project: Some(id),
        };
        record.write(&root).unwrap();
        assert!(try_take(&place(&dir("y")), &dir("y"), id).unwrap().is_none());
        release(&dir("y"), id);
        assert!(place(&dir("x")).join(id.to_string()).exists());
        release(&dir("x"), id);
        assert!(!place(&dir("x")).join(id.to_string()).exists());
    }
}
