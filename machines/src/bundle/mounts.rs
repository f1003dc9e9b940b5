//! What is mounted in a machine: the kernel's file systems, directories of the host, what a system finds in /run/host.
//!
//! Owns the table of defaults. Everything else is asked for by the definition.

use std::path::{Path, PathBuf};

use locule_runtime::spec::Mount;
use nix::fcntl::OFlag;

use super::{Init, Input, Wiring};
use crate::{Error, Result};

/// Where a nested container finds a procfs and a sysfs without covers: while one is to be seen, the kernel lets a user
/// namespace inside mount another (mount_namespaces(7)).
const UNCOVERED: &str = "/dev/.locule";

/// All mounts, in order.
pub fn choose(input: &Input<'_>, init: &Init, wiring: Wiring) -> Result<Vec<Mount>> {
    let definition = input.definition;
    let system = init.kind.is_system();
    let free = definition.privileged;
    let mut mounts = vec![mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])];
    let sys: &[&str] = &["nosuid", "noexec", "nodev", "ro"];
    mounts.push(match wiring {
        Wiring::Own => mount("/sys", "sysfs", "sysfs", if free { &sys[..3] } else { sys }),
        // A sysfs shows the network of whoever mounts it, which this machine does not own.
        Wiring::Host if !free => mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
        Wiring::Host => mount("/sys", "sysfs", "sysfs", &sys[..3]),
    });
    let tree: &[&str] = &["nosuid", "noexec", "nodev", "ro"];
    let own_tree = system || definition.nesting || free;
    mounts.push(mount("/sys/fs/cgroup", "cgroup2", "cgroup2", if own_tree { &tree[..3] } else { tree }));
    mounts.push(mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64m"]));
    let mut pts: Vec<String> =
        ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"].map(String::from).into();
    pts.extend(definition.pids.ptys.map(|most| format!("max={most}")));
    mounts.push(Mount { options: pts, ..mount("/dev/pts", "devpts", "devpts", &[]) });
    mounts.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "nodev", "mode=1777"]));
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    if definition.nesting {
        mounts.push(mount(&format!("{UNCOVERED}/proc"), "proc", "proc", &["nosuid", "noexec", "nodev"]));
        if wiring == Wiring::Own {
            mounts.push(mount(&format!("{UNCOVERED}/sys"), "sysfs", "sysfs", &["nosuid", "noexec", "nodev"]));
        }
    }
    if system {
        mounts.push(mount("/run", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=755"]));
        mounts.push(mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "mode=1777"]));
        let host = input.bundle.join("host");
        mounts.push(bind("/run/host", host, &["rbind", "ro", "nosuid", "nodev", "noexec"]));
    }
    // Or a system would take the image's.
    mounts.push(bind("/etc/hostname", input.bundle.join("hostname"), &["bind", "ro"]));
    if let Some(hosts) = &input.names.hosts {
        mounts.push(bind("/etc/hosts", hosts.clone(), &["bind", "ro"]));
    }
    if let Some(resolv) = input.names.resolv.clone().filter(|_| !leads_away(input, "/etc/resolv.conf")) {
        mounts.push(bind("/etc/resolv.conf", resolv, &["bind", "ro"]));
    }
    for wanted in &definition.mounts {
        mounts.push(asked_for(wanted)?);
    }
    mounts.extend(input.extra.iter().cloned());
    Ok(mounts)
}

/// Whether the machine manages the file itself: it is a link into /run, where nothing is yet.
fn leads_away(input: &Input<'_>, path: &str) -> bool {
    let path = Path::new(path);
    let (Ok((dir, name)), Err(_)) = (input.root.parent(path), input.root.resolve(path, OFlag::empty()))
    else {
        return false;
    };
    nix::fcntl::readlinkat(&dir, &name).is_ok()
}

/// A mount of the definition.
pub fn asked_for(wanted: &crate::definition::Mount) -> Result<Mount> {
    let wrong = |what: String| Error::invalid(format!("mount on {:?}: {what}", wanted.target));
    if !wanted.target.starts_with('/') {
        return Err(wrong("the target is not an absolute path".into()));
    }
    let options: Vec<&str> = wanted.options.iter().map(String::as_str).collect();
    if wanted.source == "tmpfs" {
        let all = [&["nosuid", "nodev"], &options[..]].concat();
        return Ok(mount(&wanted.target, "tmpfs", "tmpfs", &all));
    }
    if !wanted.source.starts_with('/') {
        return Err(wrong(format!("the source {:?} is not an absolute path", wanted.source)));
    }
    let kind =
        if options.iter().any(|option| matches!(*option, "bind" | "rbind")) { None } else { Some("rbind") };
    let all: Vec<&str> = kind.into_iter().chain(options).collect();
    Ok(bind(&wanted.target, PathBuf::from(&wanted.source), &all))
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: target.into(),
        kind: Some(kind.to_owned()),
        source: Some(source.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

fn bind(target: &str, source: PathBuf, options: &[&str]) -> Mount {
    Mount { source: Some(source), ..mount(target, "none", "", options) }
}
