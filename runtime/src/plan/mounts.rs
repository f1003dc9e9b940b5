//! The root file system as a list of operations, made from `mounts`, `devices` and the path lists.
//!
//! Pure: everything about a mount that can be refused without looking at the host is refused here.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::options::{self, Options};
use crate::attrs::idmap;
use crate::error::{Error, Result};
use crate::rootfs::clean;
use crate::spec::{Device, IdMapping, Mount, Spec};
use crate::sys::mount::{MountAttr, text};

/// One mount, ready to be made.
#[derive(Debug, Clone)]
pub struct MountOp {
    /// Clean absolute path inside the root.
    pub destination: PathBuf,
    /// What is mounted there.
    pub what: What,
    /// Attributes of the mount itself.
    pub attr: MountAttr,
    /// Whether a bind mount has just these: of its source's attributes none stays that `attr` does not name.
    pub exact: bool,
    /// Attributes of the mount and all below it.
    pub attr_all: MountAttr,
    /// In order: propagation flag and whether it is recursive.
    pub propagation: Vec<(u64, bool)>,
    /// Id maps of the mount.
    pub idmap: Option<IdMap>,
}

/// What a mount brings.
#[derive(Debug, Clone)]
pub enum What {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Whether the mounts below it come along.
        recursive: bool,
    },
    /// A new superblock.
    FileSystem {
        /// Its type.
        kind: CString,
        /// Its source, as mount(8) shows it.
        source: CString,
        /// Options with and without a value, in order.
        options: Vec<(CString, Option<CString>)>,
        /// Whether the directory's present content is copied in (tmpfs).
        copy_up: bool,
    },
    /// The container's own part of the cgroup tree.
    Cgroup,
    /// A change to what is mounted there already.
    Remount {
        /// Whether only the mount changes, not the superblock.
        bind: bool,
        /// Options of the superblock.
        options: Vec<(CString, Option<CString>)>,
    },
}

/// Where the maps of an idmapped mount come from.
#[derive(Debug, Clone)]
pub struct IdMap {
    /// Whether the mounts below are mapped as well.
    pub recursive: bool,
    /// Own maps; `None` takes those of the container's user namespace.
    pub maps: Option<(Vec<IdMapping>, Vec<IdMapping>)>,
}

/// A device node to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// Clean absolute path inside the root.
    pub path: PathBuf,
    /// File type and permission bits, as for mknod(2).
    pub mode: u32,
    /// Device number.
    pub dev: u64,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
}

/// The devices that every container has (runtime-spec, config-linux.md, default devices).
const DEFAULT_DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Files of /proc that may be covered by a bind mount, as lxcfs does; runc lacks the pressure and vmstat.
const PROC_FILES: [&str; 14] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
    "/proc/vmstat",
];

/// File systems whose superblock never holds a user's data: read-only is the mount's business alone.
const VIRTUAL: [&str; 6] = ["proc", "sysfs", "tmpfs", "mqueue", "devpts", "cgroup2"];

/// Plans `mounts`.
pub fn mounts(spec: &Spec, bundle: &Path, warnings: &mut Vec<String>) -> Result<Vec<MountOp>> {
    let root = spec.root.as_ref().map(|root| clean(&bundle.join(&root.path)));
    let root = root.as_deref().filter(|root| *root != Path::new("/"));
    spec.mounts
        .iter()
        .enumerate()
        .map(|(at, mount)| {
            plan_mount(mount, spec, (bundle, root), warnings)
                .map_err(|err| err.context(format_args!("mounts[{at}] ({})", mount.destination.display())))
        })
        .collect()
}

fn plan_mount(
    mount: &Mount,
    spec: &Spec,
    (bundle, root): (&Path, Option<&Path>),
    warnings: &mut Vec<String>,
) -> Result<MountOp> {
    if mount.destination.as_os_str().is_empty() {
        return Err(Error::invalid("destination is missing"));
    }
    if mount.destination.is_relative() {
        warnings.push(format!(
            "mount destination {} is not absolute; taken from the root",
            mount.destination.display()
        ));
    }
    let destination = clean(&mount.destination);
    // As runc: a destination that begins with the root's own path on the host is meant inside it.
    let inside = root.and_then(|root| destination.strip_prefix(root).ok());
    let destination = inside.map_or_else(|| destination.clone(), |inside| Path::new("/").join(inside));
    if destination == Path::new("/") {
        return Err(Error::invalid("a mount cannot cover the root itself: set root.path instead"));
    }
    let options = options::parse(&mount.options);
    let kind = mount.kind.as_deref().unwrap_or_default();
    let what = what(mount, kind, &options, bundle)?;
    check_proc(&destination, kind, &what)?;
    let idmap = mapping(mount, &options, spec, &what)?;
    Ok(MountOp {
        destination,
        what,
        attr: options.attr,
        exact: options.exact,
        attr_all: options.attr_all,
        propagation: options.propagation,
        idmap,
    })
}

fn what(mount: &Mount, kind: &str, options: &Options, bundle: &Path) -> Result<What> {
    if options.remount {
        let options_of = superblock_options(kind, options)?;
        return Ok(What::Remount { bind: options.bind.is_some(), options: options_of });
    }
    if kind == "bind" || kind == "rbind" || options.bind.is_some() {
        let source = mount.source.as_deref().filter(|s| !s.as_os_str().is_empty());
        let source = source.ok_or_else(|| Error::invalid("a bind mount needs a source"))?;
        let recursive = options.bind.unwrap_or(kind == "rbind");
        return Ok(What::Bind { source: bundle.join(source), recursive });
    }
    match kind {
        "" => Err(Error::invalid("type is missing: name a file system, or give the option bind")),
        "cgroup" | "cgroup2" => Ok(What::Cgroup),
        _ => Ok(What::FileSystem {
            kind: word(kind)?,
            source: word(mount.source.as_deref().and_then(Path::to_str).unwrap_or(kind))?,
            options: superblock_options(kind, options)?,
            copy_up: options.copy_up && kind == "tmpfs",
        }),
    }
}

fn word(text_of: &str) -> Result<CString> {
    text(text_of).map_err(|_| Error::invalid(format!("{text_of:?} holds a NUL byte")))
}

fn superblock_options(kind: &str, options: &Options) -> Result<Vec<(CString, Option<CString>)>> {
    let mut out = Vec::with_capacity(options.data.len() + options.superblock.len());
    for flag in &options.superblock {
        out.push((word(flag)?, None));
    }
    if options.attr.set & crate::sys::mount::attr::RDONLY != 0 && !VIRTUAL.contains(&kind) {
        out.push((c"ro".to_owned(), None));
    }
    for item in &options.data {
        out.push(match item.split_once('=') {
            Some((key, value)) => (word(key)?, Some(word(value)?)),
            None => (word(item)?, None),
        });
    }
    Ok(out)
}

/// /proc itself must be a procfs, and only harmless files below it may be covered (CVE-2019-16884).
fn check_proc(destination: &Path, kind: &str, what: &What) -> Result<()> {
    if !destination.starts_with("/proc") || matches!(what, What::Remount { .. }) {
        return Ok(());
    }
    let allowed = match what {
        // A bind is checked to be a procfs when it is opened.
        What::Bind { .. } if destination == Path::new("/proc") => true,
        What::Bind { .. } => PROC_FILES.iter().any(|file| destination == Path::new(file)),
        _ => destination == Path::new("/proc") && kind == "proc",
    };
    if allowed {
        return Ok(());
    }
    Err(Error::invalid(format!("{} cannot be mounted because it is inside /proc", destination.display())))
}

fn mapping(mount: &Mount, options: &Options, spec: &Spec, what: &What) -> Result<Option<IdMap>> {
    let own = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if options.idmap.is_none() && !own {
        return Ok(None);
    }
    if !matches!(what, What::Bind { .. }) {
        return Err(Error::invalid("id mappings are possible on bind mounts only"));
    }
    let recursive = options.idmap.unwrap_or(false);
    if own {
        if mount.uid_mappings.is_empty() || mount.gid_mappings.is_empty() {
            return Err(Error::invalid("uidMappings and gidMappings must both be given"));
        }
        idmap::check("uidMappings", &mount.uid_mappings)?;
        idmap::check("gidMappings", &mount.gid_mappings)?;
        return Ok(Some(IdMap {
            recursive,
            maps: Some((mount.uid_mappings.clone(), mount.gid_mappings.clone())),
        }));
    }
    if let Some(text) = &options.idmap_maps {
        let linux = spec.linux();
        let maps = idmap::of_option(text, [&linux.uid_mappings, &linux.gid_mappings])?;
        return Ok(Some(IdMap { recursive, maps: Some(maps) }));
    }
    if !spec.linux().namespaces.iter().any(|ns| ns.kind == "user") {
        return Err(Error::invalid("idmap without own mappings needs a user namespace"));
    }
    Ok(Some(IdMap { recursive, maps: None }))
}

/// Plans the device nodes: the default ones, then those of `linux.devices`.
pub fn devices(listed: &[Device]) -> Result<Vec<DeviceNode>> {
    let mut nodes: Vec<DeviceNode> = DEFAULT_DEVICES
        .iter()
        .map(|(path, major, minor)| DeviceNode {
            path: PathBuf::from(path),
            mode: libc::S_IFCHR | 0o666,
            dev: nix::sys::stat::makedev(*major, *minor),
            uid: 0,
            gid: 0,
        })
        .collect();
    for (at, device) in listed.iter().enumerate() {
        let node = device_node(device)
            .map_err(|err| err.context(format_args!("linux.devices[{at}] ({})", device.path.display())))?;
        // A listed device replaces the default of the same path.
        nodes.retain(|other| other.path != node.path);
        nodes.push(node);
    }
    Ok(nodes)
}

fn device_node(device: &Device) -> Result<DeviceNode> {
    if !device.path.is_absolute() {
        return Err(Error::invalid("path must be absolute"));
    }
    let number = |what: &str, value: Option<i64>| match value {
        Some(n @ 0..=0xffff_ffff) => Ok(n as u64),
        Some(n) => Err(Error::invalid(format!("{what} {n} is out of range"))),
        None => Err(Error::invalid(format!("{what} is missing"))),
    };
    let kind = match device.kind.as_str() {
        "c" | "u" => libc::S_IFCHR,
        "b" => libc::S_IFBLK,
        "p" => libc::S_IFIFO,
        other => return Err(Error::invalid(format!("type {other:?} is not one of c, b, u, p"))),
    };
    let dev = if kind == libc::S_IFIFO {
        0
    } else {
        nix::sys::stat::makedev(number("major", device.major)?, number("minor", device.minor)?)
    };
    Ok(DeviceNode {
        path: clean(&device.path),
        mode: kind | device.file_mode.unwrap_or(0o666) & 0o7777,
        dev,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// Clean absolute paths of `maskedPaths` or `readonlyPaths`.
pub fn paths(field: &str, listed: &[String]) -> Result<Vec<PathBuf>> {
    listed
        .iter()
        .map(|path| match Path::new(path) {
            path if path.is_absolute() => Ok(clean(path)),
            _ => Err(Error::invalid(format!("linux.{field}: {path:?} is not an absolute path"))),
        })
        .collect()
}

/// `linux.rootfsPropagation` as flag and recursion; `None` when absent.
pub fn root_propagation(word: Option<&str>) -> Result<Option<(u64, bool)>> {
    Ok(Some(match word.unwrap_or_default() {
        "" => return Ok(None),
        "shared" => (libc::MS_SHARED, false),
        "rshared" => (libc::MS_SHARED, true),
        "slave" => (libc::MS_SLAVE, false),
        "rslave" => (libc::MS_SLAVE, true),
        "private" => (libc::MS_PRIVATE, false),
        "rprivate" => (libc::MS_PRIVATE, true),
        "unbindable" => (libc::MS_UNBINDABLE, false),
        "runbindable" => (libc::MS_UNBINDABLE, true),
        other => {
            return Err(Error::invalid(format!(
                "linux.rootfsPropagation {other:?} is not one of shared, slave, private, unbindable"
            )));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<MountOp> {
        let mount: Mount = serde_json::from_str(json).unwrap();
        plan_mount(
            &mount,
            &Spec::default(),
            (Path::new("/bundle"), Some(Path::new("/bundle/rootfs"))),
            &mut Vec::new(),
        )
    }

    #[test]
    fn bind_by_option_or_type() {
        for json in [
            r#"{"destination":"/x","type":"none","source":"a","options":["rbind","ro"]}"#,
            r#"{"destination":"x","type":"rbind","source":"a"}"#,
        ] {
            let op = plan(json).unwrap();
            assert_eq!(op.destination, Path::new("/x"));
            assert!(
                matches!(op.what, What::Bind { ref source, recursive: true } if source == Path::new("/bundle/a"))
            );
        }
    }

    #[test]
    fn proc_is_not_covered() {
        for json in [
            r#"{"destination":"/proc","type":"tmpfs"}"#,
            r#"{"destination":"/proc/self","type":"bind","source":"/a"}"#,
            r#"{"destination":"/tmp/../proc/sys","type":"tmpfs"}"#,
            r#"{"destination":"/bundle/rootfs/proc/sys","type":"tmpfs"}"#,
        ] {
            assert!(plan(json).unwrap_err().to_string().contains("inside /proc"), "{json}");
        }
        assert!(plan(r#"{"destination":"/proc/meminfo","type":"bind","source":"/a"}"#).is_ok());
        assert!(plan(r#"{"destination":"/proc","type":"proc","source":"proc"}"#).is_ok());
    }

    #[test]
    fn the_roots_own_path_is_stripped() {
        let at = |json| plan(json).unwrap().destination;
        assert_eq!(at(r#"{"destination":"/bundle/rootfs/a/b","type":"tmpfs"}"#), Path::new("/a/b"));
        assert_eq!(
            at(r#"{"destination":"/bundle/rootfs2/a","type":"tmpfs"}"#),
            Path::new("/bundle/rootfs2/a")
        );
        assert!(plan(r#"{"destination":"/bundle/rootfs","type":"tmpfs"}"#).is_err());
    }

    #[test]
    fn refusals_name_the_field() {
        assert!(plan(r#"{"destination":"/"}"#).unwrap_err().to_string().contains("root itself"));
        assert!(plan(r#"{"destination":"/a"}"#).unwrap_err().to_string().contains("type is missing"));
        assert!(plan(r#"{"destination":"/a","type":"bind"}"#).unwrap_err().to_string().contains("source"));
        let idmap = r#"{"destination":"/a","type":"bind","source":"/b","options":["idmap"]}"#;
        assert!(plan(idmap).unwrap_err().to_string().contains("user namespace"));
    }

    #[test]
    fn listed_device_replaces_the_default() {
        let device = Device {
            kind: "c".into(),
            path: "/dev/null".into(),
            major: Some(1),
            minor: Some(3),
            file_mode: Some(0o600),
            ..Device::default()
        };
        let nodes = devices(&[device]).unwrap();
        assert_eq!(nodes.len(), 6);
        assert_eq!(nodes[5].mode, libc::S_IFCHR | 0o600);
        let bad = Device { kind: "x".into(), path: "/dev/y".into(), ..Device::default() };
        assert!(devices(&[bad]).unwrap_err().to_string().contains("type"));
    }
}
