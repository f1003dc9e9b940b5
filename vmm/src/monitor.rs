//! The virtual machine as a whole: made, started, ended.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::events::Events;
use crate::filter::{self, Kind};
use crate::memory::Memory;
use crate::pci::message::Routes;
use crate::pci::root::Root;
use crate::ports::Ports;
use crate::starter::{self, Starter};
use crate::sys::{self, Event, Posted, Slot};
use crate::trace::Trace;
use crate::vcpu::Machine;
use crate::virtio::Device;
use crate::virtio::balloon::{Balloon, Target};
use crate::virtio::block::Block;
use crate::virtio::console::{Console, Tail};
use crate::virtio::mem::{self, Mem};
use crate::virtio::net::{Attachment, Net};
use crate::virtio::rng::Rng;
use crate::virtio::transport::{self, Transport};
use crate::virtio::vsock::Vsock;
use crate::x86_64::{boot, bzimage, cpuid, layout, registers};
use crate::{Config, Doing as _, Error, Identity, Result, command_line, fs, kernel};

/// Stacks of the monitor's threads in bytes.
const STACK: usize = 256 << 10;

/// How a guest ended.
#[derive(Debug)]
pub enum Ending {
    /// It powered itself off, or was stopped by [`Running::stop`].
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// A processor shut down: three faults in a row, usually a broken kernel.
    TripleFault,
    /// Its kernel panicked.
    Panic,
    /// The monitor or KVM could not run it on.
    Failed(Error),
}

/// How often the processors came back to the monitor, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exits {
    /// Reads and writes of ports.
    pub ports: u64,
    /// Reads and writes of device memory, but for PCI configuration.
    pub mmio: u64,
    /// Reads and writes of PCI configuration.
    pub configuration: u64,
    /// Everything else.
    pub other: u64,
}

impl Exits {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.ports + self.mmio + self.configuration + self.other
    }
}

/// Counts exits, also after the end.
#[derive(Clone)]
pub struct Counters(Arc<[AtomicU64; 4]>);

impl Counters {
    /// How often the processors came back to the monitor until now.
    pub fn exits(&self) -> Exits {
        let [ports, mmio, configuration, other] = &*self.0;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Exits { ports: read(ports), mmio: read(mmio), configuration: read(configuration), other: read(other) }
    }
}

/// Sets how much memory the guest has; clones do so for the same one.
#[derive(Debug, Clone)]
pub struct Sizer {
    /// What it was started with.
    memory: u64,
    balloon: Arc<Target>,
    more: Option<Arc<mem::Target>>,
}

impl Sizer {
    /// Asks for `bytes` in all: what is more than at the start is added, as far as the configuration's growth goes, and
    /// what is less goes into the balloon. The guest follows as it can.
    pub fn set(&self, bytes: u64) -> Result<()> {
        if let Some(more) = &self.more {
            more.set(bytes.saturating_sub(self.memory))?;
        }
        self.balloon.set(self.memory.saturating_sub(bytes))
    }

    /// Bytes that the guest has now, by its own count.
    pub fn size(&self) -> u64 {
        let more = self.more.as_ref().map_or(0, |more| more.plugged());
        (self.memory + more).saturating_sub(self.balloon.actual())
    }
}

/// A virtual machine that was made and does not run yet.
pub struct Monitor {
    // Fields end in this order: processors and machine before the memory that KVM knows.
    vcpus: Vec<VcpuFd>,
    _vm: Arc<VmFd>,
    machine: Arc<Machine>,
    events: Events,
    handles: Handles,
    trace: Trace,
    filter: bool,
    /// A device connects to sockets of the host's.
    connects: bool,
    starter: Option<starter::Service>,
}

/// What the devices are set and asked by.
struct Handles {
    sizer: Sizer,
    networks: Vec<Arc<Attachment>>,
    tail: Tail,
    shares: Option<fs::Shares>,
}

impl Monitor {
    /// Makes the machine: memory, kernel, devices, processors. Whatever can be refused is refused here.
    pub fn new(config: Config) -> Result<Monitor> {
        let trace = Trace::new(config.trace);
        check(&config)?;
        let mut config = config;
        let kvm = open_kvm(config.kvm.take())?;
        let vm = Arc::new(kvm.create_vm().doing("making a virtual machine")?);
        trace.stage("machine");
        let memory = Memory::growing(config.memory, config.growth)?;
        let entry = load(&memory, &config)?;
        trace.stage("kernel loaded");
        let serial = interrupts(&vm, &config)?;
        let mut slot = 0;
        for (guest, length) in memory.ranges().into_iter().chain(memory.growth()) {
            let host = memory.host(guest)?;
            sys::add_slot(&vm, Slot { number: slot, guest, length, read_only: false }, host)
                .doing("giving the guest its memory")?;
            slot += 1;
        }
        let leaves = cpuid::leaves(&kvm, config.vcpus, config.identity)?;
        let vcpus = (0..config.vcpus)
            .map(|id| processor(&vm, id, &leaves, entry, config.identity))
            .collect::<Result<Vec<_>>>()?;
        let clock = vcpus[0].get_tsc_khz().unwrap_or(0);
        boot::write_command_line(&memory, &command_line::make(&config, clock))?;
        trace.stage("processors");
        let events = Events::new()?;
        let mut bus = Bus {
            memory: &memory,
            vm: &vm,
            routes: Routes::new(Some(vm.clone())),
            events: &events,
            root: Root::new()?,
            posted: Vec::new(),
        };
        let (mut starter, mut shares) = (None, None);
        let (console, tail) = Console::new(config.console.take(), config.channel.take())?;
        bus.add(Box::new(console))?;
        if let Some(tree) = config.tree.take() {
            let (handle, service) = Starter::new(STACK);
            starter = Some(service);
            let (device, changes) = fs::device("locule", tree, handle)?;
            shares = Some(changes);
            bus.add(device)?;
        }
        let (balloon, target) = Balloon::new()?;
        bus.add(Box::new(balloon))?;
        let more = match memory.growth() {
            Some((start, length)) => {
                let (device, target) = Mem::new(start, length)?;
                bus.add(Box::new(device))?;
                Some(target)
            }
            None => None,
        };
        let sizer = Sizer { memory: config.memory, balloon: target, more };
        bus.add(Box::new(Rng::default()))?;
        let mut networks = Vec::new();
        for network in config.networks.drain(..) {
            let (net, attachment) = Net::new(network)?;
            bus.add(Box::new(net))?;
            networks.push(attachment);
        }
        for disk in config.disks.drain(..) {
            bus.add(Box::new(Block::new(disk)?))?;
        }
        let connects = config.vsock.is_some();
        if let Some(vsock) = config.vsock.take() {
            bus.add(Box::new(Vsock::new(vsock)?))?;
        }
        let posted = posted(&kvm, &vm, &vcpus, &bus)?;
        let root = bus.root;
        // A KVM without read-only memory brings each read of the configuration to us.
        if kvm.check_extension(Cap::ReadonlyMem) {
            let window = Slot {
                number: slot,
                guest: layout::PCI_CONFIGURATION,
                length: root.window().length() as u64,
                read_only: true,
            };
            sys::add_slot(&vm, window, root.window().host()).doing("giving the guest its PCI bus")?;
        }
        let ports = Ports::new(config.serial.take().zip(serial));
        let machine = Arc::new(Machine::new(memory, root, ports, posted)?);
        trace.stage("devices");
        Ok(Monitor {
            vcpus,
            _vm: vm,
            machine,
            events,
            handles: Handles { sizer, networks, tail, shares },
            trace,
            filter: config.filter,
            connects,
            starter,
        })
    }

    /// Starts the threads; the guest boots.
    pub fn start(self) -> Result<Running> {
        let mut threads = Vec::with_capacity(self.vcpus.len());
        let events = self.events.clone();
        let machine = self.machine.clone();
        let filter = |kind| self.filter.then_some(kind);
        let kind = if self.connects { Kind::ConnectingDevices } else { Kind::Devices };
        let devices = thread("devices", &self.machine, filter(kind), move || {
            if let Err(error) = events.run() {
                machine.finish(Ending::Failed(error));
            }
        })?;
        if let Some(starter) = self.starter {
            // It ends with the file server, which it cannot be waited for by.
            thread("fs", &self.machine, filter(Kind::Files), move || starter.run())?;
        }
        let mut running = Running {
            machine: self.machine,
            events: self.events,
            handles: self.handles,
            devices: Some(devices),
            threads: Vec::new(),
        };
        for (id, vcpu) in self.vcpus.into_iter().enumerate() {
            let machine = running.machine.clone();
            threads.push(thread(
                &format!("vcpu{id}"),
                &running.machine,
                filter(Kind::Processor),
                move || machine.run(vcpu),
            )?);
        }
        running.threads = threads;
        self.trace.stage("started");
        Ok(running)
    }
}

/// Refuses what cannot be made.
fn check(config: &Config) -> Result<()> {
    let doing = "making a virtual machine";
    if config.vcpus == 0 {
        return Err(Error::refused(doing, "it needs a processor"));
    }
    if config.memory < 32 << 20 || !config.memory.is_multiple_of(4096) {
        return Err(Error::refused(
            doing,
            format!("{} bytes of memory: give at least 32 MiB in whole pages", config.memory),
        ));
    }
    if !config.growth.is_multiple_of(mem::BLOCK) || config.growth > 1 << 40 {
        return Err(Error::refused(doing, format!("it cannot grow by {} bytes", config.growth)));
    }
    Ok(())
}

fn open_kvm(opened: Option<OwnedFd>) -> Result<Kvm> {
    let kvm = match opened {
        Some(file) => sys::adopt_kvm(file),
        None => Kvm::new().doing("opening /dev/kvm")?,
    };
    let version = kvm.get_api_version();
    if version != 12 {
        return Err(Error::refused(
            "opening /dev/kvm",
            format!("its interface is version {version}, not 12"),
        ));
    }
    Ok(kvm)
}

/// Brings the kernel and all that it is told into memory.
fn load(memory: &Memory, config: &Config) -> Result<boot::Entry> {
    let mut magic = [0; 4];
    let doing = "reading the kernel";
    std::os::unix::fs::FileExt::read_exact_at(&config.kernel, &mut magic, 0).doing(doing)?;
    let elf = magic == *b"\x7fELF";
    let image = if elf { Vec::new() } else { read(&config.kernel).doing(doing)? };
    let (entry, end) = if elf {
        let loaded = kernel::load(memory, &config.kernel)?;
        (boot::Entry::Pvh { address: loaded.entry }, loaded.end)
    } else {
        let header = bzimage::header(&image)
            .ok_or_else(|| Error::refused(doing, "it is neither an ELF file nor a bzImage"))?;
        bzimage::load(memory, &image, &header)?
    };
    let initramfs =
        config.initramfs.as_ref().map(|file| boot::load_initramfs(memory, file, end)).transpose()?;
    match entry {
        boot::Entry::Pvh { .. } => boot::write_start_info(memory, initramfs)?,
        boot::Entry::Long { .. } => bzimage::write_zero_page(memory, &image, initramfs)?,
    }
    boot::write_acpi(memory, config.vcpus, config.serial.is_some())?;
    Ok(entry)
}

fn read(file: &std::fs::File) -> std::io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut bytes = vec![0; length.try_into().map_err(|_| std::io::ErrorKind::FileTooLarge)?];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0)?;
    Ok(bytes)
}

/// The interrupt controllers and timers that KVM keeps; the serial port's interrupt if there is one.
fn interrupts(vm: &VmFd, config: &Config) -> Result<Option<Event>> {
    let doing = "making the interrupt controllers";
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP).doing(doing)?;
    vm.set_tss_address(layout::KVM_TSS as usize).doing(doing)?;
    vm.create_irq_chip().doing(doing)?;
    // Without a hypervisor's clock the guest measures its processor's clock with this timer.
    if config.identity != Identity::Kvm {
        let timer =
            kvm_bindings::kvm_pit_config { flags: kvm_bindings::KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(timer).doing(doing)?;
    }
    if config.serial.is_none() {
        return Ok(None);
    }
    let event = Event::new().doing(doing)?;
    vm.register_irqfd(event.eventfd(), layout::SERIAL_IRQ).doing(doing)?;
    Ok(Some(event))
}

fn processor(
    vm: &VmFd,
    id: u8,
    leaves: &[kvm_bindings::kvm_cpuid_entry2],
    entry: boot::Entry,
    identity: Identity,
) -> Result<VcpuFd> {
    let doing = "making a virtual processor";
    let vcpu = vm.create_vcpu(id.into()).doing(doing)?;
    if identity == Identity::Hyperv {
        let synic =
            kvm_bindings::kvm_enable_cap { cap: kvm_bindings::KVM_CAP_HYPERV_SYNIC2, ..Default::default() };
        vcpu.enable_cap(&synic).doing("giving a processor Hyper-V's interrupts")?;
    }
    vcpu.set_cpuid2(&cpuid::of(leaves, id)?).doing(doing)?;
    registers::common(&vcpu)?;
    if id == 0 {
        registers::first(&vcpu, entry)?;
    }
    sys::kicked_by(&vcpu, sys::KICK).doing(doing)?;
    Ok(vcpu)
}

/// Has KVM keep the writes that nobody waits for, where it can.
///
/// The addresses are those that the devices have now. A guest that moves one to another's place finds the same layout
/// there, and elsewhere waits for every write.
fn posted(kvm: &Kvm, vm: &VmFd, vcpus: &[VcpuFd], bus: &Bus) -> Result<Option<Posted>> {
    if !kvm.check_extension(Cap::CoalescedMmio) {
        return Ok(None);
    }
    let doing = "having KVM keep writes";
    let ring = Posted::new(&vcpus[0]).doing(doing)?;
    let configuration =
        bus.root.posted().map(|(offset, length)| (layout::PCI_CONFIGURATION + offset, length));
    for (address, length) in bus.posted.iter().copied().chain(configuration) {
        vm.register_coalesced_mmio(IoEventAddress::Mmio(address), length).doing(doing)?;
    }
    Ok(Some(ring))
}

/// Devices find their place here.
struct Bus<'a> {
    memory: &'a Memory,
    vm: &'a Arc<VmFd>,
    routes: Arc<Routes>,
    events: &'a Events,
    root: Root,
    /// Where writes of the devices' memory can wait.
    posted: Vec<(u64, u32)>,
}

impl Bus<'_> {
    fn add(&mut self, device: Box<dyn Device>) -> Result<transport::Shared> {
        let vectors = device.vectors();
        let shared: transport::Shared = Arc::new(Mutex::new(device));
        let address = self.root.reserve(transport::LENGTH)?;
        self.posted
            .extend(transport::posted(vectors).map(|(start, length)| (u64::from(address) + start, length)));
        let transport = Transport::new(
            shared.clone(),
            self.memory.clone(),
            Some(self.vm.clone()),
            &self.routes,
            self.events.clone(),
            address,
        )?;
        self.root.add(Arc::new(Mutex::new(transport)))?;
        Ok(shared)
    }
}

/// A thread that takes no signal.
///
/// It filters its calls itself, before it does anything else; where it cannot, the machine ends.
fn thread(
    name: &str,
    machine: &Arc<Machine>,
    filter: Option<Kind>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let doing = format!("starting the thread {name}");
    let machine = machine.clone();
    let start = Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
        // Fails for a wrong argument only, which it has not.
        let _ = sys::block_signals();
        match filter.map_or(Ok(()), filter::enter) {
            Ok(()) => {
                drop(machine);
                body();
            }
            Err(error) => machine.finish(Ending::Failed(error)),
        }
    });
    start.doing(doing)
}

/// A virtual machine that runs.
pub struct Running {
    machine: Arc<Machine>,
    events: Events,
    handles: Handles,
    devices: Option<JoinHandle<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Readable as soon as the guest ended.
    pub fn ending(&self) -> BorrowedFd<'_> {
        self.machine.ended.as_fd()
    }

    /// How the guest ended, if it did. The first call is told.
    pub fn ended(&self) -> Option<Ending> {
        self.machine.ending()
    }

    /// Why its kernel said to panic: the guest's own words, in one line.
    pub fn panic_reason(&self) -> Option<String> {
        self.handles.tail.panic_reason()
    }

    /// Waits for the end, and for the threads.
    pub fn wait(mut self) -> Ending {
        let mut wanted = [PollFd::new(self.machine.ended.as_fd(), PollFlags::POLLIN)];
        while let Err(nix::errno::Errno::EINTR) = poll(&mut wanted, PollTimeout::NONE) {}
        self.end();
        self.machine.ending().unwrap_or(Ending::PowerOff)
    }

    /// Ends the guest at once, as pulling the plug does.
    pub fn stop(&self) {
        self.machine.finish(Ending::PowerOff);
    }

    /// What sets how much memory the guest has.
    pub fn sizer(&self) -> Sizer {
        self.handles.sizer.clone()
    }

    /// Gives the network interface `index` its tap device.
    pub fn attach(&self, index: usize, tap: OwnedFd) -> Result<()> {
        match self.handles.networks.get(index) {
            Some(network) => network.attach(tap),
            None => Err(Error::refused("attaching a network", format!("the guest has no interface {index}"))),
        }
    }

    /// What adds entries to the tree that the guest mounts, and removes them; none if it was given no tree.
    pub fn shares(&self) -> Option<fs::Shares> {
        self.handles.shares.clone()
    }

    /// How often the processors came back to the monitor until now.
    pub fn exits(&self) -> Exits {
        self.counters().exits()
    }

    /// What counts the exits; it outlives the machine.
    pub fn counters(&self) -> Counters {
        Counters(self.machine.counters())
    }

    /// Ends and joins all threads.
    fn end(&mut self) {
        self.machine.finish(Ending::PowerOff);
        for thread in self.threads.drain(..) {
            // A thread that panicked has aborted the process.
            let _ = thread.join();
        }
        self.events.stop();
        if let Some(devices) = self.devices.take() {
            let _ = devices.join();
        }
        self.machine.root.reset();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
