//! `linux.memoryPolicy` (runtime-spec 1.3) to set_mempolicy(2).
//!
//! Owns the names and the combinations that the kernel refuses with a bare EINVAL.

use nix::errno::Errno;

use super::sched::{lookup, parse_list};
use crate::error::{Error, Result};
use crate::spec;
use crate::sys::sched as sys;

/// Modes (linux/mempolicy.h).
const MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const NUMA_BALANCING: u32 = 1 << 13;
const RELATIVE_NODES: u32 = 1 << 14;
const STATIC_NODES: u32 = 1 << 15;

const FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", NUMA_BALANCING),
    ("MPOL_F_RELATIVE_NODES", RELATIVE_NODES),
    ("MPOL_F_STATIC_NODES", STATIC_NODES),
];

/// The most NUMA nodes that any Linux can have.
const NODES: u32 = 1024;

/// A checked policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    mode: u32,
    nodes: Vec<u64>,
}

/// Checks `linux.memoryPolicy`.
pub fn plan(spec: Option<&spec::MemoryPolicy>) -> Result<Option<MemoryPolicy>> {
    let Some(spec) = spec else { return Ok(None) };
    let wrong = |text: String| Err(Error::invalid(format!("linux.memoryPolicy.{text}")));
    let Some(mode) = lookup(&MODES, &spec.mode) else {
        return wrong(format!("mode: unknown mode {:?}", spec.mode));
    };
    let mut flags = 0;
    for name in &spec.flags {
        match lookup(&FLAGS, name) {
            Some(flag) => flags |= flag,
            None => return wrong(format!("flags: unknown flag {name:?}")),
        }
    }
    let nodes = match spec.nodes.trim() {
        "" => vec![],
        text => parse_list(text, NODES).map_err(|err| err.context("linux.memoryPolicy.nodes"))?,
    };
    let name = spec.mode.as_str();
    let remapped = flags & (RELATIVE_NODES | STATIC_NODES);
    if remapped == RELATIVE_NODES | STATIC_NODES {
        return wrong("flags: MPOL_F_RELATIVE_NODES and MPOL_F_STATIC_NODES exclude each other".into());
    }
    if flags & NUMA_BALANCING != 0 && !matches!(name, "MPOL_BIND" | "MPOL_PREFERRED_MANY") {
        return wrong(format!("flags: MPOL_F_NUMA_BALANCING does not go with {name}"));
    }
    match name {
        "MPOL_DEFAULT" | "MPOL_LOCAL" if !nodes.is_empty() => {
            return wrong(format!("nodes: {name} takes none"));
        }
        "MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED" if nodes.is_empty() && remapped != 0 => {
            return wrong(format!("flags: {} needs nodes", spec.flags.join(", ")));
        }
        "MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED" => {}
        _ if nodes.is_empty() => return wrong(format!("nodes: {name} needs some")),
        _ => {}
    }
    Ok(Some(MemoryPolicy { mode: mode | flags, nodes }))
}

impl MemoryPolicy {
    /// Sets the policy of the calling process; its children and what it execs inherit it.
    pub fn apply(&self) -> Result<()> {
        sys::set_memory_policy(self.mode, &self.nodes).map_err(|errno| {
            let error = Error::sys(errno, "setting linux.memoryPolicy");
            match errno {
                Errno::EINVAL => error.hint(
                    "a node is not online or not in the container's cpuset, or the kernel lacks this mode",
                ),
                Errno::ENOSYS => error.hint("this kernel is built without NUMA"),
                _ => error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(mode: &str, nodes: &str, flags: &[&str]) -> Result<Option<MemoryPolicy>> {
        plan(Some(&spec::MemoryPolicy {
            mode: mode.into(),
            nodes: nodes.into(),
            flags: flags.iter().map(|flag| String::from(*flag)).collect(),
        }))
    }

    #[test]
    fn modes_flags_and_nodes() {
        let policy = |mode: &str, nodes: &str, flags: &[&str]| {
            let policy = parse(mode, nodes, flags).unwrap().unwrap();
            (policy.mode, policy.nodes)
        };
        assert_eq!(policy("MPOL_DEFAULT", "", &[]), (0, vec![]));
        assert_eq!(policy("MPOL_LOCAL", "", &[]), (4, vec![]));
        assert_eq!(policy("MPOL_PREFERRED", "", &[]), (1, vec![]));
        assert_eq!(policy("MPOL_BIND", "0-1", &["MPOL_F_STATIC_NODES"]), (2 | 1 << 15, vec![3]));
        assert_eq!(policy("MPOL_INTERLEAVE", "0,64", &["MPOL_F_RELATIVE_NODES"]), (3 | 1 << 14, vec![1, 1]));
        assert_eq!(policy("MPOL_PREFERRED_MANY", "0", &["MPOL_F_NUMA_BALANCING"]), (5 | 1 << 13, vec![1]));
        assert_eq!(policy("MPOL_WEIGHTED_INTERLEAVE", "0", &[]), (6, vec![1]));
        assert_eq!(plan(None).unwrap(), None);
    }

    #[test]
    fn what_the_kernel_refuses_is_named() {
        for (mode, nodes, flags, text) in [
            ("MPOL_FOO", "", vec![], "unknown mode"),
            ("", "", vec![], "unknown mode"),
            ("MPOL_BIND", "0", vec!["MPOL_F_FOO"], "unknown flag"),
            ("MPOL_BIND", "", vec![], "MPOL_BIND needs some"),
            ("MPOL_INTERLEAVE", "", vec![], "needs some"),
            ("MPOL_DEFAULT", "0", vec![], "takes none"),
            ("MPOL_LOCAL", "0", vec![], "takes none"),
            ("MPOL_BIND", "0-x", vec![], "linux.memoryPolicy.nodes: "),
            ("MPOL_BIND", "1024", vec![], "below 1024"),
            ("MPOL_BIND", "0", vec!["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"], "exclude each other"),
            ("MPOL_INTERLEAVE", "0", vec!["MPOL_F_NUMA_BALANCING"], "does not go with MPOL_INTERLEAVE"),
            ("MPOL_PREFERRED", "", vec!["MPOL_F_STATIC_NODES"], "needs nodes"),
        ] {
            let err = parse(mode, nodes, &flags).unwrap_err().to_string();
            assert!(err.contains(text), "{err}");
        }
    }
}
