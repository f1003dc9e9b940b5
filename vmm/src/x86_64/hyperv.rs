//! Hyper-V's identity: the leaves that this KVM can keep, under Microsoft's name.

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::Kvm;

use crate::sys;
use crate::{Doing as _, Error, Result};

/// The last leaf that is passed on: those above describe nested Hyper-V and a debugger.
const LAST: u32 = 0x4000_0006;
const FIRST: u32 = 0x4000_0000;
const PRIVILEGES: u32 = 0x4000_0003;

/// "TSC invariant" among the privileges: with it Linux prefers the plain TSC to Hyper-V's clock.
const ACCESS_TSC_INVARIANT: u32 = 1 << 15;

/// The leaves. Linux believes in Hyper-V only under Microsoft's name.
pub fn leaves(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>> {
    let doing = "asking KVM for the identity of Hyper-V";
    let mut leaves: Vec<_> = sys::supported_hyperv(kvm)
        .doing(doing)?
        .as_slice()
        .iter()
        .copied()
        .filter(|leaf| (FIRST..=LAST).contains(&leaf.function))
        .collect();
    if !leaves.iter().any(|leaf| leaf.function == FIRST) {
        return Err(Error::refused(doing, "this kernel's KVM has none (CONFIG_KVM_HYPERV)"));
    }
    for leaf in &mut leaves {
        match leaf.function {
            FIRST => {
                leaf.eax = LAST;
                leaf.ebx = u32::from_le_bytes(*b"Micr");
                leaf.ecx = u32::from_le_bytes(*b"osof");
                leaf.edx = u32::from_le_bytes(*b"t Hv");
            }
            PRIVILEGES => leaf.eax &= !ACCESS_TSC_INVARIANT,
            _ => {}
        }
    }
    Ok(leaves)
}
