//! `linux.seccomp` to a BPF program: every action, operator, flag and architecture of the runtime-spec.
//!
//! A compiler of our own, because OCI profiles need several actions, several ABIs and notification in one
//! program. It is pure: `sys::seccomp` installs the result. It never reads a file and never prints.

mod arch;
mod assemble;
#[cfg(any(test, fuzzing))]
pub mod oracle;
mod policy;
mod program;
mod syscalls;
mod table;
#[cfg(test)]
mod tests;

use libc::sock_filter;

use crate::error::{Error, Result};
use crate::spec::Seccomp;

pub use policy::{Known, action, flag, known};

/// A profile as the kernel takes it.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The program; empty where the profile asks for nothing.
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`, `NEW_LISTENER` among them if a rule notifies.
    pub flags: u32,
    /// True if the listener's descriptor must be sent to `listenerPath`.
    pub needs_listener: bool,
    /// What was ignored.
    pub warnings: Vec<String>,
}

/// Compiles `profile` for the machine that this program runs on.
///
/// Refuses unknown actions and operators, an errno on an action that carries none, `SCMP_ACT_NOTIFY`
/// where it cannot work, and a program above the kernel's limit; unknown architectures and flags warn.
pub fn compile(profile: &Seccomp) -> Result<Compiled> {
    compile_for(profile, arch::Abi::NATIVE)
}

fn compile_for(profile: &Seccomp, native: arch::Abi) -> Result<Compiled> {
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        let warning = "linux.seccomp: neither defaultAction nor rules, so nothing is filtered".to_owned();
        return Ok(Compiled { warnings: vec![warning], ..Compiled::default() });
    }
    let policy = policy::read(profile, native)?;
    let program = program::generate(&policy);
    let limit = libc::BPF_MAXINSNS as usize;
    if program.len() > limit {
        let needs = program.len();
        return Err(Error::unsupported(format!(
            "compiling linux.seccomp: the program needs {needs} instructions, the kernel takes at most {limit}"
        ))
        .hint("use fewer argument conditions or list fewer architectures"));
    }
    Ok(Compiled { program, flags: policy.flags, needs_listener: policy.notifies, warnings: policy.warnings })
}
