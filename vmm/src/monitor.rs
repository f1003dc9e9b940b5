//! The virtual machine as a whole: made, started, ended.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use crate::sys::Event;

use crate::{Config, Error, Result};

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

/// A virtual machine that was made and does not run yet.
#[derive(Debug)]
pub struct Monitor {
    _config: Config,
}

/// A virtual machine that runs.
#[derive(Debug)]
pub struct Running {
    ended: Event,
}

impl Monitor {
    /// Makes the machine: memory, kernel, devices, processors. Whatever can be refused is refused here.
    pub fn new(config: Config) -> Result<Monitor> {
        Ok(Monitor { _config: config })
    }

    /// Starts the threads; the guest boots.
    pub fn start(self) -> Result<Running> {
        Err(Error::refused("starting the guest", "this build has no monitor"))
    }
}

impl Running {
    /// Readable as soon as the guest ended.
    pub fn ending(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Waits for the end, and for the threads.
    pub fn wait(self) -> Ending {
        Ending::Failed(Error::refused("running the guest", "this build has no monitor"))
    }

    /// Ends the guest at once, as pulling the plug does.
    pub fn stop(&self) {}

    /// Asks the guest to give up memory until `bytes` of it are taken away.
    pub fn balloon(&self, _bytes: u64) -> Result<()> {
        Err(Error::refused("setting the balloon", "this build has no monitor"))
    }

    /// Gives the network interface `index` its tap device.
    pub fn attach(&self, _index: usize, _tap: OwnedFd) -> Result<()> {
        Err(Error::refused("attaching a network", "this build has no monitor"))
    }

    /// How often the processors came back to the monitor until now.
    pub fn exits(&self) -> Exits {
        Exits::default()
    }
}
