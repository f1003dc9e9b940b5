//! The container's root, built by its init from the plan: mounts, devices, links, masks, pivot.
//!
//! Walks the plan's lists in order, one error a step. Everything is attached by descriptor inside
//! the root; nothing here looks at a path of the host except the place of the root itself.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat};
use nix::unistd::{Gid, Uid, fchdir, fchownat, pivot_root, symlinkat};

use super::binds::{self, Prepared, Source};
use super::copy_up::copy_up;
use crate::error::{Context, Error, Result};
use crate::mountinfo;
use crate::plan::Plan;
use crate::plan::mounts::{DeviceNode, MountOp, What};
use crate::plan::namespaces::MOUNT;
use crate::procfs::Proc;
use crate::rootfs::{self, Root};
use crate::sys::clone;
use crate::sys::fs::{cstring, openat2, read_at};
use crate::sys::mount::{
    MountAttr, attach, attr, clone_tree, context_message, detach_cwd, detached, fsconfig_create,
    fsconfig_flag, fsconfig_reconfigure, fsconfig_string, fsmount, fsopen, fspick, set_attr,
};
use crate::sys::process::{fs_magic, mknodat, umask};

/// `SYSFS_MAGIC` (linux/magic.h).
const SYSFS_MAGIC: i64 = 0x6265_6572;
const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// Options that mount(2) takes as flags for any file system, with or without an effect.
const OLD_FLAGS: [&CStr; 3] = [c"iversion", c"acl", c"noacl"];

/// Links that every /dev has (runtime-spec, runtime-linux.md, dev symbolic links).
const DEV_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Puts the root file system in place and makes all mounts, devices and links in it.
///
/// `join_network` is called once, before the first mount that shows a network namespace (sysfs) and
/// at the latest at the end; `map_outside` for the source of the mount with that number, whose ids this process
/// has no right to map.
pub fn build(
    plan: &Plan,
    prepared: &Prepared,
    join_network: &mut dyn FnMut() -> Result<()>,
    map_outside: &dyn Fn(usize, &OwnedFd) -> Result<()>,
) -> Result<Root> {
    let mut joined = false;
    let host = match plan.root_propagation {
        Some((libc::MS_PRIVATE, _)) => MsFlags::MS_PRIVATE,
        _ => MsFlags::MS_SLAVE,
    };
    cut_off(host)?;
    let root = attach_root(plan, &prepared.root)?;

    // Modes of directories and nodes are meant to the bit.
    let old_mask = umask(0);
    let mapped = plan.new_user_namespace() || plan.joins_user_namespace();
    let ops = plan.mounts.iter().zip(&prepared.sources).zip(&prepared.maps);
    for (at, ((op, source), maps)) in ops.enumerate() {
        if !joined && matches!(&op.what, What::FileSystem { kind, .. } if kind.as_c_str() == c"sysfs") {
            join_network()?;
            joined = true;
        }
        // In a user namespace root has no rights over the host's file systems.
        let map_ids = |mount: &OwnedFd, recursive| match maps {
            Some(maps) if !mapped => binds::map_ids(mount, recursive, maps),
            _ => map_outside(at, mount),
        };
        make_mount(&root, op, (source.as_ref(), &map_ids), plan).map_err(|err| {
            err.context(format_args!("mounting {} on {}", name_of(op), op.destination.display()))
        })?;
    }
    if plan.sets_up_dev() {
        make_devices(&root, plan, prepared)?;
        for (link, target) in DEV_LINKS {
            make_link(&root, Path::new(link), target)?;
        }
        if root.resolve(Path::new("/proc/kcore"), OFlag::empty()).is_ok() {
            make_link(&root, Path::new("/dev/core"), "/proc/kcore")?;
        }
    }
    umask(old_mask);
    if !joined {
        join_network()?;
    }
    Ok(root)
}

fn cut_off(propagation: MsFlags) -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)
        .doing(|| "cutting the container's mounts off from the host's")
}

/// Puts an empty root in place, for a process that needs no file but what it has open. It has a procfs that shows the
/// container's processes and nothing else, for opening anew what is open, and with `terminals` a devpts of its own.
pub fn build_empty(plan: &Plan, terminals: bool) -> Result<Root> {
    let doing = || "making an empty root";
    cut_off(MsFlags::MS_SLAVE)?;
    let attrs = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let empty = detached(c"tmpfs", &[(c"size", c"64k"), (c"nr_inodes", c"16"), (c"mode", c"0555")], attrs);
    let root = attach_root(plan, &empty.doing(doing)?)?;
    let proc = detached(c"proc", &[(c"subset", c"pid")], attr::NOSUID | attr::NODEV | attr::NOEXEC)
        .doing(|| "making a procfs for the machine's monitor")?;
    attach(&proc, root.make_dir(Path::new("/proc"))?).doing(doing)?;
    if terminals {
        let place = root.make_dir(Path::new("/dev/pts"))?;
        let options = [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"max", c"1")];
        let devpts = detached(c"devpts", &options, attr::NOSUID | attr::NOEXEC).doing(doing)?;
        attach(&devpts, &place).doing(doing)?;
    }
    set_attr(&root, false, &MountAttr { set: attr::RDONLY, ..MountAttr::default() }).doing(doing)?;
    Ok(root)
}

fn attach_root(plan: &Plan, mount: &OwnedFd) -> Result<Root> {
    let doing = || format!("putting the root file system {} in place", plan.rootfs.display());
    let place = match openat2(AT_FDCWD, &plan.rootfs, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0) {
        // The mapped root user may not reach the host's path; any place serves until the pivot.
        // Nor is that path in a mount namespace that was joined.
        Err(Errno::EACCES | Errno::ENOENT) => {
            openat2(AT_FDCWD, "/", OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0)
        }
        other => other,
    };
    attach(mount, place.doing(doing)?).doing(doing)?;
    let root = openat2(mount, ".", OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
    Ok(Root::new(root))
}

fn name_of(op: &MountOp) -> String {
    match &op.what {
        What::Bind { source, .. } => source.display().to_string(),
        What::FileSystem { kind, .. } => kind.to_string_lossy().into_owned(),
        What::Cgroup => "cgroup2".into(),
        What::Remount { .. } => "new options".into(),
    }
}

fn make_mount(
    root: &Root,
    op: &MountOp,
    (source, map_ids): (Option<&Source>, &binds::MapIds<'_>),
    plan: &Plan,
) -> Result<()> {
    match (&op.what, source) {
        (What::Bind { .. }, Some(source)) => {
            let place = place(root, &op.destination, source.is_dir)?.0;
            attach_source(source, &place)
        }
        (What::Bind { source, recursive }, None) => {
            let source = binds::source_in_root(plan, root, op, source, *recursive, map_ids)?;
            let place = place(root, &op.destination, source.is_dir)?.0;
            attach_source(&source, &place)
        }
        (What::FileSystem { kind, source, options, copy_up }, _) => {
            file_system(root, op, kind, source, options, *copy_up, plan)
        }
        (What::Cgroup, _) => cgroup(root, op, plan),
        (What::Remount { bind, options }, _) => remount(root, op, *bind, options),
    }
}

/// Attaches a bind's source. A file on a directory or the other way round is mere EINVAL to the kernel.
fn attach_source(source: &Source, place: &OwnedFd) -> Result<()> {
    attach(&source.mount, place).map_err(|errno| match rootfs::is_dir(place) {
        Ok(true) if !source.is_dir => {
            Error::sys(Errno::ENOTDIR, "attaching").hint("the source is a file, the destination a directory")
        }
        Ok(false) if source.is_dir => {
            Error::sys(Errno::ENOTDIR, "attaching").hint("the source is a directory, the destination a file")
        }
        _ => Error::sys(errno, "attaching"),
    })
}

/// The place to mount on, made where missing, and whether it was there.
fn place(root: &Root, destination: &Path, dir: bool) -> Result<(OwnedFd, bool)> {
    // An image must not redirect the places of the kernel's own file systems (CVE-2019-19921).
    let strict = destination == Path::new("/proc") || destination == Path::new("/sys");
    let found = if strict {
        root.resolve_without_links(destination, OFlag::O_DIRECTORY)
    } else {
        root.resolve(destination, OFlag::empty())
    };
    match found {
        Ok(fd) => {
            let inside = destination.starts_with("/proc");
            if !inside && fs_magic(&fd).doing(|| "looking at the destination")? == libc::PROC_SUPER_MAGIC {
                return Err(Error::invalid("the destination leads into /proc"));
            }
            Ok((fd, true))
        }
        Err(Errno::ENOENT) if strict => {
            root.make_dir(destination)?;
            // Once more, as a link may have come there meanwhile, which making it has followed.
            let made = root.resolve_without_links(destination, OFlag::O_DIRECTORY);
            made.map(|made| (made, false)).map_err(link_error)
        }
        Err(Errno::ENOENT) if dir => Ok((root.make_dir(destination)?, false)),
        Err(Errno::ENOENT) => Ok((root.make_file(destination)?, false)),
        Err(errno) if strict => Err(link_error(errno)),
        Err(errno) => Err(errno).doing(|| "opening the destination"),
    }
}

/// Why the place of one of the kernel's own file systems cannot be used.
fn link_error(errno: Errno) -> Error {
    let err = Error::sys(errno, "opening the destination");
    match errno {
        Errno::ELOOP | Errno::ENOTDIR => {
            err.hint("it must be mounted on ordinary directory of the image, not on a link")
        }
        _ => err,
    }
}

fn file_system(
    root: &Root,
    op: &MountOp,
    kind: &CStr,
    source: &CStr,
    options: &[(CString, Option<CString>)],
    copies: bool,
    plan: &Plan,
) -> Result<()> {
    let (place, existed) = place(root, &op.destination, true)?;
    let ctx = fsopen(kind).map_err(|errno| {
        let err = Error::sys(errno, "opening the file system");
        if errno == Errno::ENODEV { err.hint("this kernel does not have it") } else { err }
    })?;
    let said = |errno: Errno, what: String| {
        let err = Error::sys(errno, what);
        match context_message(&ctx) {
            Some(text) => err.hint(text),
            None => err,
        }
    };
    fsconfig_string(&ctx, c"source", source).map_err(|errno| said(errno, "setting the source".into()))?;
    for (key, value) in options {
        set_option(&ctx, key, value.as_deref())
            .map_err(|errno| said(errno, format!("setting the option {key:?}")))?;
    }
    if kind == c"tmpfs" && existed && !options.iter().any(|(key, _)| key.as_c_str() == c"mode") {
        // As runc: a tmpfs looks like the directory that it covers.
        let mode = fstat(&place).doing(|| "looking at the destination")?.st_mode & 0o7777;
        let mode = CString::new(format!("{mode:o}")).unwrap_or_default();
        fsconfig_string(&ctx, c"mode", &mode).map_err(|errno| said(errno, "setting the mode".into()))?;
    }
    if let Some(context) = plan.mount_context(kind) {
        fsconfig_string(&ctx, c"context", &context)
            .map_err(|errno| said(errno, "setting the context".into()))?;
    }
    fsconfig_create(&ctx).map_err(|errno| said(errno, "making the file system".into()))?;
    // Content is copied in while the mount can still be written.
    // So is /dev, until its nodes, its links and the console are there.
    let dev = op.destination == Path::new("/dev");
    let late = if copies || dev { attr::RDONLY } else { 0 };
    let mount = fsmount(&ctx, op.attr.set & !late).doing(|| "making the mount")?;
    if copies && existed {
        copy_up(root, &op.destination, &mount)?;
    }
    if copies && !dev && op.attr.set & late != 0 {
        set_attr(&mount, false, &MountAttr { set: late, ..MountAttr::default() })
            .doing(|| "making it read-only")?;
    }
    finish(&mount, op)?;
    attach(&mount, &place).doing(|| "attaching")
}

fn set_option(ctx: &OwnedFd, key: &CStr, value: Option<&CStr>) -> nix::Result<()> {
    match value {
        Some(value) => fsconfig_string(ctx, key, value),
        None => match fsconfig_flag(ctx, key) {
            // Flags of mount(2) that the new API leaves to the file systems: most have them always,
            // or never, and no option for it.
            Err(Errno::EINVAL) if OLD_FLAGS.contains(&key) => Ok(()),
            other => other,
        },
    }
}

/// Recursive attributes and propagation of a mount that was made here.
fn finish(mount: &OwnedFd, op: &MountOp) -> Result<()> {
    if op.attr_all.set | op.attr_all.clear != 0 {
        set_attr(mount, true, &op.attr_all).doing(|| "setting the mount's recursive attributes")?;
    }
    for (flag, recursive) in &op.propagation {
        let attrs = MountAttr { propagation: *flag, ..MountAttr::default() };
        set_attr(mount, *recursive, &attrs).doing(|| "setting the mount's propagation")?;
    }
    Ok(())
}

/// With a cgroup namespace the tree mounts as it is; without one only the container's part is shown.
fn cgroup(root: &Root, op: &MountOp, plan: &Plan) -> Result<()> {
    let (place, _) = place(root, &op.destination, true)?;
    let mount = if plan.has_cgroup_namespace() {
        match detached(c"cgroup2", &[], op.attr.set) {
            // In a user namespace that does not own the cgroup namespace: the host's tree, read-only.
            Err(Errno::EPERM) => own_cgroup(op, "/", attr::RDONLY)?,
            other => other.doing(|| "making the mount")?,
        }
    } else {
        let line = read_at(AT_FDCWD, "/proc/self/cgroup").doing(|| "finding the own cgroup")?;
        let path = line.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/").to_owned();
        // Without a cgroup namespace a mapped root could write there (CVE-2023-25809).
        let sealed = if plan.new_user_namespace() || plan.joins_user_namespace() { attr::RDONLY } else { 0 };
        own_cgroup(op, &path, sealed)?
    };
    finish(&mount, op)?;
    attach(&mount, &place).doing(|| "attaching")
}

fn own_cgroup(op: &MountOp, path: &str, sealed: u64) -> Result<OwnedFd> {
    let source = PathBuf::from(CGROUP_MOUNT).join(rootfs::relative(Path::new(path)));
    let doing = || format!("opening the cgroup {}", source.display());
    let mount = clone_tree(AT_FDCWD, &cstring(&source).doing(doing)?, true).doing(doing)?;
    let attrs = MountAttr { set: op.attr.set | sealed, clear: op.attr.clear, ..MountAttr::default() };
    set_attr(&mount, true, &attrs).doing(|| "setting the mount's attributes")?;
    Ok(mount)
}

fn remount(root: &Root, op: &MountOp, bind: bool, options: &[(CString, Option<CString>)]) -> Result<()> {
    let place = root.resolve(&op.destination, OFlag::empty()).doing(|| "opening what is mounted there")?;
    if !bind && !options.is_empty() {
        let ctx = fspick(&place).doing(|| "opening the mounted file system")?;
        for (key, value) in options {
            set_option(&ctx, key, value.as_deref()).doing(|| format!("setting the option {key:?}"))?;
        }
        fsconfig_reconfigure(&ctx).doing(|| "reconfiguring the file system")?;
    }
    if op.attr.set | op.attr.clear != 0 {
        set_attr(&place, false, &op.attr).doing(|| "changing the mount")?;
    }
    finish(&place, op)
}

fn make_devices(root: &Root, plan: &Plan, prepared: &Prepared) -> Result<()> {
    let mut dir: Option<(PathBuf, OwnedFd)> = None;
    for (at, node) in plan.devices.iter().enumerate() {
        let doing = || format!("making the device {}", node.path.display());
        let bind = |host: &OwnedFd| {
            let place = root.make_file(&node.path).map_err(|err| err.context(doing()))?;
            attach(host, place).doing(doing)
        };
        if let Some(Some(host)) = prepared.devices.get(at) {
            bind(host)?;
            continue;
        }
        // Nearly all nodes share /dev: resolve it once.
        let parent = node.path.parent().unwrap_or(Path::new("/"));
        if dir.as_ref().is_none_or(|(path, _)| path != parent) {
            dir = Some((parent.to_owned(), root.make_dir(parent)?));
        }
        if let Some((_, fd)) = &dir {
            match make_node(fd, node) {
                // The runtime itself is in a user namespace, as under podman.
                Err(err) if err.errno() == Some(Errno::EPERM) => {
                    bind(
                        &binds::host_device(&node.path, node.dev, node.mode)
                            .map_err(|_| err.context(doing()))?,
                    )?;
                }
                other => other.map_err(|err| err.context(doing()))?,
            }
        }
    }
    Ok(())
}

fn make_node(dir: &OwnedFd, node: &DeviceNode) -> Result<()> {
    let name = node.path.file_name().ok_or_else(|| Error::invalid("the path has no name"))?;
    let name = cstring(name).doing(|| "reading the name")?;
    match mknodat(dir, &name, node.mode, node.dev) {
        Ok(()) if node.uid == 0 && node.gid == 0 => return Ok(()),
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno).doing(|| "making the node"),
    }
    // What the image has there serves if it is that very device, and nothing else. From here on it is
    // held: its name may mean a file of the host by now, in a directory that others can write.
    let doing = || "looking at what is there";
    let name = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let held = openat2(dir, name, flags, 0, libc::RESOLVE_BENEATH).doing(doing)?;
    let stat = fstat(&held).doing(doing)?;
    if stat.st_rdev != node.dev || stat.st_mode & libc::S_IFMT != node.mode & libc::S_IFMT {
        return Err(Error::invalid("the image has something else there"));
    }
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    if (stat.st_uid, stat.st_gid) != (node.uid, node.gid) {
        fchownat(&held, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).doing(|| "setting its owner")?;
    }
    if stat.st_mode & 0o7777 == node.mode & 0o7777 {
        return Ok(());
    }
    // The one way to a mode by an O_PATH descriptor before fchmodat2(2) (6.6).
    let (proc, link) = (Proc::new(), format!("self/fd/{}", held.as_raw_fd()));
    let mode = Mode::from_bits_truncate(node.mode);
    proc.root()
        .and_then(|proc| fchmodat(proc, link.as_str(), mode, FchmodatFlags::FollowSymlink))
        .doing(|| "setting its mode")
}

fn make_link(root: &Root, link: &Path, target: &str) -> Result<()> {
    let doing = || format!("linking {} to {target}", link.display());
    let (dir, name) = root.parent(link).map_err(|err| err.context(doing()))?;
    match symlinkat(target, &dir, &name) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) if link != Path::new("/dev/ptmx") => Ok(()),
        // The image's ptmx would open the wrong devpts instance.
        Err(Errno::EEXIST) => {
            nix::unistd::unlinkat(&dir, &name, nix::unistd::UnlinkatFlags::NoRemoveDir).doing(doing)?;
            symlinkat(target, &dir, &name).doing(doing)
        }
        Err(errno) => Err(errno).doing(doing),
    }
}

/// Covers masked paths and makes read-only what shall be; ends with the root itself.
pub fn restrict(root: &Root, plan: &Plan, prepared: &Prepared) -> Result<()> {
    // As runc and crun: images and pods name working directories that nobody made. Where it cannot be
    // made, entering it says so.
    let _ = root.make_dir(plan.process.cwd());
    for op in &plan.mounts {
        let new = matches!(op.what, What::FileSystem { .. }) && op.destination == Path::new("/dev");
        if new && op.attr.set & attr::RDONLY != 0 {
            let doing = || "making /dev read-only";
            let place = root.resolve(&op.destination, OFlag::O_DIRECTORY).doing(doing)?;
            set_attr(&place, false, &MountAttr { set: attr::RDONLY, ..MountAttr::default() }).doing(doing)?;
        }
    }
    let mut kernels = kernels_own(root, plan)?;
    for path in &plan.readonly_paths {
        let doing = || format!("making {} read-only", path.display());
        let Some(place) = restricted(root, &mut kernels, path).doing(doing)? else { continue };
        let copy = clone_tree(&place, c"", true).doing(doing)?;
        set_attr(&copy, true, &MountAttr { set: attr::RDONLY, ..MountAttr::default() }).doing(doing)?;
        attach(&copy, &place).doing(doing)?;
    }
    let mut directory = Cover::default();
    let mut file = Cover(
        prepared.null.as_ref().map(OwnedFd::try_clone).transpose().doing(|| "copying a descriptor")?,
        false,
    );
    for path in &plan.masked_paths {
        let doing = || format!("masking {}", path.display());
        let Some(place) = restricted(root, &mut kernels, path).doing(doing)? else { continue };
        if !rootfs::is_dir(&place).doing(doing)? {
            file.attach(&place).doing(doing)?;
            continue;
        }
        if directory.0.is_none() {
            let attrs = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
            let empty = detached(c"tmpfs", &[(c"nr_blocks", c"1"), (c"nr_inodes", c"1")], attrs);
            directory.0 = Some(empty.doing(doing)?);
        }
        directory.attach(&place).doing(doing)?;
    }
    if plan.readonly_root {
        let attrs = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
        set_attr(root, false, &attrs).doing(|| "making the root read-only")?;
    }
    Ok(())
}

/// What is mounted on /proc and /sys, if it is the kernel's own, by descriptor.
type Kernels = Vec<(&'static Path, Root)>;

/// The procfs and sysfs that were mounted on /proc and /sys.
///
/// Who shares the root could move them aside, so that masks missed them: what is restricted below
/// these places is looked for in them, and they must still be there (CVE-2019-19921).
fn kernels_own(root: &Root, plan: &Plan) -> Result<Kernels> {
    const KINDS: [(&str, &CStr, i64); 2] =
        [("/proc", c"proc", libc::PROC_SUPER_MAGIC), ("/sys", c"sysfs", SYSFS_MAGIC)];
    let mut found = Vec::new();
    for (place, wanted, magic) in KINDS {
        let place = Path::new(place);
        let last = plan.mounts.iter().rev().find_map(|op| match &op.what {
            What::Remount { .. } => None,
            what => (op.destination == place).then_some(what),
        });
        let Some(What::FileSystem { kind, .. }) = last else { continue };
        if kind.as_c_str() != wanted {
            continue;
        }
        let doing = || format!("looking at {}", place.display());
        let own = root.resolve_without_links(place, OFlag::O_DIRECTORY).doing(doing)?;
        if fs_magic(&own).doing(doing)? != magic {
            return Err(Error::invalid(format!("{}: what was mounted there is gone", doing())));
        }
        found.push((place, Root::new(own)));
    }
    Ok(found)
}

/// The place to restrict, if the container has it.
fn restricted(root: &Root, kernels: &mut Kernels, path: &Path) -> nix::Result<Option<OwnedFd>> {
    // What covers one of them as a whole is what counts from then on.
    kernels.retain(|(at, _)| !at.starts_with(path));
    let below = kernels.iter().find_map(|(at, own)| Some((own, path.strip_prefix(at).ok()?)));
    let (root, path) = below.unwrap_or((root, path));
    match root.resolve(path, OFlag::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        other => other.map(Some),
    }
}

/// One mount that hides many places, and whether it is attached yet.
///
/// A detached mount cannot be copied before kernel 6.15: it is used up at the first place, and
/// copied from there for the others.
#[derive(Debug, Default)]
struct Cover(Option<OwnedFd>, bool);

impl Cover {
    fn attach(&mut self, place: &OwnedFd) -> nix::Result<()> {
        let Some(mount) = &self.0 else { return Ok(()) };
        if self.1 {
            return attach(clone_tree(mount, c"", false)?, place);
        }
        self.1 = true;
        attach(mount, place)
    }
}

/// Takes every whole procfs and sysfs of the host's away.
///
/// Below a root that was not pivoted they stay mounted, and the kernel lets a user namespace inside mount a fresh one
/// without masks as long as one is visible (mount_namespaces(7), `mnt_already_visible`).
fn drop_kernel_file_systems(rootfs: &Path) -> Result<()> {
    let doing = || "taking the host's procfs and sysfs away";
    let table = std::fs::read("/proc/self/mountinfo")
        .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EIO)))
        .doing(doing)?;
    let places = mountinfo::kernel_file_systems(&table);
    for place in places.iter().rev().filter(|place| !place.starts_with(rootfs)) {
        match nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH) {
            // Locked by a user namespace further out: covered instead.
            Err(Errno::EINVAL | Errno::EPERM) => {
                mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).doing(doing)?;
            }
            // It went with one above it.
            Err(Errno::ENOENT) => {}
            other => other.doing(doing)?,
        }
    }
    Ok(())
}

/// Makes the root the process's and the mount namespace's own, and lets go of the host's.
///
/// With `inherited`, the mount namespace of the runtime that the container shall live in, a copy of
/// the finished tree becomes the root there, attached to nothing: the host's mounts stay as they
/// are, and the tree goes with the last process in it.
pub fn enter(root: &Root, plan: &Plan, inherited: Option<&OwnedFd>) -> Result<()> {
    let doing = || "changing the root";
    if let Some(namespace) = inherited {
        let tree = clone_tree(root, c"", true).doing(doing)?;
        clone::setns(namespace, MOUNT).doing(|| "returning to the runtime's mount namespace")?;
        fchdir(&tree).and_then(|()| nix::unistd::chroot(".")).doing(doing)?;
        return nix::unistd::chdir("/").doing(doing);
    }
    fchdir(root.as_fd()).doing(doing)?;
    if plan.no_pivot {
        // On a ramfs there is nothing that can be pivoted away: the root is moved over it instead.
        drop_kernel_file_systems(&plan.rootfs)?;
        fchdir(root.as_fd()).doing(doing)?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).doing(doing)?;
        nix::unistd::chroot(".").doing(doing)?;
    } else {
        // The old root ends up on top of the new one, and is dropped from there (pivot_root(2), notes).
        pivot_root(".", ".").doing(doing)?;
        detach_cwd().doing(|| "letting go of the host's root")?;
    }
    nix::unistd::chdir("/").doing(doing)?;
    if let Some((flag @ (libc::MS_SHARED | libc::MS_UNBINDABLE), recursive)) = plan.root_propagation {
        let attrs = MountAttr { propagation: flag, ..MountAttr::default() };
        let fd = openat2(AT_FDCWD, "/", OFlag::O_PATH, 0, 0).doing(doing)?;
        set_attr(&fd, recursive, &attrs).doing(|| "setting the root's propagation")?;
    }
    Ok(())
}
