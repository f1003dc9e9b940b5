//! Where things lie in the guest's physical address space and among its ports.

/// Start information for a PVH kernel; its lists follow.
pub const START_INFO: u64 = 0x6000;
/// The memory map of the start information.
pub const MEMORY_MAP: u64 = 0x6100;
/// The module list of the start information.
pub const MODULES: u64 = 0x6800;
/// Boot parameters for a bzImage ("zero page").
pub const ZERO_PAGE: u64 = 0x7000;
/// Page tables for the 64-bit entry: four levels' first three, 3 pages.
pub const PAGE_TABLES: u64 = 0x9000;
/// Descriptor table for the 64-bit entry.
pub const GDT: u64 = 0x8000;
/// The command line, closed by a zero byte.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes of it, with the zero byte: what x86 kernels take.
pub const COMMAND_LINE_ROOM: usize = 2048;
/// End of the memory below 1 MiB.
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// The tables of ACPI.
pub const ACPI: u64 = 0xe_0000;
/// Bytes for them.
pub const ACPI_ROOM: u64 = 0x2_0000;
/// Memory goes on; kernels are loaded from here.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// A word of the BIOS data area that Linux fills before a reset: how the reset is meant.
pub const RESET_FLAG: u64 = 0x472;

/// Memory of PCI functions.
pub const PCI_MEMORY: u64 = 0xc000_0000;
/// Its end.
pub const PCI_MEMORY_END: u64 = 0xe000_0000;
/// PCI configuration of bus 0, 4 KiB a function.
pub const PCI_CONFIGURATION: u64 = 0xe000_0000;
/// Its bytes.
pub const PCI_CONFIGURATION_LENGTH: u64 = 0x10_0000;
/// The I/O interrupt controller.
pub const IOAPIC: u64 = 0xfec0_0000;
/// The processors' own interrupt controllers.
pub const LAPIC: u64 = 0xfee0_0000;
/// Three pages that KVM wants on Intel's processors.
pub const KVM_TSS: u64 = 0xfffb_d000;
/// One more.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// The first interrupt that no pin of the I/O interrupt controller has: message-signalled ones start here.
pub const FIRST_MESSAGE_GSI: u32 = 24;

/// ACPI's sleep control register.
pub const PORT_SLEEP_CONTROL: u16 = 0x600;
/// ACPI's sleep status register.
pub const PORT_SLEEP_STATUS: u16 = 0x601;
/// ACPI's reset register.
pub const PORT_RESET: u16 = 0x602;
/// What is written there for a reset.
pub const RESET_VALUE: u8 = 1;
/// The sleep type of "off" in `\_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// The serial port `ttyS0`.
pub const PORT_SERIAL: u16 = 0x3f8;
/// Its interrupt.
pub const SERIAL_IRQ: u32 = 4;
/// Where a register of the clock is selected; it is read at the next port.
pub const PORT_CLOCK: u16 = 0x70;
/// The keyboard controller, by whose command 0xfe old kernels reset.
pub const PORT_KEYBOARD: u16 = 0x64;
