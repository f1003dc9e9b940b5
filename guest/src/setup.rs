//! The guest's own file systems: what a container's parent needs, around the trees that the host shares.
//!
//! The root that the kernel mounted is the host's read-only directory with `root`, `mounts`, `modules` and `containers`;
//! it has no place to mount on. So a tmpfs becomes the root, and those trees are attached in it.

use std::os::fd::OwnedFd;
use std::path::Path;

use locule_runtime::attrs::netdev;
use locule_runtime::error::{Context, Result};
use locule_runtime::sys::fs::{cstring, openat2};
use locule_runtime::sys::mount::{
    attach, attr, clone_tree, detached, fsconfig_create, fsconfig_flag, fsmount, fsopen,
};
use locule_runtime::sys::process::{dup_to, mknodat};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::mount::{MntFlags, umount2};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::makedev;

/// Whose process 1 this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A virtual machine's.
    Machine,
    /// A pid namespace's.
    Namespace,
}

/// Most descriptors of a workload that asks for no other number, as systemd has it for services.
const DESCRIPTORS: (u64, u64) = (1024, 524_288);

/// The cgroup of the guest's own process: one that has controllers for children takes no processes.
const OWN_CGROUP: &str = "/sys/fs/cgroup/locule-guest";

/// The shares that are attached in the new root, and whether there must be one.
const SHARES: [(&str, bool); 4] =
    [("root", true), ("mounts", false), ("modules", false), ("containers", false)];

/// The devices of a namespace's /dev; a machine has the kernel's own.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Makes the guest ready. What need not stop it is told in the answer.
pub fn run(place: Place) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    new_root()?;
    mount("proc", "/proc", &[], attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    devices(place)?;
    standard_descriptors(place)?;
    mount("sysfs", "/sys", &[], attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    mount("tmpfs", "/run", &[("mode", "755")], attr::NOSUID | attr::NODEV)?;
    make_dir(crate::PLACE)?;
    if let Err(err) = cgroups() {
        warnings.push(format!("the guest has no cgroups: {err}"));
    }
    if let Err(err) = netdev::loopback_up() {
        warnings.push(err.to_string());
    }
    limits().unwrap_or_else(|err| warnings.push(err.to_string()));
    Ok(warnings)
}

fn make_dir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match std::fs::create_dir(path) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.doing(|| format!("making {}", path.display())),
    }
}

fn mount(kind: &str, target: &str, options: &[(&str, &str)], attrs: u64) -> Result<()> {
    let doing = || format!("mounting {kind} on {target}");
    make_dir(target)?;
    let owned: Vec<_> = options
        .iter()
        .map(|(key, value)| Ok((cstring(key)?, cstring(value)?)))
        .collect::<nix::Result<_>>()
        .doing(doing)?;
    let options: Vec<_> = owned.iter().map(|(key, value)| (key.as_c_str(), value.as_c_str())).collect();
    let made = detached(&cstring(kind).doing(doing)?, &options, attrs).doing(doing)?;
    let place = openat2(AT_FDCWD, target, OFlag::O_PATH, 0, 0).doing(doing)?;
    attach(made, place).doing(doing)
}

/// Makes a tmpfs the root, with the shares in it.
fn new_root() -> Result<()> {
    let doing = || "making the guest's root";
    let open = |path: &str| openat2(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0);
    let mut shares: Vec<(&str, OwnedFd)> = Vec::new();
    for (name, needed) in SHARES {
        match open(&format!("/{name}")) {
            Ok(dir) => shares.push((name, clone_tree(&dir, c"", true).doing(doing)?)),
            Err(Errno::ENOENT) if !needed => {}
            Err(errno) => return Err(errno).doing(|| format!("opening the share /{name} of the host")),
        }
    }
    let base = detached(c"tmpfs", &[(c"mode", c"755")], attr::NOSUID | attr::NODEV).doing(doing)?;
    attach(&base, open("/root").doing(doing)?).doing(doing)?;
    nix::unistd::fchdir(&base).doing(doing)?;
    for name in SHARES.map(|(name, _)| name).into_iter().chain(["tmp"]) {
        make_dir(name)?;
    }
    for (name, tree) in shares {
        let place = openat2(&base, name, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
        attach(tree, place).doing(doing)?;
    }
    nix::unistd::pivot_root(".", ".").doing(doing)?;
    umount2(".", MntFlags::MNT_DETACH).doing(doing)?;
    nix::unistd::chdir("/").doing(doing)
}

fn devices(place: Place) -> Result<()> {
    match place {
        Place::Machine => mount("devtmpfs", "/dev", &[("mode", "755")], attr::NOSUID | attr::NOEXEC)?,
        Place::Namespace => {
            mount("tmpfs", "/dev", &[("mode", "755")], attr::NOSUID | attr::NOEXEC)?;
            let dir = openat2(AT_FDCWD, "/dev", OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)
                .doing(|| "opening /dev")?;
            for (name, major, minor) in DEVICES {
                let doing = || format!("making /dev/{name}");
                let name = cstring(name).doing(doing)?;
                mknodat(&dir, &name, libc::S_IFCHR | 0o666, makedev(major, minor)).doing(doing)?;
            }
        }
    }
    mount("devpts", "/dev/pts", &[("ptmxmode", "0666"), ("mode", "0620")], attr::NOSUID | attr::NOEXEC)
}

/// Descriptors 0 to 2, which the kernel opens only where it finds a console.
fn standard_descriptors(place: Place) -> Result<()> {
    let doing = || "opening the guest's standard descriptors";
    let open = |path: &str, flags| openat2(AT_FDCWD, path, flags, 0, 0);
    let null = open("/dev/null", OFlag::O_RDWR).doing(doing)?;
    for number in 0..3 {
        if place == Place::Machine || locule_runtime::sys::process::adopt(number).map(keep).is_none() {
            dup_to(&null, number).doing(doing)?;
        }
    }
    if place == Place::Machine
        && let Ok(log) = open("/dev/kmsg", OFlag::O_WRONLY)
    {
        dup_to(&log, 2).doing(doing)?;
    }
    Ok(())
}

/// Leaves an adopted descriptor open.
fn keep(fd: OwnedFd) {
    use std::os::fd::IntoRawFd;
    let _ = fd.into_raw_fd();
}

/// The cgroup tree, with every controller for children of its root.
fn cgroups() -> Result<()> {
    let root = locule_runtime::cgroup::MOUNT;
    let doing = || format!("mounting cgroup2 on {root}");
    let target = openat2(AT_FDCWD, root, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
    let ctx = fsopen(c"cgroup2").doing(doing)?;
    // As systemd mounts it: protection of memory is shared out among children.
    let _ = fsconfig_flag(&ctx, c"memory_recursiveprot");
    fsconfig_create(&ctx).doing(doing)?;
    let tree = fsmount(&ctx, attr::NOSUID | attr::NODEV | attr::NOEXEC).doing(doing)?;
    attach(tree, target).doing(doing)?;
    make_dir(OWN_CGROUP)?;
    write(&format!("{OWN_CGROUP}/cgroup.procs"), "1")?;
    let controllers = std::fs::read_to_string(format!("{root}/cgroup.controllers"))
        .doing(|| "reading the guest's cgroup controllers")?;
    for controller in controllers.split_ascii_whitespace() {
        write(&format!("{root}/cgroup.subtree_control"), &format!("+{controller}"))?;
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Result<()> {
    std::fs::write(path, text).doing(|| format!("writing {text:?} to {path}"))
}

/// Lets this process have as many descriptors as there may be sessions.
fn limits() -> Result<()> {
    let doing = || "setting the guest's limit of descriptors";
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).doing(doing)?;
    let most = most.max(DESCRIPTORS.1);
    match setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        Err(Errno::EPERM) => {
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).doing(doing)?;
            setrlimit(Resource::RLIMIT_NOFILE, most, most).doing(doing)
        }
        other => other.doing(doing),
    }
}

/// Gives a worker, and so the workload, the usual limit of descriptors again.
pub fn usual_limits() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.0.min(most), DESCRIPTORS.1.min(most));
    }
}
