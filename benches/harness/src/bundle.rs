//! For: the root file system and the bundles that every runtime gets, equal but for names.
//! Owns: their files, and the cgroup that all containers of a run are below.
//! Never: lets two runtimes share a bundle or a container's cgroup.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Where the containers' cgroups are, as a `cgroupsPath` and below the mounted hierarchy.
pub const CGROUP: &str = "/locule-bench";
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const TEMPLATE: &str = include_str!("../../config.json");

fn making<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> String {
    move |e| format!("making {}: {e}", path.display())
}

/// Makes `WORK/rootfs` out of a static busybox, and the common parent cgroup.
pub fn make_rootfs(work: &Path) -> Result<(), String> {
    let rootfs = rootfs(work);
    let _ = std::fs::remove_dir_all(work);
    for directory in ["bin", "proc", "dev", "sys"] {
        let path = rootfs.join(directory);
        std::fs::create_dir_all(&path).map_err(making(&path))?;
    }
    let busybox = rootfs.join("bin/busybox");
    std::fs::copy("/bin/busybox", &busybox)
        .map_err(|e| format!("copying /bin/busybox: {e}: install busybox-static"))?;
    std::fs::set_permissions(&busybox, std::fs::Permissions::from_mode(0o755)).map_err(making(&busybox))?;
    for name in ["true", "sleep", "sh"] {
        let link = rootfs.join("bin").join(name);
        symlink("busybox", &link).map_err(making(&link))?;
    }
    let parent = PathBuf::from(format!("{CGROUP_ROOT}{CGROUP}"));
    std::fs::create_dir_all(&parent).map_err(making(&parent))
}

/// The root file system that all bundles use.
pub fn rootfs(work: &Path) -> PathBuf {
    work.join("rootfs")
}

/// The directory of the cgroup called `name`.
pub fn cgroup_dir(name: &str) -> PathBuf {
    PathBuf::from(format!("{CGROUP_ROOT}{CGROUP}/{name}"))
}

/// Writes a bundle whose container runs `args` in the cgroup `name`, and returns its directory.
pub fn make(work: &Path, name: &str, args: &[&str]) -> Result<PathBuf, String> {
    let directory = work.join("bundles").join(name);
    std::fs::create_dir_all(&directory).map_err(making(&directory))?;
    let config = TEMPLATE
        .replace("@ARGS@", &format!("{args:?}"))
        .replace("@ROOTFS@", &format!("{:?}", rootfs(work)))
        .replace("@CGROUP@", &format!("{:?}", format!("{CGROUP}/{name}")));
    let path = directory.join("config.json");
    std::fs::write(&path, config).map_err(making(&path))?;
    Ok(directory)
}

/// Kills what is left in the cgroup called `name`.
pub fn kill(name: &str) {
    let _ = std::fs::write(cgroup_dir(name).join("cgroup.kill"), "1");
}

/// Removes every cgroup of this run, deepest first.
pub fn remove_cgroups() {
    fn remove(directory: &Path) {
        if let Ok(entries) = std::fs::read_dir(directory) {
            entries.flatten().filter(|e| e.path().is_dir()).for_each(|e| remove(&e.path()));
        }
        let _ = std::fs::remove_dir(directory);
    }
    remove(Path::new(&format!("{CGROUP_ROOT}{CGROUP}")));
}
