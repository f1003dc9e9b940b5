//! Process 1 of a kernel that has its virtio drivers as modules: it runs from an initramfs that the monitor wrote, loads
//! them in the order of their names, and goes on as `/init` of the tree that the host shares.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use locule_runtime::error::{Context, Result};
use locule_runtime::sys::fs::openat2;
use locule_runtime::sys::mount::{attach, attr, detached};
use locule_runtime::sys::process::execve;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::unistd::{UnlinkatFlags, chroot, fchdir, unlinkat};

/// The modules, unpacked, `NUMBER-NAME.ko`.
const EARLY: &str = "/early";
/// The tag of the shared tree, and the program in it.
const TAG: &std::ffi::CStr = c"locule";
const PROGRAM: &std::ffi::CStr = c"/init";

/// Comes back where there is no such initramfs, and with the reason where it does not lead on.
pub fn enter() -> Result<()> {
    if !Path::new(EARLY).is_dir() {
        return Ok(());
    }
    go_on().inspect_err(|err| {
        // Nothing is open yet.
        if let Ok(dev) = detached(c"devtmpfs", &[], attr::NOSUID | attr::NOEXEC)
            && let Ok(log) = openat2(&dev, "kmsg", OFlag::O_WRONLY, 0, 0)
        {
            let _ = nix::unistd::write(log, format!("<3>locule-guest: {err}").as_bytes());
        }
    })
}

fn go_on() -> Result<()> {
    let mut files: Vec<_> = std::fs::read_dir(EARLY)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .doing(|| format!("reading {EARLY}"))?;
    files.sort();
    for file in &files {
        insert(file)?;
    }
    let doing = || "mounting the tree that the host shares";
    let open = |path: &str| openat2(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0);
    let old = open("/").doing(doing)?;
    let tree = detached(c"virtiofs", &[(c"source", TAG)], 0).doing(doing)?;
    attach(&tree, &old).doing(doing)?;
    fchdir(&tree).doing(doing)?;
    chroot(".").doing(doing)?;
    forget(&old, &files);
    drop(old);
    Err(execve(PROGRAM, &[PROGRAM.to_owned()], &[]))
        .doing(|| "executing /init of the tree that the host shares")
}

fn insert(file: &Path) -> Result<()> {
    let doing = || format!("inserting {}", file.display());
    let module = File::open(file).doing(doing)?;
    match finit_module(&module, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).doing(doing),
    }
}

/// Gives the memory of the initramfs back; this program's own is kept until the next one is executed.
fn forget(old: &OwnedFd, files: &[std::path::PathBuf]) {
    for file in files.iter().map(|file| file.as_path()).chain([Path::new("/init")]) {
        let _ = unlinkat(old, file.strip_prefix("/").unwrap_or(file), UnlinkatFlags::NoRemoveDir);
    }
}
