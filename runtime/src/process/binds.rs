//! Sources of bind mounts, opened with the caller's own view and identity.
//!
//! Owns detached copies of the host's mounts. The creator opens them before the container exists, so
//! that a missing source is refused before anything was made. A caller without rights over its mount
//! namespace (open_tree(2)) leaves that to init, which has them in the container's own copy of that
//! namespace, and opens while it still is the caller's user. Never looks at a path of the container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};

use super::userns;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Plan;
use crate::plan::mounts::{DeviceNode, MountOp, What};
use crate::plan::namespaces::{MOUNT, USER};
use crate::rootfs::{Root, clean, is_dir};
use crate::sys::fs::{cstring, openat2};
use crate::sys::mount::{MountAttr, attr, clone_tree, set_attr};
use crate::sys::process::fs_magic;

/// Maps the ids of a detached mount, with or without those below it, by the maps that are meant for it.
pub type MapIds<'a> = dyn Fn(&OwnedFd, bool) -> Result<()> + 'a;

/// A detached copy of a source, and whether it is a directory.
#[derive(Debug)]
pub struct Source {
    /// The detached mount.
    pub mount: OwnedFd,
    /// Whether to attach it on a directory or on a file.
    pub is_dir: bool,
}

/// Everything that was opened outside for the container's root.
#[derive(Debug)]
pub struct Prepared {
    /// The root file system.
    pub root: OwnedFd,
    /// As `plan.mounts`; `None` for what is no bind mount.
    pub sources: Vec<Option<Source>>,
    /// As `plan.mounts`: the id maps of those whose source init opens, where they are known before init exists.
    pub maps: Vec<Option<OwnedFd>>,
    /// As `plan.devices`, in a user namespace, where no nodes but FIFOs can be made.
    pub devices: Vec<Option<OwnedFd>>,
    /// The host's null device, for masks over files; `None` when nothing is masked.
    pub null: Option<OwnedFd>,
}

/// Opens all sources of `plan`; `None` where only a mount namespace of the container's own gives
/// the right to, and [`prepare_inside`] must.
pub fn prepare(plan: &Plan) -> Result<Option<Prepared>> {
    match open_root(plan) {
        Err(err) if err.errno() == Some(Errno::EPERM) && plan.namespaces.makes(MOUNT) => {
            match plan.mounts.iter().find(|op| op.idmap.is_some()) {
                None => Ok(None),
                Some(op) => Err(Error::sys(Errno::EPERM, "mapping the mount's ids")
                    .hint("it takes the rights of root over the source's file system")
                    .context(format_args!("mounting on {}", op.destination.display()))),
            }
        }
        root => with_root(plan, root?).map(Some),
    }
}

/// Opens all sources of `plan` in the container's new mount namespace, before init becomes root there.
pub fn prepare_inside(plan: &Plan) -> Result<Prepared> {
    with_root(plan, open_root(plan)?)
}

impl Prepared {
    /// Maps the ids of the opened sources by the user namespace of init, whose maps are written by now.
    pub fn map_by(&self, plan: &Plan, init: i32) -> Result<()> {
        for (op, source) in plan.mounts.iter().zip(&self.sources) {
            if let (Some(idmap), Some(source)) = (&op.idmap, source)
                && idmap.maps.is_none()
            {
                map_ids(&source.mount, idmap.recursive, &userns::of(init)?)
                    .map_err(|err| err.context(format_args!("mounting on {}", op.destination.display())))?;
            }
        }
        Ok(())
    }

    /// Whether init will ask for id maps of what it opens itself ([`Prepared::map_for`]).
    pub fn maps_later(&self, plan: &Plan) -> bool {
        plan.mounts.iter().zip(&self.sources).any(|(op, source)| op.idmap.is_some() && source.is_none())
    }

    /// Maps the ids of `mount`, the source of the plan's mount number `at`, which init has opened in its root.
    pub fn map_for(&self, plan: &Plan, at: usize, mount: &OwnedFd, init: i32) -> Result<()> {
        let op = plan.mounts.get(at).and_then(|op| Some((op, op.idmap.as_ref()?)));
        let Some((op, idmap)) = op else {
            return Err(Error::new(Kind::System, "init asks for the id maps of a mount that has none"));
        };
        let mapped = match self.maps.get(at).and_then(Option::as_ref) {
            Some(maps) => map_ids(mount, idmap.recursive, maps),
            None => map_ids(mount, idmap.recursive, &userns::of(init)?),
        };
        mapped.map_err(|err| err.context(format_args!("mounting on {}", op.destination.display())))
    }
}

/// Adds one more mount behind those of the plan; its source is opened now if the others are.
pub fn add(plan: &mut Plan, prepared: &mut Option<Prepared>, op: MountOp) -> Result<()> {
    if let (Some(prepared), What::Bind { source, recursive }) = (prepared, &op.what) {
        let inherits = Inherits::of(plan);
        prepared.sources.push(Some(open_source(&op, source, *recursive, &inherits)?));
        prepared.maps.push(None);
    }
    plan.mounts.push(op);
    Ok(())
}

/// What a bind mount has without a word about it.
struct Inherits<'a> {
    /// A user namespace to be joined.
    joined: Option<&'a Path>,
    /// Propagation, and whether it reaches the mounts below.
    propagation: (u64, bool),
    /// Attributes that are off.
    off: u64,
}

impl<'a> Inherits<'a> {
    fn of(plan: &'a Plan) -> Self {
        // In a user namespace the kernel keeps what protects the host's mounts (mount_namespaces(7)).
        let mapped = plan.new_user_namespace() || plan.joins_user_namespace();
        let kept = if mapped { LOCKED } else { 0 };
        let joined =
            plan.namespaces.join.iter().find(|(flag, _)| *flag == USER).map(|(_, path)| path.as_path());
        Inherits { joined, propagation: default_propagation(plan), off: (LOCKED | attr::NOSYMFOLLOW) & !kept }
    }

    /// A user namespace with the id maps of `op`; `None` where there are none yet, or none at all.
    fn maps_of(&self, op: &MountOp) -> Result<Option<OwnedFd>> {
        match (op.idmap.as_ref().map(|idmap| idmap.maps.as_ref()), self.joined) {
            (Some(Some((uids, gids))), _) => userns::with_maps(uids, gids).map(Some),
            (Some(None), Some(path)) => openat2(AT_FDCWD, path, OFlag::O_RDONLY, 0, 0)
                .doing(|| format!("opening the user namespace {}", path.display()))
                .map(Some),
            _ => Ok(None),
        }
    }

    /// The attributes of `op`: what it names, or else what its source has; once it names any, those that it does not
    /// name are off. That is what mount(2) does with `MS_REMOUNT | MS_BIND`, and so runc and crun.
    fn attributes(&self, op: &MountOp) -> MountAttr {
        let mut own = op.attr;
        if !op.exact {
            return own;
        }
        own.clear |= self.off & !own.set;
        if self.off & attr::NOSUID != 0 && (own.clear & attr::ATIME_MASK) | (own.set & attr::NODIRATIME) != 0
        {
            own.clear |= (attr::ATIME_MASK | attr::NODIRATIME) & !(own.set & attr::NODIRATIME);
        }
        own
    }
}

/// What a mount namespace of a less privileged user cannot take off.
const LOCKED: u64 = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;

fn default_propagation(plan: &Plan) -> (u64, bool) {
    match plan.root_propagation {
        Some(shared @ (libc::MS_SHARED, _)) => shared,
        // What lies below a bound directory may never stay a peer of the host's mounts.
        Some((flag, _)) => (flag, true),
        None => (libc::MS_SLAVE, true),
    }
}

fn open_root(plan: &Plan) -> Result<OwnedFd> {
    clone_tree(AT_FDCWD, &cstring(&plan.rootfs).doing(|| "reading root.path")?, true)
        .doing(|| format!("opening the root file system {}", plan.rootfs.display()))
}

fn with_root(plan: &Plan, root: OwnedFd) -> Result<Prepared> {
    let inherits = Inherits::of(plan);
    // A shared or unbindable root would be refused by pivot_root(2); it is made so afterwards.
    let until_pivot = match inherits.propagation.0 {
        libc::MS_PRIVATE => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    };
    let attrs = MountAttr { propagation: until_pivot, ..MountAttr::default() };
    set_attr(&root, true, &attrs)
        .doing(|| format!("detaching {} from the host's mounts", plan.rootfs.display()))?;

    let mut sources = Vec::with_capacity(plan.mounts.len());
    let mut maps = Vec::with_capacity(plan.mounts.len());
    for op in &plan.mounts {
        let in_root =
            matches!(&op.what, What::Bind { source, .. } if clean(source).starts_with(&plan.rootfs));
        // In its pid namespace init could not write the maps of another process.
        maps.push(if in_root { inherits.maps_of(op)? } else { None });
        sources.push(match &op.what {
            // An earlier mount may have made it: init opens it when its turn comes.
            What::Bind { .. } if in_root => None,
            What::Bind { source, recursive } => {
                Some(open_source(op, source, *recursive, &inherits).map_err(|err| {
                    err.context(format_args!("mounting {} on {}", source.display(), op.destination.display()))
                })?)
            }
            _ => None,
        });
    }
    let devices = if plan.new_user_namespace() || plan.joins_user_namespace() {
        plan.devices.iter().map(bound_node).collect::<Result<_>>()?
    } else {
        Vec::new()
    };
    let null = if plan.masked_paths.is_empty() {
        None
    } else {
        let null = host_device(Path::new("/dev/null"), nix::sys::stat::makedev(1, 3), libc::S_IFCHR)?;
        // It is the host's: its owner and mode are not the container's to change.
        let attrs = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
        set_attr(&null, false, &attrs).doing(|| "making the cover of masked files read-only")?;
        Some(null)
    };
    Ok(Prepared { root, sources, maps, devices, null })
}

fn open_source(op: &MountOp, source: &Path, recursive: bool, inherits: &Inherits<'_>) -> Result<Source> {
    let mount = clone_tree(AT_FDCWD, &cstring(source).doing(|| "reading the source")?, recursive)
        .map_err(|errno| source_error(errno, source, recursive))?;
    let maps = inherits.maps_of(op)?;
    // A user namespace that is still to be made is not known yet: the creator maps by it later.
    let map =
        |mount: &OwnedFd, recursive| maps.as_ref().map_or(Ok(()), |maps| map_ids(mount, recursive, maps));
    finish_source(mount, op, recursive, inherits, &map)
}

/// The source of a bind mount that lies in the container's own root, as it is by now.
///
/// Resolved inside `root`: what an image or an earlier mount put there cannot lead outside. `map_ids` is asked
/// where the mount's ids are to be mapped.
pub fn source_in_root(
    plan: &Plan,
    root: &Root,
    op: &MountOp,
    source: &Path,
    recursive: bool,
    map_ids: &MapIds<'_>,
) -> Result<Source> {
    let source = clean(source);
    let inside = source.strip_prefix(&plan.rootfs).unwrap_or(&source);
    let doing = || format!("opening the source {}", source.display());
    let place = root.resolve(inside, OFlag::empty()).doing(doing)?;
    let mount = clone_tree(&place, c"", recursive).doing(doing)?;
    finish_source(mount, op, recursive, &Inherits::of(plan), map_ids)
}

/// Checks a detached copy and gives it its attributes.
fn finish_source(
    mount: OwnedFd,
    op: &MountOp,
    recursive: bool,
    inherits: &Inherits<'_>,
    map_ids: &MapIds<'_>,
) -> Result<Source> {
    if op.destination == Path::new("/proc") {
        let magic = fs_magic(&mount).doing(|| "looking at the source's file system")?;
        if magic != libc::PROC_SUPER_MAGIC {
            return Err(Error::invalid("only a procfs can be mounted on /proc"));
        }
    }
    let is_dir = is_dir(&mount).doing(|| "looking at the source")?;
    apply_attributes(&mount, op, recursive, inherits)?;
    if let Some(idmap) = &op.idmap {
        map_ids(&mount, idmap.recursive)?;
    }
    Ok(Source { mount, is_dir })
}

fn source_error(errno: Errno, source: &Path, recursive: bool) -> Error {
    let err = Error::sys(errno, format!("opening the source {}", source.display()));
    match errno {
        // mount_namespaces(7): what came along from a more privileged mount namespace stays together.
        Errno::EINVAL if !recursive => {
            err.hint("other file systems are mounted below it, which a user must not uncover: use rbind")
        }
        _ => err,
    }
}

/// Sets attributes and propagation in as few calls as their recursion allows.
fn apply_attributes(mount: &OwnedFd, op: &MountOp, recursive: bool, inherits: &Inherits<'_>) -> Result<()> {
    let default = inherits.propagation;
    let mut own = inherits.attributes(op);
    let mut all = op.attr_all;
    let mut rest = &op.propagation[..];
    // Without own wish a mount follows the root; a shared one starts as the root's kind would have it.
    let first = match op.propagation.first() {
        Some((libc::MS_SHARED, _)) if default.0 != libc::MS_SHARED => (libc::MS_SLAVE, true),
        Some(first) => {
            rest = &op.propagation[1..];
            *first
        }
        None if default.0 == libc::MS_UNBINDABLE => (libc::MS_SLAVE, true),
        None => default,
    };
    if first.1 && recursive {
        all.propagation = first.0
    } else {
        own.propagation = first.0;
        // A word for the mount alone leaves those below with the default: the copies of a shared
        // tree would else carry mounts made inside to the host. A slave of nothing stays as it is.
        if recursive {
            all.propagation = match default.0 {
                libc::MS_SHARED => 0,
                libc::MS_PRIVATE => libc::MS_PRIVATE,
                _ => libc::MS_SLAVE,
            };
        }
    }
    let doing = || "setting the mount's attributes";
    if own.set | own.clear | own.propagation != 0 {
        match set_attr(mount, false, &own) {
            // The runtime itself is in a user namespace, which may not take off what nobody named.
            Err(Errno::EPERM) if own.clear != op.attr.clear => {
                let named = MountAttr { clear: op.attr.clear, ..own };
                set_attr(mount, false, &named).doing(doing)?;
            }
            other => other.doing(doing)?,
        }
    }
    if all.set | all.clear | all.propagation != 0 {
        set_attr(mount, true, &all).doing(doing)?;
    }
    for (flag, recursive) in rest {
        let attrs = MountAttr { propagation: *flag, ..MountAttr::default() };
        set_attr(mount, *recursive, &attrs).doing(doing)?;
    }
    Ok(())
}

/// Maps the ids of a detached mount by those of `userns` (mount_setattr(2), 5.12).
pub fn map_ids(mount: impl AsFd, recursive: bool, userns: &OwnedFd) -> Result<()> {
    use std::os::fd::AsRawFd;
    let attrs = MountAttr { set: attr::IDMAP, userns_fd: userns.as_raw_fd() as u64, ..MountAttr::default() };
    match set_attr(mount, recursive, &attrs) {
        Err(errno @ Errno::EINVAL) => Err(Error::sys(errno, "mapping the mount's ids")
            .hint("its file system cannot be idmapped on this kernel")),
        other => other.doing(|| "mapping the mount's ids"),
    }
}

fn bound_node(node: &DeviceNode) -> Result<Option<OwnedFd>> {
    match node.mode & libc::S_IFMT {
        libc::S_IFIFO => Ok(None),
        _ => host_device(&node.path, node.dev, node.mode).map(Some),
    }
}

/// A detached mount of the host's node at `path`, checked to be the device that is meant.
pub fn host_device(path: &Path, dev: u64, mode: u32) -> Result<OwnedFd> {
    let doing = || format!("opening the host's device {}", path.display());
    let fd = openat2(AT_FDCWD, path, OFlag::O_PATH, 0, 0).doing(doing)?;
    let stat = nix::sys::stat::fstat(&fd).doing(doing)?;
    if stat.st_rdev != dev || stat.st_mode & libc::S_IFMT != mode & libc::S_IFMT {
        return Err(Error::invalid(format!("{}: it is not the device that the bundle asks for", doing())));
    }
    clone_tree(&fd, c"", false).doing(doing)
}
