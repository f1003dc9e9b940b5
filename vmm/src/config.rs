//! What a virtual machine is made of.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::{block, fs, net, vsock};

/// A virtual machine. Every descriptor in it is opened by the caller and owned by the monitor from then on.
#[derive(Debug)]
pub struct Config {
    /// KVM, for a monitor that is jailed already; none has it opened as `/dev/kvm`.
    pub kvm: Option<OwnedFd>,
    /// Memory of the guest in bytes; a multiple of 4096.
    pub memory: u64,
    /// Bytes that it can get while it runs, beyond `memory` ([`crate::Running::sizer`]); a multiple of 2 MiB.
    pub growth: u64,
    /// Virtual processors, at least 1.
    pub vcpus: u8,
    /// The kernel: an ELF `vmlinux` with a PVH entry, whose read-only data are mapped and not copied, or a bzImage.
    pub kernel: File,
    /// An initial file system, copied into the guest's memory.
    pub initramfs: Option<File>,
    /// Appended to the command line that the monitor makes.
    pub command_line: String,
    /// The tree that the guest sees through virtio-fs, with the tag `locule`.
    pub tree: Option<fs::Tree>,
    /// The channel to the agent: one end of a stream socket pair. In the guest: the port `org.locule.channel`.
    pub channel: Option<OwnedFd>,
    /// Where the text of the guest's console `hvc0` goes. What can be read from it (a terminal, a socket) is
    /// the console's input.
    pub console: Option<OwnedFd>,
    /// Where the text of a serial port (`ttyS0`) goes; without it the guest has none.
    pub serial: Option<OwnedFd>,
    /// Network interfaces, in the guest's order.
    pub networks: Vec<net::Config>,
    /// Disks, in the guest's order.
    pub disks: Vec<block::Config>,
    /// A socket to the host without a network.
    pub vsock: Option<vsock::Config>,
    /// What the guest is told that it runs on.
    pub identity: Identity,
    /// Prints the stages of the start on standard error, in microseconds since [`crate::Monitor::new`].
    pub trace: bool,
    /// Every thread of the monitor filters its own system calls. Off only to find out what a filter lacks.
    pub filter: bool,
}

/// What the guest is told that it runs on (CPUID leaves at 0x4000_0000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Identity {
    /// KVM: clock, steal time, and paravirtual EOI, IPI, TLB flush and spinlocks.
    #[default]
    Kvm,
    /// Microsoft's Hyper-V, as far as KVM speaks it.
    Hyperv,
    /// No hypervisor.
    None,
}
