//! A guest that does only harm: to the device models by themselves, and to a whole machine.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use locule_vmm::events::Events;
use locule_vmm::fs::{self, Access, Tree};
use locule_vmm::memory::Memory;
use locule_vmm::pci::message::Routes;
use locule_vmm::pci::root::Root;
use locule_vmm::starter::Starter;
use locule_vmm::virtio::transport::{self, Shared, Transport};
use locule_vmm::virtio::vsock::{self, Vsock};
use locule_vmm::virtio::{Device, balloon::Balloon, console::Console, mem::Mem, rng::Rng};
use locule_vmm::{Ending, Monitor, block, net};
use vm_memory::{Bytes as _, GuestAddress};

use crate::endings::{config, ends, without_kvm};
use crate::garbage::{self, Act, Garbage};
use crate::payload::MEMORY;

/// How often a driver decides on something, for each seed.
const DECISIONS: usize = 20_000;
/// Of a machine's guest, which does it by exits.
const GUEST_DECISIONS: usize = 3000;
/// Longer than this is a hang, on the slowest of machines.
const HANG: Duration = Duration::from_secs(300);

/// A directory with one file, that the guest may only read.
struct Shares(tempfile::TempDir);

impl Shares {
    fn new() -> Shares {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("canary"), "alive").unwrap();
        Shares(place)
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        tree.add("share", File::open(self.0.path()).unwrap().into(), Access::ReadOnly);
        tree
    }

    fn is_as_it_was(&self) -> bool {
        let names: Vec<_> =
            std::fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names == ["canary"] && std::fs::read(self.0.path().join("canary")).unwrap() == b"alive"
    }
}

fn disk() -> block::Config {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 16).unwrap();
    block::Config { file, read_only: false, id: "disk".into() }
}

/// A socket to the host, where one thread accepts what the guest begins at port 0, and another begins connections.
fn vsock(place: &std::path::Path) -> vsock::Config {
    let listener = UnixListener::bind(place.join("sock")).unwrap().into();
    let served = UnixListener::bind(place.join("sock_0")).unwrap();
    std::thread::spawn(move || served.incoming().flatten().for_each(drop));
    for port in [0, 1] {
        let mut host = UnixStream::connect(place.join("sock")).unwrap();
        host.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        // It stays for as long as the guest lets it.
        std::thread::spawn(move || std::io::copy(&mut host, &mut std::io::sink()));
    }
    vsock::Config { cid: 3, directory: File::open(place).unwrap().into(), name: "sock".into(), listener }
}

/// A descriptor whose other end takes everything and says it again.
fn echo() -> OwnedFd {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let (mut from, mut to) = (&ours, &ours);
        let _ = std::io::copy(&mut from, &mut to);
    });
    theirs.into()
}

/// Every device against a driver that is made of `seed`.
fn attack(seed: u64) -> usize {
    let shares = Shares::new();
    let sockets = tempfile::tempdir().unwrap();
    let memory = Memory::new(MEMORY << 20).unwrap();
    let events = Events::new().unwrap();
    let routes = Routes::new(None);
    let mut root = Root::new().unwrap();
    let (starter, service) = Starter::new(256 << 10);
    let serving = std::thread::spawn(move || service.run());
    let (mem, size) = Mem::new(1 << 32, 64 << 20).unwrap();
    size.set(32 << 20).unwrap();
    let devices: Vec<Box<dyn Device>> = vec![
        Box::new(mem),
        Box::new(Console::new(Some(echo()), Some(echo())).unwrap().0),
        fs::device("share", shares.tree(), starter).unwrap().0,
        Box::new(Balloon::new().unwrap().0),
        Box::new(Rng::default()),
        Box::new(net::Net::new(net::Config { tap: None, mac: [2; 6], mtu: 1500 }).unwrap().0),
        Box::new(block::Block::new(disk()).unwrap()),
        Box::new(Vsock::new(vsock(sockets.path())).unwrap()),
    ];
    let count = devices.len() as u32;
    for device in devices {
        let shared: Shared = Arc::new(Mutex::new(device));
        let address = root.reserve(transport::LENGTH).unwrap();
        let transport =
            Transport::new(shared, memory.clone(), None, &routes, events.clone(), address).unwrap();
        root.add(Arc::new(Mutex::new(transport))).unwrap();
    }
    let thread = std::thread::spawn({
        let events = events.clone();
        move || events.run()
    });
    let mut garbage = Garbage::new(seed, count);
    let mut acts = Vec::new();
    let mut done = 0;
    for _ in 0..DECISIONS {
        garbage.next(&mut acts);
        done += acts.len();
        for act in acts.drain(..) {
            perform(&root, &memory, act);
        }
    }
    root.reset();
    events.stop();
    thread.join().expect("a device panicked").expect("the devices' thread failed");
    drop((root, events));
    serving.join().expect("the service of the file server panicked");
    assert!(shares.is_as_it_was(), "the guest wrote what it may only read");
    done
}

fn perform(root: &Root, memory: &Memory, act: Act) {
    let mut read = [0; 8];
    match act {
        Act::Write { address, value, bytes } => {
            let data = &value.to_le_bytes()[..usize::from(bytes)];
            match address {
                0xe000_0000..0xe010_0000 => {
                    root.write_configuration((address - 0xe000_0000).into(), data)
                        .expect("a write of configuration");
                }
                0xc000_0000.. => root.write(address.into(), data).expect("a write"),
                _ => memory.write_slice(data, GuestAddress(address.into())).expect("a write of memory"),
            }
        }
        Act::Read { address, bytes } if (0xe000_0000..0xe010_0000).contains(&address) => {
            root.read_configuration((address - 0xe000_0000).into(), &mut read[..bytes.into()]);
        }
        Act::Read { address, bytes } => root.read(address.into(), &mut read[..bytes.into()]),
        // Ports are the machine's; its test has them.
        Act::Output { .. } | Act::Input { .. } => {}
    }
}

#[test]
fn devices_survive_garbage() {
    // Some seeds are always the same, so that what fails once fails again; one is new, and told.
    let new = std::process::id().into();
    for seed in [1, 2, 3, 4, 5, 6, new] {
        eprintln!("seed {seed}");
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let done = attack(seed);
            tell.send(()).unwrap();
            done
        });
        if told.recv_timeout(HANG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            panic!("seed {seed} hangs");
        }
        assert!(thread.join().expect("the devices' user panicked") > DECISIONS);
    }
}

#[test]
fn a_machine_survives_a_hostile_guest() {
    if without_kvm() {
        return;
    }
    for seed in [11, 12, 13, u64::from(std::process::id()) + 1] {
        eprintln!("seed {seed}");
        let shares = Shares::new();
        let sockets = tempfile::tempdir().unwrap();
        let mut config = config(&garbage::guest(seed, 7, GUEST_DECISIONS));
        config.console = Some(echo());
        config.channel = Some(echo());
        config.tree = Some(shares.tree());
        config.serial = Some(File::create("/dev/null").unwrap().into());
        config.networks.push(net::Config { tap: None, mac: [2; 6], mtu: 1500 });
        config.disks.push(disk());
        config.vsock = Some(vsock(sockets.path()));
        let running = Monitor::new(config).unwrap().start().unwrap();
        assert!(ends(&running, HANG.as_secs()), "seed {seed} hangs");
        let exits = running.exits();
        let ending = running.wait();
        assert!(matches!(ending, Ending::PowerOff), "seed {seed}: {ending:?}");
        assert!(exits.total() > 1000, "seed {seed}: {exits:?}");
        assert!(shares.is_as_it_was(), "seed {seed}: the guest wrote what it may only read");
    }
}
