//! Boots a kernel and tells how it ended: `boot [OPTION VALUE…] KERNEL`. The guest's console is standard output.
//!
//! `boot extract BZIMAGE VMLINUX` unpacks a kernel. `boot hostile SEED KERNEL` and `boot fault KERNEL` write kernels of their
//! own: one that does garbage to all devices and powers off, and one that ends in a triple fault.

use std::error::Error;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use locule_vmm::fs::Access;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use locule_vmm::{Config, Identity, Monitor};

#[path = "../tests/guests/garbage.rs"]
mod garbage;
#[path = "../tests/guests/payload.rs"]
#[allow(dead_code, reason = "the tests do more with it")]
mod payload;

/// Devices of a machine with a tree, a disk and a socket.
const DEVICES: u32 = 6;
/// How often the hostile kernel decides on something.
const DECISIONS: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, image, kernel] = arguments.as_slice()
        && verb == "extract"
    {
        std::fs::write(kernel, locule_vmm::kernel::extract(&std::fs::read(image)?)?)?;
        return Ok(());
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["hostile", seed, kernel] => {
            let code = garbage::guest(seed.parse()?, DEVICES, DECISIONS);
            return Ok(code.write_kernel(&mut File::create(kernel)?)?);
        }
        ["fault", kernel] => {
            return Ok(payload::Code::default()
                .triple_fault()
                .halt()
                .write_kernel(&mut File::create(kernel)?)?);
        }
        _ => {}
    }
    let (kernel, options) = arguments.split_last().ok_or("usage: boot [OPTION VALUE…] KERNEL")?;
    let console: OwnedFd = std::io::stdout().as_fd().try_clone_to_owned()?;
    let mut config = Config {
        kvm: None,
        memory: 256 << 20,
        growth: 0,
        vcpus: 1,
        kernel: File::open(kernel)?,
        initramfs: None,
        command_line: String::new(),
        tree: None,
        channel: None,
        console: Some(console),
        serial: None,
        networks: Vec::new(),
        disks: Vec::new(),
        vsock: None,
        identity: Identity::Kvm,
        trace: false,
        filter: true,
    };
    for pair in options.chunks(2) {
        let [name, value] = pair else { return Err("an option without a value".into()) };
        match name.as_str() {
            "--memory" => config.memory = value.parse::<u64>()? << 20,
            "--growth" => config.growth = value.parse::<u64>()? << 20,
            "--vcpus" => config.vcpus = value.parse()?,
            "--initramfs" => config.initramfs = Some(File::open(value)?),
            "--append" => config.command_line = value.clone(),
            "--serial" => config.serial = Some(File::create(value)?.into()),
            "--tree" => {
                let (entry, path) = value.split_once('=').ok_or("a tree is NAME=PATH")?;
                let tree = config.tree.get_or_insert_default();
                tree.add(entry, File::open(path)?.into(), Access::ReadWrite);
            }
            "--trace" => config.trace = value == "yes",
            "--filter" => config.filter = value == "yes",
            "--disk" => config.disks.push(locule_vmm::block::Config {
                file: File::options().read(true).write(true).open(value)?,
                read_only: false,
                id: "test".into(),
            }),
            "--vsock" => {
                config.vsock = Some(locule_vmm::vsock::Config {
                    cid: 3,
                    directory: File::open(value)?.into(),
                    name: "sock".into(),
                    listener: UnixListener::bind(Path::new(value).join("sock"))?.into(),
                });
            }
            "--tap" => config.networks.push(locule_vmm::net::Config {
                tap: Some(tap(value)?),
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1400,
            }),
            // What the guest writes to the channel comes back: the other end is an echo.
            "--channel" if value == "echo" => config.channel = Some(echo()?),
            "--console" if value == "no" => config.console = None,
            "--identity" => {
                config.identity = match value.as_str() {
                    "kvm" => Identity::Kvm,
                    "hyperv" => Identity::Hyperv,
                    "none" => Identity::None,
                    _ => return Err("an identity is kvm, hyperv or none".into()),
                };
            }
            _ => return Err(format!("no option {name}").into()),
        }
    }
    let running = Monitor::new(config)?.start()?;
    let exits = running.counters();
    let ending = running.wait();
    let exits = exits.exits();
    eprintln!("ending: {ending:?}");
    eprintln!("exits: {} {exits:?}", exits.total());
    Ok(())
}

/// A socket that answers with what it gets.
fn echo() -> Result<OwnedFd, Box<dyn Error>> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    std::thread::spawn(move || {
        let mut stream = std::os::unix::net::UnixStream::from(ours);
        let mut buffer = [0; 4096];
        while let Ok(count) = std::io::Read::read(&mut stream, &mut buffer)
            && count > 0
            && std::io::Write::write_all(&mut stream, &buffer[..count]).is_ok()
        {}
    });
    Ok(theirs)
}

/// Opens the tap device `name`.
fn tap(name: &str) -> Result<OwnedFd, Box<dyn Error>> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    locule_vmm::net::open_tap(file.into(), name).map_err(Into::into)
}
