//! Resource limits: `process.rlimits` to prlimit(2).
//!
//! Owns the table of names. Never changes a limit that the document does not list.

use crate::error::{Error, Result};
use crate::spec;
use crate::sys::prctl;
use nix::errno::Errno;

/// Names by kernel number (asm-generic/resource.h, which x86_64 and aarch64 follow).
const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// A checked limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    resource: u32,
    soft: u64,
    hard: u64,
}

/// Checks `process.rlimits`.
///
/// The runtime-spec (config.md, "POSIX process") wants an error for a type that maps to no kernel
/// interface and for one that appears twice.
pub fn plan(spec: &[spec::Rlimit]) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::with_capacity(spec.len());
    for entry in spec {
        let kind = &entry.kind;
        let Some(resource) = NAMES.iter().position(|name| name == kind) else {
            return Err(Error::invalid(format!("process.rlimits: unknown type {kind:?}")));
        };
        let resource = resource as u32;
        if limits.iter().any(|limit| limit.resource == resource) {
            return Err(Error::invalid(format!("process.rlimits: {kind} appears more than once")));
        }
        if entry.soft > entry.hard {
            return Err(Error::invalid(format!(
                "process.rlimits: {kind}: the soft limit {} is above the hard limit {}",
                entry.soft, entry.hard
            )));
        }
        limits.push(Limit { resource, soft: entry.soft, hard: entry.hard });
    }
    Ok(limits)
}

/// Sets the limits of process `pid`, or of the caller with 0.
///
/// Raising a hard limit takes CAP_SYS_RESOURCE in the *initial* user namespace, so a privileged
/// parent should do it for a child in a user namespace.
pub fn apply(limits: &[Limit], pid: i32) -> Result<()> {
    for limit in limits {
        prctl::set_rlimit(pid, limit.resource, limit.soft, limit.hard).map_err(|errno| {
            let name = NAMES.get(limit.resource as usize).copied().unwrap_or("RLIMIT");
            let error = Error::sys(errno, format!("setting {name} to {}:{}", limit.soft, limit.hard));
            match (errno, name) {
                (Errno::EPERM, "RLIMIT_NOFILE") => error.hint(
                    "the hard limit must not exceed the runtime's own without CAP_SYS_RESOURCE, nor fs.nr_open",
                ),
                (Errno::EPERM, _) => error
                    .hint("the hard limit must not exceed the runtime's own without CAP_SYS_RESOURCE"),
                _ => error,
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, soft: u64, hard: u64) -> spec::Rlimit {
        spec::Rlimit { kind: kind.into(), soft, hard }
    }

    #[test]
    fn the_table_is_the_kernels() {
        for (name, number) in [
            ("RLIMIT_CPU", libc::RLIMIT_CPU),
            ("RLIMIT_CORE", libc::RLIMIT_CORE),
            ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
            ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
            ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
            ("RLIMIT_AS", libc::RLIMIT_AS),
            ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
            ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        ] {
            assert_eq!(NAMES[number as usize], name);
        }
    }

    #[test]
    fn wrong_entries_are_refused() {
        let text = |entries: &[spec::Rlimit]| plan(entries).unwrap_err().to_string();
        assert_eq!(text(&[entry("RLIMIT_FOO", 1, 1)]), "process.rlimits: unknown type \"RLIMIT_FOO\"");
        assert!(text(&[entry("rlimit_core", 1, 1)]).contains("unknown type"));
        assert!(text(&[entry("RLIMIT_CORE", 2, 1)]).contains("soft limit 2 is above the hard limit 1"));
        assert!(text(&[entry("RLIMIT_CORE", 1, 1), entry("RLIMIT_CORE", 2, 2)]).contains("more than once"));
        assert_eq!(plan(&[entry("RLIMIT_NOFILE", 1024, u64::MAX)]).unwrap()[0].resource, 7);
    }
}
