//! Virtual machines: what of this host they need, and the monitor that runs one.
//!
//! Joins `locule_runtime`'s isolation to `locule_vmm`. Owns which kernel and which guest program are taken and how
//! large a machine is. Never makes a container itself, and never falls back to less isolation.

pub mod cache;
pub mod guest;
mod jail;
pub mod kernel;
mod monitor;
mod network;
mod options;
pub mod size;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use locule_machines::host::Finding;
use locule_runtime::error::Context;
use locule_runtime::isolation::{self, Hypervisor, Monitor, Stage, Wanted};
use locule_runtime::{Error, Result};

pub use options::PREFIX;

/// The name by which this program makes virtual machines without being asked: for engines that only know a path.
const NAME: &str = "locule-vm";

/// Whether this program was called by that name.
pub fn called_as_vm() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// Makes this program's virtual machines known to the library.
pub fn provide() {
    isolation::provide(&Kvm);
}

/// KVM, by `locule_vmm`.
#[derive(Debug)]
struct Kvm;

impl Hypervisor for Kvm {
    fn open(&self, wanted: &Wanted<'_>) -> Result<Box<dyn Monitor>> {
        let refused = |err: Error| err.context("isolation vm");
        let kvm = kvm().map_err(refused)?;
        let size = size::Size::of(&size::of_pod(wanted.annotations, wanted.resources)).map_err(refused)?;
        let agent = guest::open().map_err(refused)?;
        let kernel = kernel::chosen().and_then(|kernel| kernel.open(&agent)).map_err(refused)?;
        let options = options::Options::of(wanted.annotations).map_err(refused)?;
        let null = File::options().read(true).write(true).open("/dev/null").doing(|| "opening /dev/null")?;
        Ok(Box::new(Parts { kvm, size, kernel, agent, null, options }))
    }

    fn allowance(&self, limit: Option<u64>) -> u64 {
        size::allowance(limit)
    }

    fn take_over(&self) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        network::take_over()
    }
}

/// Whether only root and the caller may write a file.
///
/// In a user namespace that does not map the host's root, whoever owns `/` stands for it: its files look like those of
/// everybody who is not mapped either.
fn is_trusted(meta: &std::fs::Metadata) -> bool {
    let root = || std::fs::metadata("/").is_ok_and(|root| root.uid() == meta.uid());
    let own = meta.uid() == 0 || meta.uid() == nix::unistd::geteuid().as_raw();
    meta.mode() & 0o022 == 0 && (own || (crate::args::in_user_namespace() && root()))
}

/// Opens KVM; says why it could not run a machine.
pub fn kvm() -> Result<File> {
    let device = "/dev/kvm";
    let file = match File::options().read(true).write(true).open(device) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::unsupported("this host has no /dev/kvm")
                .hint("load kvm_intel or kvm_amd, switch virtualization on in the firmware, or use isolation namespaces"));
        }
        Err(err) => {
            return Err(err)
                .doing(|| format!("opening {device}"))
                .map_err(|err| err.hint("be root or a member of the group kvm"));
        }
    };
    if Path::new("/sys/module/kvm_pvm").exists() {
        return Err(Error::unsupported(
            "this host's KVM is kvm-pvm, a software one that runs no ordinary Linux kernel: use isolation namespaces",
        ));
    }
    Ok(file)
}

/// What virtual machines need of this host: found, or what to do about it.
pub fn look() -> Vec<Finding> {
    let told = |what: String, found: Result<()>| Finding {
        what,
        needed: false,
        remedy: found.err().map(|err| err.to_string()),
    };
    let kernel = kernel::chosen();
    let name = kernel.as_ref().map_or("a kernel".into(), |kernel| kernel.image.display().to_string());
    vec![
        told("virtual machines: KVM".into(), kvm().map(drop)),
        told(format!("virtual machines: {name} to boot"), kernel.map(drop)),
        told("virtual machines: the program inside, locule-guest".into(), guest::open().map(drop)),
    ]
}

/// Everything of the host's that a machine needs, open.
#[derive(Debug)]
pub struct Parts {
    kvm: File,
    size: size::Size,
    kernel: kernel::Opened,
    agent: File,
    null: File,
    options: options::Options,
}

impl Monitor for Parts {
    fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all =
            vec![self.kvm.as_fd(), self.kernel.image.as_fd(), self.agent.as_fd(), self.null.as_fd()];
        all.extend(self.kernel.modules.as_ref().map(AsFd::as_fd));
        all.extend(self.kernel.initramfs.as_ref().map(AsFd::as_fd));
        all
    }

    fn wants_sockets(&self) -> bool {
        self.options.vsock.is_some()
    }

    fn run(self: Box<Self>, stage: Stage) -> ! {
        monitor::run(*self, stage)
    }
}
