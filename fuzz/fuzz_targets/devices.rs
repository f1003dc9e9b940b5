//! PCI configuration, virtio registers and queues: whatever a guest writes, devices answer or wait.
#![no_main]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use locule_vmm::events::Events;
use locule_vmm::memory::Memory;
use locule_vmm::pci::message::Routes;
use locule_vmm::pci::root::Root;
use locule_vmm::virtio::transport::{self, Shared, Transport};
use locule_vmm::virtio::{Device, balloon::Balloon, block, console::Console, mem::Mem, net, rng::Rng, vsock};
use vm_memory::{Bytes, GuestAddress};

#[derive(Arbitrary, Debug)]
enum Step {
    Configure { offset: u32, data: [u8; 4], length: u8 },
    Look { offset: u32, length: u8 },
    Write { device: u8, offset: u16, data: [u8; 8], length: u8 },
    Read { device: u8, offset: u16, length: u8 },
    /// Bytes of the guest's memory, near the queues that `SetUp` makes.
    Memory { place: u16, data: [u8; 32] },
    /// A driver that begins as it should.
    SetUp { device: u8, features: u32 },
    Ring { device: u8, queue: u8 },
    Devices,
}

const MEMORY: u64 = 1 << 20;

fn devices() -> Vec<Box<dyn Device>> {
    let (console, _) = UnixStream::pair().unwrap();
    let (channel, _) = UnixStream::pair().unwrap();
    let disk = block::Config { file: tempfile(), read_only: false, id: String::new() };
    let (mem, size) = Mem::new(1 << 32, 64 << 20).unwrap();
    size.set(32 << 20).unwrap();
    vec![
        Box::new(mem),
        Box::new(Console::new(Some(OwnedFd::from(console)), Some(OwnedFd::from(channel))).unwrap().0),
        Box::new(Balloon::new().unwrap().0),
        Box::new(Rng::default()),
        Box::new(net::Net::new(net::Config { tap: None, mac: [2; 6], mtu: 1500 }).unwrap().0),
        Box::new(block::Block::new(disk).unwrap()),
        Box::new(vsock::Vsock::new(socket()).unwrap()),
    ]
}

/// A socket to the host that nobody connects to, and that connects to nobody: its directory is none.
fn socket() -> vsock::Config {
    let (listener, directory) = UnixStream::pair().unwrap();
    vsock::Config { cid: 3, directory: directory.into(), name: "sock".into(), listener: listener.into() }
}

fn tempfile() -> std::fs::File {
    let descriptor =
        nix::sys::memfd::memfd_create(c"disk", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let file = std::fs::File::from(descriptor);
    file.set_len(1 << 16).unwrap();
    file
}

fn run(steps: &[Step]) -> locule_vmm::Result<()> {
    let memory = Memory::new(MEMORY)?;
    let events = Events::new()?;
    let routes = Routes::new(None);
    let mut root = Root::new()?;
    let mut bases = Vec::new();
    for device in devices() {
        let shared: Shared = Arc::new(Mutex::new(device));
        let base = root.reserve(transport::LENGTH)?;
        let transport = Transport::new(shared, memory.clone(), None, &routes, events.clone(), base)?;
        root.add(Arc::new(Mutex::new(transport)))?;
        // It decodes its memory, as after a driver's first step.
        root.write_configuration(0x8000 * (bases.len() as u64 + 1) + 4, &[6, 0])?;
        bases.push(u64::from(base));
    }
    let base = |device: u8| bases[usize::from(device) % bases.len()];
    let write = |address: u64, data: &[u8]| root.write(address, data);
    for step in steps {
        match step {
            Step::Configure { offset, data, length } => {
                root.write_configuration((*offset).into(), &data[..usize::from(*length) % 5])?;
            }
            Step::Look { offset, length } => {
                root.read_configuration((*offset).into(), &mut [0; 8][..usize::from(*length) % 9]);
            }
            Step::Write { device, offset, data, length } => {
                write(base(*device) + u64::from(*offset), &data[..usize::from(*length) % 9])?;
            }
            Step::Read { device, offset, length } => {
                root.read(base(*device) + u64::from(*offset), &mut [0; 8][..usize::from(*length) % 9]);
            }
            Step::Memory { place, data } => {
                let _ = memory.write_slice(data, GuestAddress(u64::from(*place)));
            }
            Step::SetUp { device, features } => {
                let base = base(*device);
                for (offset, word) in [(0x08u64, 0u32), (0x0c, *features), (0x08, 1), (0x0c, 1)] {
                    write(base + offset, &word.to_le_bytes())?;
                }
                write(base + 0x14, &[11])?;
                for queue in 0..6u16 {
                    write(base + 0x16, &queue.to_le_bytes())?;
                    write(base + 0x18, &16u16.to_le_bytes())?;
                    let at = u32::from(queue) * 0x1000;
                    for (offset, address) in [(0x20u64, at), (0x28, at + 0x400), (0x30, at + 0x800)] {
                        write(base + offset, &address.to_le_bytes())?;
                    }
                    write(base + 0x1c, &1u16.to_le_bytes())?;
                }
                write(base + 0x14, &[15])?;
            }
            Step::Ring { device, queue } => {
                write(base(*device) + 0x3000 + u64::from(*queue % 6) * 4, &u16::from(*queue).to_le_bytes())?;
            }
            Step::Devices => events.run_once(),
        }
    }
    events.run_once();
    root.reset();
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    if let Ok(steps) = Vec::<Step>::arbitrary(&mut Unstructured::new(data)) {
        run(&steps).unwrap();
    }
});
