//! What a profile means and what a program does, each on its own: the compiler is judged by the two.
//!
//! For tests and fuzz targets alone. `evaluate` reads the document call by call, `interpret` is the
//! kernel's machine; neither uses the compiler, and the shipped library has neither.

pub(super) mod evaluate;
pub(super) mod interpret;

use super::arch::Abi;
use super::table::SOURCE;
use super::{Compiled, compile_for};
use crate::error::Result;
use crate::spec::Seccomp;

/// A machine to compile for, whichever one this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// With i386 and x32.
    X86_64,
    /// With 32-bit arm.
    Aarch64,
}

impl Machine {
    fn native(self) -> Abi {
        match self {
            Machine::X86_64 => Abi::X86_64,
            Machine::Aarch64 => Abi::Aarch64,
        }
    }

    /// The audit word and the first number of each ABI of the machine.
    pub fn abis(self) -> impl Iterator<Item = (u32, u32)> {
        self.native().family().iter().map(|abi| (abi.audit(), abi.base()))
    }
}

/// One system call as a filter sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    /// The audit word.
    pub arch: u32,
    /// The number, with x32's bit.
    pub nr: u32,
    /// The arguments.
    pub args: [u64; 6],
}

impl From<Call> for interpret::Data {
    fn from(call: Call) -> Self {
        interpret::Data { nr: call.nr, arch: call.arch, args: call.args }
    }
}

/// The names of the table.
pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
    SOURCE.iter().map(|row| row.0)
}

/// The number of the call `name` in the ABI of `machine` that has the audit word `arch` and the base `base`.
pub fn number(machine: Machine, (arch, base): (u32, u32), name: &str) -> Option<u32> {
    let abi = machine.native().family().iter().find(|abi| (abi.audit(), abi.base()) == (arch, base))?;
    super::syscalls::lookup(name)?.number(*abi)
}

/// Compiles `profile` for `machine`.
pub fn compile(profile: &Seccomp, machine: Machine) -> Result<Compiled> {
    compile_for(profile, machine.native())
}

/// Panics where the kernel would refuse the program.
pub fn check(compiled: &Compiled) {
    interpret::check(&compiled.program);
}

/// What the program answers.
pub fn program_says(compiled: &Compiled, call: Call) -> u32 {
    interpret::run(&compiled.program, &call.into())
}

/// What the document says; it must be one that the compiler takes.
pub fn profile_says(profile: &Seccomp, machine: Machine, call: Call) -> u32 {
    evaluate::verdict(profile, machine.native(), &call.into())
}
