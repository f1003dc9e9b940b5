//! The tables of ACPI in their hardware-reduced form: processors, the PCI root, power-off and reset, nothing else.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path,
    ResourceTemplate, Scope, ZERO,
};
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as Space, GAS};
use acpi_tables::madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use super::layout;

const OEM: [u8; 6] = *b"LOCULE";
const TABLE: [u8; 8] = *b"LOCULEVM";

// IA-PC boot architecture flags (ACPI 6.5, table 5.11).
/// Without it Linux probes a VGA card.
const VGA_ABSENT: u16 = 1 << 2;
/// Without it Linux waits eight seconds for a clock that is not there.
const NO_CMOS_RTC: u16 = 1 << 5;

struct Bytes(Vec<u8>);

impl AmlSink for Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut sink = Bytes(Vec::new());
    table.to_aml_bytes(&mut sink);
    sink.0
}

/// All tables as they lie in memory from [`layout::ACPI`] on; the root pointer is the first.
pub fn tables(vcpus: u8, serial: bool) -> Vec<u8> {
    let mut all = vec![0u8; 64];
    let mut place = |table: Vec<u8>| {
        let address = layout::ACPI + all.len() as u64;
        all.extend(table);
        all.resize(all.len().next_multiple_of(16), 0);
        address
    };
    let dsdt = place(dsdt(serial));
    let fadt = place(fadt(dsdt));
    let madt = place(madt(vcpus));
    let mut mcfg = MCFG::new(OEM, TABLE, 1);
    mcfg.add_ecam(layout::PCI_CONFIGURATION, 0, 0, 0);
    let mcfg = place(bytes(&mcfg));
    let mut xsdt = XSDT::new(OEM, TABLE, 1);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = place(bytes(&xsdt));
    let root = bytes(&Rsdp::new(OEM, xsdt));
    all[..root.len()].copy_from_slice(&root);
    all
}

fn port(address: u16) -> GAS {
    GAS::new(Space::SystemIo, 8, 0, AccessSize::ByteAccess, address.into())
}

fn fadt(dsdt: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, TABLE, 1)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (VGA_ABSENT | NO_CMOS_RTC).into();
    fadt.reset_reg = port(layout::PORT_RESET);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.sleep_control_reg = port(layout::PORT_SLEEP_CONTROL);
    fadt.sleep_status_reg = port(layout::PORT_SLEEP_STATUS);
    bytes(&fadt.finalize())
}

fn madt(vcpus: u8) -> Vec<u8> {
    let mut madt = MADT::new(OEM, TABLE, 1, LocalInterruptController::Address(layout::LAPIC as u32));
    for cpu in 0..vcpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC as u32, 0));
    bytes(&madt)
}

fn dsdt(serial: bool) -> Vec<u8> {
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, 1);
    let pci = (
        Name::new("_HID".into(), &EISAName::new("PNP0A08")),
        Name::new("_CID".into(), &EISAName::new("PNP0A03")),
        Name::new("_UID".into(), &ZERO),
        Name::new("_SEG".into(), &ZERO),
        Name::new("_BBN".into(), &ZERO),
        // Memory of functions is cached by nobody: coherent without asking.
        Name::new("_CCA".into(), &1u8),
        Name::new(
            "_CRS".into(),
            &ResourceTemplate::new(vec![
                &AddressSpace::<u16>::new_bus_number(0, 0),
                &AddressSpace::<u32>::new_memory(
                    AddressSpaceCacheable::NotCacheable,
                    true,
                    layout::PCI_MEMORY as u32,
                    (layout::PCI_MEMORY_END - 1) as u32,
                    None,
                ),
            ]),
        ),
    );
    let root = Device::new("PCI0".into(), vec![&pci.0, &pci.1, &pci.2, &pci.3, &pci.4, &pci.5, &pci.6]);
    // Linux uses the configuration window only if a motherboard resource reserves it.
    let board = (
        Name::new("_HID".into(), &EISAName::new("PNP0C02")),
        Name::new(
            "_CRS".into(),
            &ResourceTemplate::new(vec![&Memory32Fixed::new(
                true,
                layout::PCI_CONFIGURATION as u32,
                layout::PCI_CONFIGURATION_LENGTH as u32,
            )]),
        ),
    );
    let board = Device::new("MBRD".into(), vec![&board.0, &board.1]);
    let scope = Scope::new(Path::new("\\_SB_"), vec![&root, &board]);
    dsdt.append_slice(&bytes(&scope));
    if serial {
        let uart = (
            Name::new("_HID".into(), &EISAName::new("PNP0501")),
            Name::new("_UID".into(), &ZERO),
            Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &IO::new(layout::PORT_SERIAL, layout::PORT_SERIAL, 1, 8),
                    &Interrupt::new(true, true, false, false, layout::SERIAL_IRQ),
                ]),
            ),
        );
        let uart = Device::new("COM1".into(), vec![&uart.0, &uart.1, &uart.2]);
        dsdt.append_slice(&bytes(&Scope::new(Path::new("\\_SB_"), vec![&uart])));
    }
    let off = Package::new(vec![&layout::SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]);
    dsdt.append_slice(&bytes(&Name::new(Path::new("\\_S5_"), &off)));
    bytes(&dsdt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    fn long(bytes: &[u8], at: usize) -> usize {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
    }

    /// Every table that the root pointer leads to, by signature.
    fn read(all: &[u8]) -> Vec<(String, Vec<u8>)> {
        assert_eq!(&all[..8], b"RSD PTR ");
        assert_eq!(sum(&all[..20]), 0);
        assert_eq!(sum(&all[..36]), 0);
        let table = |address: usize| {
            let at = address - layout::ACPI as usize;
            let length = word(all, at + 4) as usize;
            let table = all[at..at + length].to_vec();
            assert_eq!(sum(&table), 0, "checksum of {:?}", String::from_utf8_lossy(&table[..4]));
            (String::from_utf8_lossy(&table[..4]).into_owned(), table)
        };
        let (name, xsdt) = table(long(all, 24));
        assert_eq!(name, "XSDT");
        let mut found: Vec<_> = (36..xsdt.len()).step_by(8).map(|at| table(long(&xsdt, at))).collect();
        let dsdt = found.iter().find(|(name, _)| name == "FACP").map(|(_, fadt)| long(fadt, 140)).unwrap();
        found.push(table(dsdt));
        found
    }

    #[test]
    fn every_table_is_found_and_sums_to_zero() {
        for (vcpus, serial) in [(1, false), (2, true), (255, true)] {
            let all = tables(vcpus, serial);
            assert!(all.len() as u64 <= layout::ACPI_ROOM);
            let names: Vec<_> = read(&all).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["FACP", "APIC", "MCFG", "DSDT"]);
        }
    }

    #[test]
    fn the_fixed_table_says_what_is_not_there() {
        let found = read(&tables(1, false));
        let fadt = &found[0].1;
        let flags = word(fadt, 112);
        assert_eq!(flags & (1 << 20), 1 << 20, "hardware-reduced");
        assert_eq!(flags & (1 << 10), 1 << 10, "reset register");
        assert_eq!(
            u16::from_le_bytes([fadt[109], fadt[110]]),
            0b10_0100,
            "no VGA, no CMOS clock, MSI allowed"
        );
        assert_eq!(fadt[128], 1, "reset value");
    }

    #[test]
    fn every_processor_has_an_entry() {
        let found = read(&tables(3, false));
        let madt = &found[1].1;
        // 44 bytes of header, 8 a processor, 12 for the I/O interrupt controller.
        assert_eq!(madt.len(), 44 + 3 * 8 + 12);
    }
}
