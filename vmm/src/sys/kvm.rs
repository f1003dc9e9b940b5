//! Calls of KVM that kvm-ioctls does not wrap, or not safely.

use std::io;

use kvm_bindings::{CpuId, KVM_MEM_READONLY, KVMIO, kvm_cpuid2, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::fam::FamStruct as _;
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ptr};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

#[repr(C)]
struct SignalMask {
    /// Bytes of `set`.
    length: u32,
    set: [u8; 8],
}

// The argument's size in the number is that of `struct kvm_signal_mask` without its set.
ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, u32);
ioctl_iowr_nr!(KVM_GET_SUPPORTED_HV_CPUID, KVMIO, 0xc1, kvm_cpuid2);

/// A range of guest-physical addresses that is memory of this process.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// KVM's number of it.
    pub number: u32,
    /// Guest-physical address.
    pub guest: u64,
    /// Bytes.
    pub length: u64,
    /// The guest's writes come to the monitor.
    pub read_only: bool,
}

/// KVM as somebody else has opened it.
pub fn adopt_kvm(file: std::os::fd::OwnedFd) -> Kvm {
    use std::os::fd::{FromRawFd as _, IntoRawFd as _};
    // SAFETY: the descriptor is owned, and given up here.
    unsafe { Kvm::from_raw_fd(file.into_raw_fd()) }
}

/// Makes memory of this process the guest's.
///
/// `host` must stay mapped as long as the virtual machine exists: it is borrowed from [`crate::memory::Memory`]
/// or from a [`super::Window`], which the monitor drops after the machine.
pub fn add_slot(vm: &VmFd, slot: Slot, host: *mut u8) -> io::Result<()> {
    let region = kvm_userspace_memory_region {
        slot: slot.number,
        flags: if slot.read_only { KVM_MEM_READONLY } else { 0 },
        guest_phys_addr: slot.guest,
        memory_size: slot.length,
        userspace_addr: host as u64,
    };
    // SAFETY: the callers hand over whole mappings that outlive the machine, see above.
    unsafe { vm.set_user_memory_region(region) }.map_err(io::Error::from)
}

/// Lets `signal`, blocked otherwise, and nothing else interrupt the processor while it runs the guest.
pub fn kicked_by(vcpu: &VcpuFd, signal: i32) -> io::Result<()> {
    let open = 1u64 << (signal - 1);
    let mask = SignalMask { length: 8, set: (!open).to_ne_bytes() };
    // SAFETY: the descriptor is a processor's, the argument what the call reads: a length and as many bytes.
    match unsafe { ioctl_with_ptr(vcpu, KVM_SET_SIGNAL_MASK(), &mask) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The CPUID leaves by which this KVM speaks Hyper-V.
pub fn supported_hyperv(kvm: &Kvm) -> io::Result<CpuId> {
    let mut leaves = CpuId::new(64).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    // SAFETY: the descriptor is /dev/kvm's, the argument a header with room for the 64 entries that it names.
    let result =
        unsafe { ioctl_with_mut_ptr(kvm, KVM_GET_SUPPORTED_HV_CPUID(), leaves.as_mut_fam_struct_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel wrote how many of the 64 entries it filled.
    let filled = unsafe { (*leaves.as_mut_fam_struct_ptr()).len() };
    CpuId::from_entries(&leaves.as_slice()[..filled.min(64)])
        .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))
}
