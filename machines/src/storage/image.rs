//! The image as one tree, for a disk that is filled from it.
//!
//! Owns the temporary view of stacked layers, which nobody else sees and which ends with the process.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use locule_images::host::System;
use locule_images::sys::fs::{BENEATH, openat2};
use locule_images::sys::mount;
use locule_images::{Digest, Store};
use nix::fcntl::OFlag;

use super::copy::{Copy, Form, Progress};
use crate::{Context, Error, Result, lift};

/// Copies the image's layers, or for none the host's own system, into the directory `to`.
///
/// `scratch` is a directory for what is needed meanwhile.
pub fn fill(
    images: &Store,
    layers: Option<&[Digest]>,
    to: &OwnedFd,
    scratch: &Path,
    progress: &mut dyn Progress,
) -> Result<()> {
    let mut copy = Copy::new(Form::Whole, progress);
    let Some(layers) = layers else { return host(to, scratch, &mut copy) };
    let paths = images.layers(layers).map_err(lift)?;
    let open = |path: &Path| {
        File::open(path).map(OwnedFd::from).doing(|| format!("opening the layer {}", path.display()))
    };
    let trees = paths.iter().map(|path| open(path)).collect::<Result<Vec<OwnedFd>>>()?;
    let view = match trees.as_slice() {
        [one] => one.try_clone().doing(|| "opening the layer")?,
        several => stacked(several)?,
    };
    copy.tree(view.as_fd(), to.as_fd())
}

/// The layers as overlayfs shows them, the topmost first.
fn stacked(trees: &[OwnedFd]) -> Result<OwnedFd> {
    let doing = || "stacking the image's layers";
    let ctx = mount::fsopen(c"overlay").doing(doing)?;
    let paths: Vec<String> = trees.iter().map(|tree| format!("/proc/self/fd/{}", tree.as_raw_fd())).collect();
    let set = |key: &std::ffi::CStr, value: &str| {
        CString::new(value)
            .map_err(|_| nix::errno::Errno::EINVAL)
            .and_then(|value| mount::set_string(&ctx, key, &value))
    };
    let made = set(c"source", "locule")
        .and_then(|()| match paths.iter().try_for_each(|path| set(c"lowerdir+", path)) {
            // Before 6.7 all of them are one text.
            Err(nix::errno::Errno::EINVAL) => set(c"lowerdir", &paths.join(":")),
            other => other,
        })
        .and_then(|()| mount::create(&ctx, mount::RDONLY));
    made.map_err(|errno| {
        let err = Error::sys(errno, doing());
        match mount::message(&ctx) {
            Some(said) => err.hint(said),
            None => err,
        }
    })
}

/// The host's own system, with its shared directories copied.
fn host(to: &OwnedFd, scratch: &Path, copy: &mut Copy<'_>) -> Result<()> {
    let system = System::of(Path::new("/"));
    let skeleton = scratch.join("skeleton");
    let mut made = || {
        system.make_skeleton(&skeleton).map_err(lift)?;
        let open =
            |path: &Path| File::open(path).map(OwnedFd::from).doing(|| format!("opening {}", path.display()));
        copy.tree(open(&skeleton)?.as_fd(), to.as_fd())?;
        for tree in &system.trees {
            let place = openat2(
                to.as_fd(),
                tree.as_bytes(),
                OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
                0,
                BENEATH,
            )
            .doing(|| format!("opening /{tree} of the disk"))?;
            copy.tree(open(&Path::new("/").join(tree))?.as_fd(), place.as_fd())
                .map_err(|err| err.context(format!("copying /{tree}")))?;
        }
        Ok(())
    };
    let made = made();
    let _ = fs::remove_dir_all(&skeleton);
    made
}
