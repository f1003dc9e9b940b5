//! What the guest's CPUID instruction says: the host's processor, this machine's topology, the chosen identity.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;

use super::{hyperv, registers};
use crate::{Doing as _, Error, Identity, Result};

/// Leaf 1, ECX.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: several logical processors in a package.
const HTT: u32 = 1 << 28;

/// The first leaf that hypervisors have.
const HYPERVISOR_LEAVES: u32 = 0x4000_0000;
/// Where these end.
const HYPERVISOR_LEAVES_END: u32 = 0x4001_0000;

/// Makes the leaves for every processor of a machine with `vcpus` of them.
pub fn leaves(kvm: &Kvm, vcpus: u8, identity: Identity) -> Result<Vec<kvm_cpuid_entry2>> {
    let doing = "asking KVM for the processor's features";
    let mut leaves = kvm.get_supported_cpuid(registers::LEAVES).doing(doing)?.as_slice().to_vec();
    if identity != Identity::Kvm {
        leaves.retain(|leaf| !(HYPERVISOR_LEAVES..HYPERVISOR_LEAVES_END).contains(&leaf.function));
    }
    if identity == Identity::Hyperv {
        leaves.extend(hyperv::leaves(kvm)?);
    }
    common(&mut leaves, vcpus, identity);
    Ok(leaves)
}

/// Bits of an APIC id that number the processors of the one package.
fn id_bits(vcpus: u8) -> u32 {
    u32::from(vcpus).next_power_of_two().trailing_zeros()
}

/// What is the same on each processor.
fn common(leaves: &mut Vec<kvm_cpuid_entry2>, vcpus: u8, identity: Identity) {
    let count = u32::from(vcpus);
    let bits = id_bits(vcpus);
    // Topology leaves are made anew below, with a level for threads and one for cores.
    leaves.retain(|leaf| !matches!(leaf.function, 0xb | 0x1f));
    let most = leaves.iter().find(|leaf| leaf.function == 0).map_or(0, |leaf| leaf.eax);
    for leaf in leaves.iter_mut() {
        match leaf.function {
            1 => {
                leaf.ecx |= TSC_DEADLINE;
                leaf.ecx =
                    if identity == Identity::None { leaf.ecx & !HYPERVISOR } else { leaf.ecx | HYPERVISOR };
                leaf.ebx = leaf.ebx & 0xff00_ffff | count << 16;
                leaf.edx = if count > 1 { leaf.edx | HTT } else { leaf.edx & !HTT };
            }
            // Cores of the package, and who shares this cache: its two bits of level say which it is.
            4 if leaf.eax & 0x1f != 0 => {
                let sharing = if leaf.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
                leaf.eax = leaf.eax & 0x3fff | (count - 1) << 26 | sharing << 14;
            }
            0x8000_0008 => leaf.ecx = leaf.ecx & !0xf0ff | (count - 1) | bits << 12,
            // AMD's caches, in the same form.
            0x8000_001d if leaf.eax & 0x1f != 0 => {
                let sharing = if leaf.eax >> 5 & 7 >= 3 { count - 1 } else { 0 };
                leaf.eax = leaf.eax & !(0xfff << 14) | sharing << 14;
            }
            _ => {}
        }
    }
    for function in [0xb, 0x1f] {
        if most < function {
            continue;
        }
        // No shift for threads, one thread; then the cores; then the end.
        for (index, eax, ebx, kind) in [(0, 0, 1, 1), (1, bits, count, 2), (2, 0, 0, 0)] {
            leaves.push(kvm_cpuid_entry2 {
                function,
                index,
                flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax,
                ebx,
                ecx: index | kind << 8,
                ..Default::default()
            });
        }
    }
}

/// The leaves of processor `id`.
pub fn of(leaves: &[kvm_cpuid_entry2], id: u8) -> Result<CpuId> {
    let mut own = leaves.to_vec();
    let id = u32::from(id);
    for leaf in &mut own {
        match leaf.function {
            1 => leaf.ebx = leaf.ebx & 0x00ff_ffff | id << 24,
            0xb | 0x1f => leaf.edx = id,
            0x8000_001e => {
                leaf.eax = id;
                // One thread a core, one node.
                leaf.ebx = id & 0xff;
                leaf.ecx = 0;
            }
            _ => {}
        }
    }
    CpuId::from_entries(&own)
        .map_err(|_| Error::refused("giving a processor its features", "more leaves than KVM takes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, ..Default::default() }
    }

    fn made(vcpus: u8, identity: Identity) -> Vec<kvm_cpuid_entry2> {
        let mut leaves = vec![
            kvm_cpuid_entry2 { eax: 0x1f, ..leaf(0, 0) },
            kvm_cpuid_entry2 { ebx: 0xffff_ffff, ..leaf(1, 0) },
            leaf(0xb, 0),
            leaf(0x8000_0008, 0),
            leaf(0x8000_001e, 0),
        ];
        common(&mut leaves, vcpus, identity);
        leaves
    }

    fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut found = leaves.iter().filter(|leaf| (leaf.function, leaf.index) == (function, index));
        let leaf = *found.next().unwrap();
        assert!(found.next().is_none());
        leaf
    }

    #[test]
    fn the_topology_is_one_package_of_cores() {
        for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (255, 8)] {
            let leaves = made(vcpus, Identity::Kvm);
            assert_eq!(find(&leaves, 1, 0).ebx >> 16 & 0xff, u32::from(vcpus));
            assert_eq!(find(&leaves, 0xb, 1).eax, bits);
            assert_eq!(find(&leaves, 0xb, 1).ebx, u32::from(vcpus));
            assert_eq!(find(&leaves, 0xb, 0).ecx, 0x100);
            assert_eq!(find(&leaves, 0x1f, 1).ecx, 0x201);
            assert_eq!(find(&leaves, 0x8000_0008, 0).ecx, (u32::from(vcpus) - 1) | (bits << 12));
        }
    }

    #[test]
    fn every_processor_has_its_number() {
        let leaves = made(4, Identity::Kvm);
        let own = of(&leaves, 3).unwrap();
        assert_eq!(find(own.as_slice(), 1, 0).ebx >> 24, 3);
        assert_eq!(find(own.as_slice(), 0xb, 1).edx, 3);
        assert_eq!(find(own.as_slice(), 0x8000_001e, 0).eax, 3);
    }

    #[test]
    fn no_identity_is_no_hypervisor() {
        assert_eq!(find(&made(1, Identity::None), 1, 0).ecx & HYPERVISOR, 0);
        assert_ne!(find(&made(1, Identity::Kvm), 1, 0).ecx & HYPERVISOR, 0);
        assert_ne!(find(&made(1, Identity::Hyperv), 1, 0).ecx & HYPERVISOR, 0);
    }
}
