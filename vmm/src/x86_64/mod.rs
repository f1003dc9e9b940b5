//! What is particular to x86-64: where things lie, how a kernel is entered, what it finds.

pub mod acpi;
pub mod boot;
pub mod bzimage;
pub mod cpuid;
mod hyperv;
pub mod layout;
pub mod registers;
