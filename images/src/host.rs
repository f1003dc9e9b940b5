//! The built-in image `host`: this machine's own system, without what makes it this machine.
//!
//! Owns the decision what is shared, what is copied and what is hidden. Programs and libraries
//! (`/usr` and, where they are no links into it, `/bin`, `/lib*`, `/sbin`) are shared read-only;
//! `/etc` is copied without secrets; everything else begins empty. Nothing is downloaded.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Kind, Result};

/// The image's name.
pub const NAME: &str = "host";

/// Directories of the system that are shared, where they are directories.
const SHARED: &[&str] =
    &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "var/lib/dpkg", "var/lib/rpm"];

/// Directories that every system has, with their modes.
const EMPTY: &[(&str, u32)] = &[
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/cache/apt", 0o755),
    ("var/cache/apt/archives", 0o755),
    ("var/cache/apt/archives/partial", 0o700),
    ("var/lib", 0o755),
    ("var/lib/apt", 0o755),
    ("var/lib/apt/lists", 0o755),
    ("var/lib/apt/lists/partial", 0o700),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o775),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// What in /etc is this machine's alone though everybody may read it. What not everybody may read
/// is left out without being named: keys, shadow, credentials, whatever a program keeps there.
const HIDDEN: &[&str] = &[
    "adjtime",
    "ceph",
    "containers",
    "credstore",
    "credstore.encrypted",
    "crypttab",
    "docker",
    "fstab",
    "group-",
    "hostid",
    "hostname",
    "hosts",
    "iscsi",
    "krb5.keytab",
    "kubernetes",
    "letsencrypt",
    "locule",
    "machine-id",
    "machine-info",
    "mtab",
    "netplan",
    "network/interfaces",
    "network/interfaces.d",
    "NetworkManager/system-connections",
    "passwd-",
    "rancher",
    "resolv.conf",
    "ssl/private",
    "subgid",
    "subgid-",
    "subuid",
    "subuid-",
    "systemd/network",
    "udev/rules.d/70-persistent-net.rules",
    "wireguard",
];

/// The deepest that /etc is followed.
const DEEPEST: usize = 32;

/// What the system at a root consists of.
#[derive(Debug, Clone)]
pub struct System {
    root: PathBuf,
    /// Directories that are shared, without a leading slash.
    pub trees: Vec<String>,
    /// Links in the root directory (`bin` to `usr/bin`): name and target.
    links: Vec<(String, PathBuf)>,
}

impl System {
    /// Looks at the system at `root`.
    pub fn of(root: &Path) -> System {
        let mut system = System { root: root.to_owned(), trees: Vec::new(), links: Vec::new() };
        for name in SHARED {
            let path = root.join(name);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => system.trees.push((*name).to_owned()),
                Ok(meta) if meta.is_symlink() => {
                    system.links.extend(fs::read_link(&path).ok().map(|target| ((*name).to_owned(), target)));
                }
                _ => {}
            }
        }
        system
    }

    /// Writes everything that is not shared into the new directory `dir`.
    pub fn make_skeleton(&self, dir: &Path) -> Result<()> {
        let doing = || format!("copying the host's configuration to {}", dir.display());
        let parent = dir.parent().ok_or_else(|| Error::invalid("a directory without a name"))?;
        // Under another name first: a skeleton that is there is whole.
        let part = parent.join("skeleton.part");
        let name = std::ffi::OsStr::new("skeleton.part");
        let open = File::open(parent).doing(doing)?;
        crate::unpack::tree::remove_all(
            std::os::fd::AsFd::as_fd(&open),
            std::os::unix::ffi::OsStrExt::as_bytes(name),
            0,
        )
        .doing(doing)?;
        make(&part, 0o755).doing(doing)?;
        for (name, mode) in EMPTY {
            make(&part.join(name), *mode).doing(doing)?;
        }
        for tree in &self.trees {
            DirBuilder::new().recursive(true).mode(0o755).create(part.join(tree)).doing(doing)?;
        }
        for (name, target) in &self.links {
            symlink(target, part.join(name)).doing(doing)?;
        }
        symlink("/run", part.join("var/run")).doing(doing)?;
        symlink("/run/lock", part.join("var/lock")).doing(doing)?;
        copy_etc(&self.root.join("etc"), &part.join("etc"), Path::new(""), 0)?;
        self.identity(&part).doing(doing)?;
        fs::rename(&part, dir).doing(doing)
    }

    /// What a machine of its own has in the place of the host's.
    fn identity(&self, part: &Path) -> std::io::Result<()> {
        // Empty: made at the first boot (machine-id(5)).
        write(&part.join("etc/machine-id"), "", 0o444)?;
        write(
            &part.join("etc/hosts"),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
            0o644,
        )?;
        write(&part.join("etc/hostname"), "localhost\n", 0o644)?;
        write(&part.join("etc/fstab"), "", 0o644)?;
        write(&part.join("etc/resolv.conf"), "", 0o644)?;
        symlink("../proc/self/mounts", part.join("etc/mtab"))?;
        // The users of the host without their passwords: nobody can log in with one.
        let locked = |from: &str, tail: &str| -> std::io::Result<String> {
            let users = fs::read_to_string(self.root.join(from)).unwrap_or_default();
            Ok(users
                .lines()
                .filter_map(|line| line.split(':').next())
                .filter(|name| !name.is_empty())
                .map(|name| format!("{name}:*{tail}\n"))
                .collect())
        };
        write(&part.join("etc/shadow"), &locked("etc/passwd", ":19000:0:99999:7:::")?, 0o640)?;
        write(&part.join("etc/gshadow"), &locked("etc/group", "::")?, 0o640)
    }
}

fn make(path: &Path, mode: u32) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn copy_etc(from: &Path, to: &Path, below: &Path, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::new(Kind::Unsupported, format!("{} lies too deep", from.display())));
    }
    let doing = || format!("reading {}", from.display());
    let owner = nix::unistd::geteuid().is_root();
    for entry in fs::read_dir(from).doing(doing)? {
        let entry = entry.doing(doing)?;
        let own = below.join(entry.file_name());
        let name = own.to_string_lossy();
        if HIDDEN.contains(&name.as_ref()) || name.starts_with("ssh/ssh_host_") {
            continue;
        }
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        // Host programs change /etc while it is read: what is gone is gone.
        let Ok(meta) = fs::symlink_metadata(&source) else { continue };
        let doing = || format!("copying {}", source.display());
        if meta.is_symlink() {
            let Ok(link) = fs::read_link(&source) else { continue };
            symlink(link, &target).doing(doing)?;
        } else if meta.is_dir() && meta.mode() & 0o005 == 0o005 {
            make(&target, 0o755).doing(doing)?;
            copy_etc(&source, &target, &own, depth + 1)?;
            fs::set_permissions(&target, meta.permissions()).doing(doing)?;
        } else if meta.is_file() && meta.mode() & 0o004 != 0 {
            match fs::copy(&source, &target) {
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => continue,
                other => drop(other.doing(doing)?),
            }
            File::options()
                .write(true)
                .open(&target)
                .and_then(|file| file.set_modified(meta.modified()?))
                .doing(doing)?;
        } else {
            continue;
        }
        if owner {
            let set = if meta.is_symlink() { lchown } else { chown };
            set(&target, Some(meta.uid()), Some(meta.gid())).doing(doing)?;
            if !meta.is_symlink() {
                // chown(2) takes set-id bits away.
                fs::set_permissions(&target, meta.permissions()).doing(doing)?;
            }
        }
    }
    Ok(())
}
