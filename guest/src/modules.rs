//! Kernel modules of the guest, from the host's folder of them (`/modules`, which is /lib/modules/RELEASE).
//!
//! Loads those that the machine's virtio devices need and those that the host names, with what they
//! depend on first. A module that is built in, or loaded already, is done.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use locule_runtime::error::{Context, Error, Result};
use locule_runtime::isolation::modules::{names, order};
use locule_runtime::sys::fs::openat2;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};

/// Where the host's folder is.
const FOLDER: &str = "/modules";

/// Device numbers of virtio (5, Device Types) and the kernel's modules for them.
const DRIVERS: [(u32, &str); 9] = [
    (1, "virtio_net"),
    (2, "virtio_blk"),
    (3, "virtio_console"),
    (4, "virtio_rng"),
    (5, "virtio_balloon"),
    (19, "vmw_vsock_virtio_transport"),
    (24, MEMORY),
    (26, "virtiofs"),
    (27, "virtio_pmem"),
];

/// The module by which a machine gets more memory than it was started with; not loaded before that is asked for.
pub const MEMORY: &str = "virtio_mem";

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h (5.17).
const COMPRESSED: u32 = 4;

/// A module that is larger than this when it is unpacked is none, in bytes.
const LARGEST: u64 = 64 << 20;

/// Modules that devices without a driver need.
pub fn missing() -> Vec<&'static str> {
    let Ok(devices) = std::fs::read_dir("/sys/bus/virtio/devices") else { return Vec::new() };
    let mut names = BTreeSet::new();
    for device in devices.flatten().map(|entry| entry.path()) {
        let number = std::fs::read_to_string(device.join("device")).unwrap_or_default();
        let number = u32::from_str_radix(number.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        if !device.join("driver").exists() {
            names.extend(DRIVERS.iter().filter(|(kind, _)| *kind == number).map(|(_, name)| *name));
        }
    }
    names.into_iter().collect()
}

/// Loads `names`; what failed is told in the answer, one text each.
pub fn load<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names = names.into_iter().peekable();
    if names.peek().is_none() {
        return Vec::new();
    }
    match Folder::open(Path::new(FOLDER)) {
        Ok(folder) => names.filter_map(|name| folder.load(name).err()).map(|err| err.to_string()).collect(),
        Err(err) => vec![err.to_string()],
    }
}

/// The folder and its tables.
#[derive(Debug)]
struct Folder {
    dir: OwnedFd,
    dependencies: String,
    builtin: String,
}

impl Folder {
    fn open(path: &Path) -> Result<Folder> {
        let doing = || format!("reading the kernel's modules in {}", path.display());
        let dir =
            openat2(nix::fcntl::AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).doing(doing)?;
        let read = |name: &str| {
            let mut text = String::new();
            let file = openat2(&dir, name, OFlag::O_RDONLY, 0, 0)?;
            File::from(file)
                .take(LARGEST)
                .read_to_string(&mut text)
                .map_err(|err| Errno::from_raw(err.raw_os_error().unwrap_or(libc::EILSEQ)))?;
            Ok::<_, Errno>(text)
        };
        let builtin = read("modules.builtin").unwrap_or_default();
        let dependencies = read("modules.dep").doing(doing)?;
        Ok(Folder { dir, dependencies, builtin })
    }

    fn load(&self, name: &str) -> Result<()> {
        let doing = || format!("loading the kernel module {name}");
        if self.builtin.lines().any(|file| names(file, name)) {
            return Ok(());
        }
        let files = order(&self.dependencies, name).ok_or_else(|| {
            Error::unsupported(format!("{}: the kernel's folder of modules has none of that name", doing()))
        })?;
        for file in files {
            self.insert(file).map_err(|err| err.context(doing()))?;
        }
        Ok(())
    }

    fn insert(&self, file: &str) -> Result<()> {
        let doing = || format!("inserting {file}");
        // modules.dep comes with the folder; nothing in it leads out of it.
        let fd = openat2(&self.dir, file, OFlag::O_RDONLY, 0, libc::RESOLVE_BENEATH).doing(doing)?;
        let plain = file.ends_with(".ko");
        let flags = if plain { 0 } else { COMPRESSED };
        let inserted = match finit_module(&fd, c"", ModuleInitFlags::from_bits_retain(flags)) {
            // The kernel has no decompressor, or not this one.
            Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOEXEC) if file.ends_with(".xz") => {
                init_module(&unpack(fd).doing(doing)?, c"")
            }
            other => other,
        };
        match inserted {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno).doing(doing),
        }
    }
}

/// Unpacks xz.
fn unpack(file: OwnedFd) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    lzma_rust2::XzReader::new(File::from(file), false).take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
