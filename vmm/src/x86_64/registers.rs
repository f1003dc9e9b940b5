//! Registers of a processor before its first instruction.

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_segment};
use kvm_ioctls::VcpuFd;

use super::boot::Entry;
use super::layout;
use crate::{Doing as _, Error, Result};

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// Enabled, write-back.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// The most leaves that KVM takes.
pub const LEAVES: usize = KVM_MAX_CPUID_ENTRIES;

/// What every processor needs; after its CPUID, before it runs.
pub fn common(vcpu: &VcpuFd) -> Result<()> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let wanted =
        [entry(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING), entry(MSR_MTRR_DEFAULT_TYPE, MTRR_WRITE_BACK)];
    let doing = "setting a processor's model-specific registers";
    let msrs = Msrs::from_entries(&wanted).map_err(|_| Error::refused(doing, "too many"))?;
    let set = vcpu.set_msrs(&msrs).doing(doing)?;
    if set != wanted.len() {
        return Err(Error::refused(doing, format!("KVM refused register {:#x}", wanted[set].index)));
    }
    Ok(())
}

fn segment(selector: u16, kind: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    }
}

/// Lets the first processor begin at the kernel's entry.
pub fn first(vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let doing = "setting the first processor's registers";
    let mut special = vcpu.get_sregs().doing(doing)?;
    let long = matches!(entry, Entry::Long { .. });
    special.cs = segment(0x10, 0xb, long);
    let data = segment(0x18, 0x3, false);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = kvm_segment { limit: 0x67, selector: 0x20, type_: 0xb, present: 1, ..Default::default() };
    special.idt.limit = 0;
    special.cr0 = CR0_PE | CR0_ET;
    special.cr4 = 0;
    if long {
        special.gdt.base = layout::GDT;
        special.gdt.limit = 8 * 5 - 1;
        special.cr3 = layout::PAGE_TABLES;
        special.cr4 = CR4_PAE;
        special.cr0 |= CR0_PG;
        special.efer = EFER_LME | EFER_LMA;
    }
    vcpu.set_sregs(&special).doing(doing)?;
    let mut registers = vcpu.get_regs().doing(doing)?;
    registers.rflags = 2;
    match entry {
        Entry::Pvh { address } => {
            registers.rip = address;
            registers.rbx = layout::START_INFO;
        }
        Entry::Long { address } => {
            registers.rip = address;
            registers.rsi = layout::ZERO_PAGE;
        }
    }
    vcpu.set_regs(&registers).doing(doing)
}
