//! Root file systems: shared layers below, an own upper directory above, mounted by descriptor.
//!
//! Owns overlayfs's options and the state directory of a mount. Layers are never written; for a
//! user namespace they are idmapped, so no file changes its owner.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Context, Error, Kind, Result};
use crate::host;
use crate::store::{Record, Store, encode};
use crate::sys::creds::FileIds;
use crate::sys::fs::{BENEATH, IN_ROOT, cstring, openat2};
use crate::sys::{mount, userns};
use crate::unpack::Options;

/// Whose ids the files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map {
    /// What 0 in the image is on the host.
    pub first: u32,
    /// How many ids.
    pub count: u32,
}

impl Map {
    /// Reads `FIRST:COUNT`.
    pub fn parse(text: &str) -> Result<Map> {
        text.split_once(':')
            .and_then(|(first, count)| Some(Map { first: first.parse().ok()?, count: count.parse().ok()? }))
            .filter(|map| map.count > 0 && map.first.checked_add(map.count).is_some())
            .ok_or_else(|| {
                Error::invalid(format!("the map {text:?} is not FIRST:COUNT, such as 100000:65536"))
            })
    }
}

/// A root file system to be mounted.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// The image: a name in the store, or `host`.
    pub image: String,
    /// Where the upper directories are; kept over reboots, removed with the root file system.
    pub state: PathBuf,
    /// Idmapped layers, for a user namespace.
    pub map: Option<Map>,
    /// Without an upper directory: nothing can be written.
    pub read_only: bool,
    /// Files of the upper directory have the image's ids as those of the layers have, and are mapped with
    /// them: another map needs no change of owners. Nobody else may be able to reach the upper directory.
    pub inside: bool,
}

/// What is mounted with a state directory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mounted {
    /// The image; none for `host`.
    pub record: Option<Record>,
    /// Whose ids the files have.
    pub map: Option<Map>,
}

impl Mounted {
    /// Reads what `state` says of itself.
    pub fn read(state: &Path) -> Result<Mounted> {
        let path = state.join("mounted.json");
        let bytes = fs::read(&path).doing(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&bytes).doing(|| format!("reading {}", path.display()))
    }
}

/// One overlay: layers, the topmost first, and the directory with its `upper` and `work`.
struct Overlay<'a> {
    lowers: &'a [PathBuf],
    state: &'a Path,
}

impl Rootfs {
    /// The state directory that a mount on `target` has if nobody says another.
    pub fn default_state(store: &Store, target: &Path) -> PathBuf {
        let name = encode(&target.to_string_lossy());
        let name = if name.len() > 200 { Digest::of(name.as_bytes()).hex().to_owned() } else { name };
        store.root().join("mounts").join(name)
    }

    /// Mounts it on the directory `target`.
    pub fn mount(&self, store: &Store, target: &Path) -> Result<()> {
        let doing = || format!("mounting {} on {}", self.image, target.display());
        let share = store.share()?;
        make_dir(&self.state)?;
        let place = File::open(target).map(OwnedFd::from).doing(doing)?;
        let userns = self.userns().map_err(|err| err.context(doing()))?;
        let act = || {
            if self.image == host::NAME {
                self.remember(store, None)?;
                return self.mount_host(&place, target, userns.as_ref());
            }
            let image = store.find(&self.image)?;
            let diff_ids = &image.config.rootfs.diff_ids;
            store.pin(&self.state, diff_ids)?;
            self.remember(store, Some(image.record.clone()))?;
            let lowers = store.layers(diff_ids)?;
            self.overlay(&Overlay { lowers: &lowers, state: &self.state }, userns.as_ref(), &place)
        };
        let done = act().map_err(|err| err.context(doing()));
        drop(share);
        done
    }

    /// Mounts the layers `diff_ids`, or for none the host's own system, on the directory `target`: for a
    /// caller who remembers what it made of which image, and who pinned the layers.
    pub fn mount_layers(&self, store: &Store, diff_ids: Option<&[Digest]>, target: &Path) -> Result<()> {
        make_dir(&self.state)?;
        let place =
            File::open(target).map(OwnedFd::from).doing(|| format!("opening {}", target.display()))?;
        let userns = self.userns()?;
        match diff_ids {
            None => self.mount_host(&place, target, userns.as_ref()),
            Some(diff_ids) => {
                let lowers = store.layers(diff_ids)?;
                self.overlay(&Overlay { lowers: &lowers, state: &self.state }, userns.as_ref(), &place)
            }
        }
    }

    fn userns(&self) -> Result<Option<OwnedFd>> {
        let made = self.map.map(|map| userns::mapped(map.first, map.count));
        made.transpose().doing(|| "making a user namespace for idmapped layers")
    }

    /// Writes down what the upper directory belongs to, and refuses one of another image.
    fn remember(&self, store: &Store, record: Option<Record>) -> Result<()> {
        if let Ok(known) = Mounted::read(&self.state) {
            let same = known.record.as_ref().map(|known| &known.manifest.digest)
                == record.as_ref().map(|record| &record.manifest.digest);
            if !same || known.map != self.upper_map() {
                return Err(Error::new(
                    Kind::Busy,
                    format!("{} belongs to another image or map", self.state.display()),
                )
                .hint("unmount it without --keep, or choose another --state"));
            }
            return Ok(());
        }
        let text = serde_json::to_vec(&Mounted { record, map: self.upper_map() })
            .doing(|| format!("writing {}", self.state.display()))?;
        store.write_whole(&self.state.join("mounted.json"), &text)
    }

    /// What the owners of files in the upper directory are shifted by.
    fn upper_map(&self) -> Option<Map> {
        self.map.filter(|_| !self.inside)
    }

    /// The host's own system: what it is made of, each below an upper directory of its own.
    fn mount_host(&self, place: &OwnedFd, target: &Path, userns: Option<&OwnedFd>) -> Result<()> {
        let skeleton = self.state.join("skeleton");
        let system = host::System::of(Path::new("/"));
        if !skeleton.is_dir() {
            system.make_skeleton(&skeleton)?;
        }
        self.overlay(&Overlay { lowers: &[skeleton], state: &self.state }, userns, place)?;
        // What is mounted, not what it is mounted on.
        let root = File::open(target).map(OwnedFd::from).doing(|| format!("opening {}", target.display()))?;
        let mounted = system.trees.iter().try_for_each(|tree| {
            let place =
                openat2(root.as_fd(), tree.as_bytes(), OFlag::O_PATH | OFlag::O_DIRECTORY, 0, IN_ROOT)
                    .doing(|| format!("opening /{tree} of the new root"))?;
            let state = self.state.join("trees").join(encode(tree));
            self.overlay(&Overlay { lowers: &[Path::new("/").join(tree)], state: &state }, userns, &place)
        });
        if mounted.is_err() {
            let _ = umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
        mounted
    }

    fn overlay(&self, overlay: &Overlay<'_>, userns: Option<&OwnedFd>, place: &OwnedFd) -> Result<()> {
        make_dir(overlay.state)?;
        let mut trees = Vec::new();
        for lower in overlay.lowers {
            let doing = || format!("opening the layer {}", lower.display());
            trees.push(match userns {
                Some(userns) => mapped_tree(lower, userns)?,
                None => File::open(lower).map(OwnedFd::from).doing(doing)?,
            });
        }
        let above = match userns {
            Some(userns) if self.inside && !self.read_only => Some(mapped_tree(overlay.state, userns)?),
            _ => None,
        };
        let upper = if self.read_only { None } else { Some(self.upper(overlay, above.as_ref())?) };
        // Without an upper directory, two layers are the least.
        let empty = overlay.state.join("empty");
        if upper.is_none() && trees.len() < 2 {
            make_dir(&empty)?;
            trees.push(
                File::open(&empty).map(OwnedFd::from).doing(|| format!("opening {}", empty.display()))?,
            );
        }
        let mounted = match self.create(&trees, upper.as_ref()) {
            // Before 6.15 overlayfs takes no detached mounts: give them a place for a moment.
            Err(err) if userns.is_some() && err.errno() == Some(Errno::EINVAL) => {
                self.create_attached(overlay, &trees, upper, above.as_ref())?
            }
            other => other?,
        };
        mount::attach(&mounted, place).doing(|| "attaching it")
    }

    /// Makes and opens `upper` and `work`, in the mapped tree `above` where there is one.
    fn upper(&self, overlay: &Overlay<'_>, above: Option<&OwnedFd>) -> Result<(OwnedFd, OwnedFd)> {
        let (upper, work) = (overlay.state.join("upper"), overlay.state.join("work"));
        make_dir(&work)?;
        if !upper.is_dir() {
            // The root directory of what is seen is this one: it takes after the topmost layer's.
            let top = overlay.lowers.first().map_or_else(|| overlay.state.to_owned(), Clone::clone);
            let meta = fs::metadata(&top).doing(|| format!("looking at {}", top.display()))?;
            // Under another name first: an upper directory that is there is whole.
            let part = overlay.state.join("upper.part");
            make_dir(&part)?;
            use std::os::unix::fs::{MetadataExt, chown};
            let owner = |id: u32| self.upper_map().map_or(id, |map| map.first.saturating_add(id));
            if nix::unistd::geteuid().is_root() {
                chown(&part, Some(owner(meta.uid())), Some(owner(meta.gid())))
                    .doing(|| format!("setting the owner of {}", part.display()))?;
            }
            fs::set_permissions(&part, meta.permissions())
                .doing(|| format!("setting the mode of {}", part.display()))?;
            fs::rename(&part, &upper).doing(|| format!("naming {}", upper.display()))?;
        }
        match above {
            Some(above) => open_upper(above.as_fd(), overlay.state),
            None => {
                let state =
                    File::open(overlay.state).doing(|| format!("opening {}", overlay.state.display()))?;
                open_upper(state.as_fd(), overlay.state)
            }
        }
    }

    fn create(&self, lowers: &[OwnedFd], upper: Option<&(OwnedFd, OwnedFd)>) -> Result<OwnedFd> {
        let doing = || "making the overlay".to_owned();
        let ctx = mount::fsopen(c"overlay").doing(doing)?;
        let by_fd = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let set = |key: &std::ffi::CStr, value: &str| {
            let value = CString::new(value).map_err(|_| Errno::EINVAL)?;
            mount::set_string(&ctx, key, &value)
        };
        let configure = || {
            set(c"source", "locule")?;
            let each = lowers.iter().try_for_each(|lower| set(c"lowerdir+", &by_fd(lower)));
            match each {
                // Before 6.7 all of them are one text, which fsconfig(2) limits to 255 bytes.
                Err(Errno::EINVAL) => {
                    let all: Vec<String> = lowers.iter().map(by_fd).collect();
                    set(c"lowerdir", &all.join(":"))?;
                }
                other => other?,
            }
            if let Some((upper, work)) = upper {
                set(c"upperdir", &by_fd(upper))?;
                set(c"workdir", &by_fd(work))?;
            }
            // What is written above must be whole, so that it can become a layer.
            set(c"metacopy", "off")?;
            set(c"index", "off")?;
            if Options::here().userxattr {
                // With user.* attributes the kernel takes no other word, which here means the same.
                set(c"redirect_dir", "nofollow")?;
                mount::set_flag(&ctx, c"userxattr")?;
            } else {
                set(c"redirect_dir", "off")?;
            }
            let attrs = if self.map.is_some() { mount::NODEV } else { 0 };
            let attrs = if upper.is_none() { attrs | mount::RDONLY } else { attrs };
            // Who makes the mount makes files in a mapped upper directory, and needs an id there.
            let _owner = match self.map.filter(|_| self.inside) {
                Some(map) => Some(FileIds::of(map.first)?),
                None => None,
            };
            mount::create(&ctx, attrs)
        };
        configure().map_err(|errno| {
            let err = Error::sys(errno, doing());
            match mount::message(&ctx) {
                Some(said) => err.hint(said),
                None => err,
            }
        })
    }

    fn create_attached(
        &self,
        overlay: &Overlay<'_>,
        trees: &[OwnedFd],
        upper: Option<(OwnedFd, OwnedFd)>,
        above: Option<&OwnedFd>,
    ) -> Result<OwnedFd> {
        let mut places = Vec::new();
        let mut attach = |tree: &OwnedFd, name: String| {
            let path = overlay.state.join(name);
            make_dir(&path)?;
            let doing = || format!("attaching a layer to {}", path.display());
            let place = File::open(&path).map(OwnedFd::from).doing(doing)?;
            mount::attach(tree, &place).doing(doing)?;
            places.push(path.clone());
            File::open(&path).map(OwnedFd::from).doing(doing)
        };
        let act = || {
            let lowers = trees
                .iter()
                .enumerate()
                .map(|(i, tree)| attach(tree, format!("lower-{i}")))
                .collect::<Result<Vec<OwnedFd>>>()?;
            let upper = match above {
                Some(above) => Some(open_upper(attach(above, "above".into())?.as_fd(), overlay.state)?),
                None => upper,
            };
            self.create(&lowers, upper.as_ref())
        };
        let made = act();
        for path in places {
            let _ = umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
            let _ = fs::remove_dir(&path);
        }
        made
    }
}

/// Unmounts what is on `target`; with `keep`, the upper directories stay.
pub fn umount(store: &Store, target: &Path, state: &Path, keep: bool) -> Result<()> {
    let doing = || format!("unmounting {}", target.display());
    umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| match errno {
        Errno::EINVAL => Error::new(Kind::NotFound, format!("{}: nothing is mounted there", doing())),
        errno => Error::sys(errno, doing()),
    })?;
    if keep { Ok(()) } else { remove(store, state) }
}

/// Removes the state of a root file system and lets its layers go.
pub fn remove(store: &Store, state: &Path) -> Result<()> {
    let doing = || format!("removing {}", state.display());
    if let (Some(parent), Some(name)) = (state.parent(), state.file_name()) {
        let parent = File::open(parent).doing(doing)?;
        let name = std::os::unix::ffi::OsStrExt::as_bytes(name);
        crate::unpack::tree::remove_all(parent.as_fd(), name, 0).doing(doing)?;
    }
    store.unpin(state)
}

/// A detached mount of the directory `path` whose ids are mapped.
fn mapped_tree(path: &Path, userns: &OwnedFd) -> Result<OwnedFd> {
    let name = path_c(path)?;
    let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, &name)
        .doing(|| format!("opening the layer {}", path.display()))?;
    mount::set_idmap(&tree, userns)
        .map_err(|errno| Error::sys(errno, format!("mapping the ids of {}", path.display())))
        .map_err(|err| match err.errno() {
            Some(Errno::EINVAL | Errno::EOPNOTSUPP) => {
                err.hint("its file system has no idmapped mounts in this kernel")
            }
            _ => err,
        })?;
    Ok(tree)
}

/// `upper` and `work` of the directory `state`, which is shown as `name`.
fn open_upper(state: BorrowedFd<'_>, name: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let open = |below: &str| {
        openat2(state, below.as_bytes(), OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, 0, BENEATH)
            .doing(|| format!("opening {}", name.join(below).display()))
    };
    Ok((open("upper")?, open("work")?))
}

fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing(|| format!("making {}", path.display()))
}

fn path_c(path: &Path) -> Result<CString> {
    cstring(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
        .doing(|| format!("opening {}", path.display()))
}
