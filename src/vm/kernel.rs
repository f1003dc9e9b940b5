//! Which kernel a machine boots: one that is installed on this host and has what a machine needs, built in or as modules
//! for an initramfs.
//!
//! Owns the search, the verdict and the choice that `locule vm kernel use` keeps. Unpacking is in `cache`.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use locule_runtime::error::Context;
use locule_runtime::isolation::modules;
use locule_runtime::sys::fs::{cstring, openat2};
use locule_runtime::sys::mount::clone_tree;
use locule_runtime::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};

use super::cache;

/// Options that a kernel must have before its root file system, and what for.
const NEEDED: [(&str, &str, &str); 6] = [
    // option, the module that it can be, purpose
    ("VIRTIO_PCI", "virtio_pci", "devices"),
    ("VIRTIO_FS", "virtiofs", "its root file system"),
    ("FUSE_FS", "fuse", "its root file system"),
    ("VIRTIO_CONSOLE", "virtio_console", "the channel to its agent"),
    ("PVH", "", "its entry"),
    ("ACPI", "", "the list of its devices"),
];

/// The table in a folder of modules.
const TABLE: &str = "modules.dep";
/// The file that names the chosen kernel.
const CHOICE: &str = "chosen";

/// A kernel of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its image.
    pub image: PathBuf,
    /// Its version, as `uname -r` tells it; absent where the file's name does not say.
    pub version: Option<String>,
    /// Its modules.
    pub modules: Option<PathBuf>,
    /// Modules that it needs before its root file system, so that it boots with an initramfs.
    pub early: Vec<&'static str>,
    /// Why it cannot boot a machine; empty for one that can.
    pub problems: Vec<String>,
}

/// A kernel, ready to be booted.
#[derive(Debug)]
pub struct Opened {
    /// The unpacked image, an ELF file, or the file as it is.
    pub image: File,
    /// Its modules.
    pub modules: Option<File>,
    /// The initramfs, where it needs one.
    pub initramfs: Option<File>,
}

/// All kernels of this host, the newest first.
pub fn all() -> Vec<Kernel> {
    let mut found: BTreeMap<PathBuf, Kernel> = BTreeMap::new();
    let mut add = |image: PathBuf, version: Option<String>| {
        let Ok(real) = std::fs::canonicalize(&image) else { return };
        found.entry(real).or_insert_with(|| Kernel::look(image, version));
    };
    for entry in listed("/boot") {
        if let Some(version) = entry.file_name().and_then(|name| name.to_str()?.strip_prefix("vmlinuz-")) {
            add(entry.clone(), Some(version.to_owned()));
        }
    }
    for dir in ["/lib/modules", "/usr/lib/modules"] {
        for entry in listed(dir) {
            if let Some(version) = entry.file_name().and_then(|name| name.to_str()) {
                add(entry.join("vmlinuz"), Some(version.to_owned()));
            }
        }
    }
    for entry in listed(own_directory()) {
        if entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinux-")) {
            add(entry, None);
        }
    }
    let mut all: Vec<Kernel> = found.into_values().collect();
    all.sort_by_key(|kernel| std::cmp::Reverse(parts(kernel.version.as_deref().unwrap_or_default())));
    all
}

/// Kernels that `locule vm kernel build` made.
fn own_directory() -> PathBuf {
    cache::directory().unwrap_or_else(|_| PathBuf::from("/var/lib/locule/kernels"))
}

fn listed(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

/// A version as numbers, so that 6.12 is newer than 6.9.
fn parts(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The kernel that machines boot: the chosen one, or the newest that qualifies, better without an initramfs.
pub fn chosen() -> Result<Kernel> {
    if let Some(image) = choice() {
        let version = version_of(&image);
        let kernel = Kernel::look(image, version);
        if kernel.problems.is_empty() {
            return Ok(kernel);
        }
        return Err(Error::unsupported(format!(
            "the chosen kernel {} cannot boot a virtual machine: {}",
            kernel.image.display(),
            kernel.problems.join("; ")
        ))
        .hint("choose another one with locule vm kernel use"));
    }
    let all = all();
    let mut bootable = all.iter().filter(|kernel| kernel.problems.is_empty());
    let newest = bootable.clone().next();
    match bootable.find(|kernel| kernel.early.is_empty()).or(newest) {
        Some(kernel) => Ok(kernel.clone()),
        None if all.is_empty() => {
            Err(Error::unsupported("no kernel is installed that a virtual machine could boot")
                .hint("install one (Debian: linux-image-cloud-amd64), or name one with locule vm kernel use"))
        }
        None => Err(Error::unsupported(format!(
            "none of the {} installed kernels can boot a virtual machine: {}: {}",
            all.len(),
            all[0].image.display(),
            all[0].problems.join("; ")
        ))
        .hint("locule vm kernel ls tells of each")),
    }
}

/// The image that `locule vm kernel use` chose.
pub fn choice() -> Option<PathBuf> {
    let dir = cache::directory().ok()?;
    let text = std::fs::read_to_string(dir.join(CHOICE)).ok()?;
    Some(PathBuf::from(text.trim_end())).filter(|path| path.is_absolute())
}

/// Makes `word` (a version, a path, or `auto`) the choice.
pub fn choose(word: &str) -> Result<Option<Kernel>> {
    let dir = cache::directory()?;
    if word == "auto" {
        return match std::fs::remove_file(dir.join(CHOICE)) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(err).doing(|| "forgetting the chosen kernel")
            }
            _ => Ok(None),
        };
    }
    let kernel = if word.contains('/') {
        let image = std::fs::canonicalize(word).doing(|| format!("opening the kernel {word}"))?;
        let version = version_of(&image);
        Kernel::look(image, version)
    } else {
        all().into_iter().find(|kernel| kernel.version.as_deref() == Some(word)).ok_or_else(|| {
            Error::invalid(format!("no kernel {word:?} is installed")).hint("locule vm kernel ls lists them")
        })?
    };
    if !kernel.problems.is_empty() {
        return Err(Error::unsupported(format!(
            "{} cannot boot a virtual machine: {}",
            kernel.image.display(),
            kernel.problems.join("; ")
        )));
    }
    cache::make(&dir)?;
    locule_runtime::state::write_atomic(&dir.join(CHOICE), kernel.image.as_os_str().as_encoded_bytes())?;
    Ok(Some(kernel))
}

/// What a file's name, or that of its directory, says of the version.
fn version_of(image: &Path) -> Option<String> {
    let name = image.file_name()?.to_str()?;
    match name.split_once('-') {
        Some(("vmlinuz" | "vmlinux" | "bzImage", version)) => Some(version.to_owned()),
        _ => {
            let dir = image.parent()?;
            let known = dir.parent()?.ends_with("modules");
            known.then(|| dir.file_name()?.to_str().map(str::to_owned)).flatten()
        }
    }
}

impl Kernel {
    fn look(image: PathBuf, version: Option<String>) -> Kernel {
        let modules = version.as_deref().and_then(|version| {
            ["/lib/modules", "/usr/lib/modules"]
                .map(|dir| Path::new(dir).join(version))
                .into_iter()
                .find(|dir| dir.is_dir())
        });
        let mut problems = Vec::new();
        if let Err(err) = File::open(&image) {
            problems.push(match err.kind() {
                std::io::ErrorKind::PermissionDenied => "only root may read it".to_owned(),
                _ => format!("it cannot be opened: {err}"),
            });
        }
        let config = configuration(&image, version.as_deref());
        let mut early = Vec::new();
        match (&config, &version) {
            (Some(config), _) => {
                let (absent, modular) = lacks(config);
                if !absent.is_empty() {
                    problems.push(format!("it lacks {}", absent.join(", ")));
                }
                let table = modules.as_ref().and_then(|dir| std::fs::read_to_string(dir.join(TABLE)).ok());
                let missing = missing(&modular, table.as_deref().unwrap_or_default());
                if !missing.is_empty() {
                    problems.push(format!(
                        "{} are modules of it, and its folder of modules is missing or lacks them",
                        missing.join(", ")
                    ));
                }
                early = modular;
            }
            // One that locule built has what it needs; of another one nothing is known.
            (None, _) if image.starts_with(own_directory()) => {}
            (None, _) => problems.push(
                "its configuration is not known: neither /boot/config-VERSION nor /lib/modules/VERSION/config is there".into(),
            ),
        }
        Kernel { image, version, modules, early, problems }
    }

    /// Opens it, unpacked; with an initramfs, if it needs one, whose program is `agent`.
    pub fn open(&self, agent: &File) -> Result<Opened> {
        let doing = || format!("opening the kernel {}", self.image.display());
        let file = File::open(&self.image).doing(doing)?;
        let meta = file.metadata().doing(doing)?;
        if !super::is_trusted(&meta) {
            return Err(Error::invalid(format!("{}: others than root and you may write it", doing())));
        }
        let modules = self
            .modules
            .as_ref()
            .map(|dir| alone(dir).doing(|| format!("opening the modules {}", dir.display())))
            .transpose()?;
        let image = cache::unpacked(file, &self.image)?;
        let initramfs = match &self.modules {
            Some(dir) if !self.early.is_empty() => Some(self.initramfs(dir, agent)?),
            _ => None,
        };
        Ok(Opened { image, modules, initramfs })
    }

    fn initramfs(&self, dir: &Path, agent: &File) -> Result<File> {
        let doing = || format!("making the initramfs of the kernel {}", self.image.display());
        let table = File::open(dir.join(TABLE)).doing(doing)?;
        cache::made("cpio", &[&table, agent], || {
            let table = std::fs::read_to_string(dir.join(TABLE)).doing(doing)?;
            let files = in_order(&self.early, &table);
            let modules = files
                .into_iter()
                .map(|file| {
                    Ok((file.to_owned(), std::fs::read(dir.join(file)).doing(|| format!("reading {file}"))?))
                })
                .collect::<Result<Vec<_>>>()
                .map_err(|err| err.context(doing()))?;
            // At its start: others may have read from this descriptor.
            let mut program = vec![0; usize::try_from(agent.metadata().doing(doing)?.len()).unwrap_or(0)];
            agent.read_exact_at(&mut program, 0).doing(doing)?;
            locule_vmm::kernel::initramfs(&program, &modules)
                .map_err(|err| Error::invalid(format!("{}: {err}", doing())))
        })
    }
}

/// A directory as a mount of nothing else, so that no way leads out of it, whoever has got hold of the descriptor.
fn alone(dir: &Path) -> nix::Result<File> {
    match clone_tree(AT_FDCWD, &cstring(dir)?, false) {
        Ok(mount) => Ok(mount.into()),
        // It takes rights over the mount namespace. Without them, what is found outside is what any program of the
        // caller's may find.
        Err(Errno::EPERM) => openat2(AT_FDCWD, dir, OFlag::O_PATH | OFlag::O_DIRECTORY, 0, 0).map(File::from),
        Err(errno) => Err(errno),
    }
}

/// What is known of a kernel's configuration.
#[derive(Debug, PartialEq, Eq)]
enum Config {
    /// The text with which it was built.
    Text(String),
    /// The list of what is built in, which names no option that cannot be a module.
    Builtin(String),
}

fn configuration(image: &Path, version: Option<&str>) -> Option<Config> {
    let beside = |name: String| std::fs::read_to_string(image.with_file_name(name)).ok();
    if let Some(version) = version {
        let places = [
            format!("/boot/config-{version}"),
            format!("/lib/modules/{version}/config"),
            format!("/usr/lib/modules/{version}/config"),
        ];
        let text = places.iter().find_map(|place| std::fs::read_to_string(place).ok());
        if let Some(text) = text.or_else(|| beside(format!("config-{version}"))) {
            return Some(Config::Text(text));
        }
        let places =
            ["/lib/modules", "/usr/lib/modules"].map(|dir| format!("{dir}/{version}/modules.builtin"));
        return places.iter().find_map(|place| std::fs::read_to_string(place).ok()).map(Config::Builtin);
    }
    None
}

/// The modules of `names` that a table of modules does not have.
fn missing(names: &[&'static str], table: &str) -> Vec<&'static str> {
    names.iter().copied().filter(|name| modules::order(table, name).is_none()).collect()
}

/// The files of `names` and of what they depend on, each once, in the order of their insertion.
fn in_order<'a>(names: &[&str], table: &'a str) -> Vec<&'a str> {
    let mut files: Vec<&str> = Vec::new();
    for file in names.iter().filter_map(|name| modules::order(table, name)).flatten() {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// What a configuration lacks, with its purpose, and the modules that it has instead of being built in.
fn lacks(config: &Config) -> (Vec<String>, Vec<&'static str>) {
    let mut modular = Vec::new();
    let mut absent = Vec::new();
    for (option, module, purpose) in NEEDED {
        match config {
            Config::Text(text) => {
                let value = text
                    .lines()
                    .find_map(|line| line.strip_prefix("CONFIG_")?.strip_prefix(option)?.strip_prefix('='));
                match value {
                    Some("y") => {}
                    Some("m") if !module.is_empty() => modular.push(module),
                    _ => absent.push(format!("{option} (for {purpose})")),
                }
            }
            Config::Builtin(_) if module.is_empty() => {}
            Config::Builtin(text) => {
                let name = format!("/{module}.ko");
                if !text.lines().any(|line| line.trim_end().ends_with(&name)) {
                    modular.push(module);
                }
            }
        }
    }
    (absent, modular)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_modular_or_absent_is_told() {
        let all = NEEDED.map(|(option, ..)| format!("CONFIG_{option}=y")).join("\n");
        assert_eq!(lacks(&Config::Text(all.clone())), (vec![], vec![]));
        let (absent, modular) =
            lacks(&Config::Text(all.replace("VIRTIO_FS=y", "VIRTIO_FS=m").replace("CONFIG_PVH=y\n", "")));
        assert_eq!((absent, modular), (vec!["PVH (for its entry)".to_owned()], vec!["virtiofs"]));
        // A longer name is another option.
        let (absent, _) =
            lacks(&Config::Text(all.replace("CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI_LEGACY=y")));
        assert_eq!(absent, ["VIRTIO_PCI (for devices)"]);
    }

    #[test]
    fn the_list_of_builtins_serves_as_well() {
        let text =
            "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/fuse/fuse.ko\nkernel/fs/fuse/virtiofs.ko\n";
        assert_eq!(lacks(&Config::Builtin(text.into())), (vec![], vec!["virtio_console"]));
    }

    #[test]
    fn modules_come_once_and_in_order() {
        let table = "k/virtio.ko:\nk/virtio_ring.ko: k/virtio.ko\n\
            k/virtio_pci.ko: k/virtio_ring.ko k/virtio.ko\nk/fuse.ko:\n\
            k/virtiofs.ko: k/fuse.ko k/virtio_ring.ko k/virtio.ko\n";
        assert_eq!(
            in_order(&["virtio_pci", "virtiofs", "fuse"], table),
            ["k/virtio.ko", "k/virtio_ring.ko", "k/virtio_pci.ko", "k/fuse.ko", "k/virtiofs.ko"]
        );
        assert_eq!(missing(&["fuse", "virtio_console"], table), ["virtio_console"]);
    }

    #[test]
    fn versions_are_numbers() {
        assert!(parts("6.12.10-amd64") > parts("6.9.1"));
        assert_eq!(version_of(Path::new("/boot/vmlinuz-6.12-cloud")).as_deref(), Some("6.12-cloud"));
        assert_eq!(version_of(Path::new("/usr/lib/modules/7.1/vmlinuz")).as_deref(), Some("7.1"));
        assert_eq!(version_of(Path::new("/srv/kernel")), None);
    }
}
