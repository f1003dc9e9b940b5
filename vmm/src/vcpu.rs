//! A virtual processor's thread: it runs the guest, answers its exits, and tells when the guest ended.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_memory::{Bytes as _, GuestAddress};

use crate::memory::Memory;
use crate::monitor::Ending;
use crate::pci::root::Root;
use crate::ports::{Act, Ports};
use crate::sys::{self, Event, Posted};
use crate::x86_64::layout;
use crate::{Doing as _, Error, Result};

/// What Linux writes before a warm reset. Our command line makes a panic's reset a warm one (`reboot=panic_warm`),
/// and no other.
const WARM: u16 = 0x1234;

/// What the processors share.
pub struct Machine {
    /// The guest's memory.
    pub memory: Memory,
    /// The PCI bus.
    pub root: Root,
    /// The ports.
    pub ports: Mutex<Ports>,
    /// Writes that are not answered yet; none where KVM keeps none.
    posted: Option<Mutex<Posted>>,
    /// Readable when the guest ended.
    pub ended: Event,
    ending: Mutex<Option<Ending>>,
    over: AtomicBool,
    threads: Mutex<Vec<i32>>,
    /// Exits by kind.
    counted: Arc<[AtomicU64; 4]>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const PORTS: usize = 0;
const MMIO: usize = 1;
const CONFIGURATION: usize = 2;
const OTHER: usize = 3;

impl Machine {
    /// A machine that did not start yet.
    pub fn new(memory: Memory, root: Root, ports: Ports, posted: Option<Posted>) -> Result<Machine> {
        Ok(Machine {
            memory,
            root,
            ports: Mutex::new(ports),
            posted: posted.map(Mutex::new),
            ended: Event::new().doing("making the machine's end")?,
            ending: Mutex::new(None),
            over: AtomicBool::new(false),
            threads: Mutex::default(),
            counted: Default::default(),
        })
    }

    /// Ends the guest. The first word counts.
    pub fn finish(&self, ending: Ending) {
        lock(&self.ending).get_or_insert(ending);
        self.over.store(true, Ordering::SeqCst);
        for thread in lock(&self.threads).iter() {
            sys::kick(*thread);
        }
        // Its counter cannot be full: it is raised once a finish.
        let _ = self.ended.raise();
    }

    /// How it ended, once.
    pub fn ending(&self) -> Option<Ending> {
        lock(&self.ending).take()
    }

    /// What counts the exits.
    pub fn counters(&self) -> Arc<[AtomicU64; 4]> {
        self.counted.clone()
    }

    fn count(&self, kind: usize) {
        self.counted[kind].fetch_add(1, Ordering::Relaxed);
    }

    /// Runs a processor in the calling thread until the guest ends.
    pub fn run(self: &Arc<Self>, mut vcpu: VcpuFd) {
        lock(&self.threads).push(sys::tid());
        let result = self.run_until_over(&mut vcpu);
        lock(&self.threads).retain(|thread| *thread != sys::tid());
        if let Err(error) = result {
            self.finish(Ending::Failed(error));
        }
    }

    fn run_until_over(&self, vcpu: &mut VcpuFd) -> Result<()> {
        while !self.over.load(Ordering::SeqCst) {
            match vcpu.run() {
                Ok(exit) => {
                    self.catch_up()?;
                    if let Some(ending) = self.answer(exit)? {
                        self.finish(ending);
                    }
                }
                // A kick, or the freezer of a control group.
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(error) => return Err(Error::system("running the guest", error)),
            }
        }
        Ok(())
    }

    /// Does what the guest wrote before this exit and did not wait for.
    fn catch_up(&self) -> Result<()> {
        let Some(posted) = &self.posted else { return Ok(()) };
        // Held while they are done: another processor's exit comes after what its guest saw written.
        lock(posted).take(|write| self.write(write.address, write.data()))
    }

    /// The guest wrote memory that no memory is behind.
    fn write(&self, address: u64, data: &[u8]) -> Result<()> {
        match configuration(address) {
            Some(offset) => self.root.write_configuration(offset, data),
            None => self.root.write(address, data),
        }
    }

    fn answer(&self, exit: VcpuExit) -> Result<Option<Ending>> {
        match exit {
            VcpuExit::IoIn(port, data) => {
                self.count(PORTS);
                lock(&self.ports).read(port, data);
            }
            VcpuExit::IoOut(port, data) => {
                self.count(PORTS);
                let act = lock(&self.ports).write(port, data);
                match act {
                    Act::Nothing => {}
                    Act::PowerOff => return Ok(Some(Ending::PowerOff)),
                    Act::Reset => return Ok(Some(self.reset())),
                }
            }
            VcpuExit::MmioRead(address, data) => match configuration(address) {
                Some(offset) => {
                    self.count(CONFIGURATION);
                    self.root.read_configuration(offset, data);
                }
                None => {
                    self.count(MMIO);
                    self.root.read(address, data);
                }
            },
            VcpuExit::MmioWrite(address, data) => {
                self.count(if configuration(address).is_some() { CONFIGURATION } else { MMIO });
                self.write(address, data)?;
            }
            VcpuExit::Shutdown => return Ok(Some(Ending::TripleFault)),
            VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen => self.count(OTHER),
            // Hyper-V's synthetic registers are KVM's; the monitor only learns of their pages.
            VcpuExit::Hyperv => self.count(OTHER),
            VcpuExit::FailEntry(reason, _) => {
                return Err(Error::refused(
                    "running the guest",
                    format!("the processor refused to enter it (reason {reason:#x})"),
                ));
            }
            VcpuExit::InternalError => {
                return Err(Error::refused(
                    "running the guest",
                    "KVM met an instruction that it cannot emulate: this KVM may not run Linux",
                ));
            }
            other => {
                return Err(Error::refused("running the guest", format!("KVM stopped it with {other:?}")));
            }
        }
        Ok(None)
    }

    /// A reset is a panic's if Linux wrote that it is a warm one.
    fn reset(&self) -> Ending {
        match self.memory.read_obj::<u16>(GuestAddress(layout::RESET_FLAG)) {
            Ok(WARM) => Ending::Panic,
            _ => Ending::Reset,
        }
    }
}

/// The offset in the configuration window.
fn configuration(address: u64) -> Option<u64> {
    address.checked_sub(layout::PCI_CONFIGURATION).filter(|offset| *offset < layout::PCI_CONFIGURATION_LENGTH)
}
