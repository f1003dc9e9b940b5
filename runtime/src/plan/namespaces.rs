//! Namespaces: which are made, which are joined, and whether that needs a step between.
//!
//! Pure.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::spec::Linux;
use crate::sys::clone::CLONE_NEWTIME;

/// Word of the specification, clone flag, and name under /proc/PID/ns; in the order in which they are joined.
pub const KINDS: [(&str, u64, &str); 8] = [
    ("user", libc::CLONE_NEWUSER as u64, "user"),
    ("ipc", libc::CLONE_NEWIPC as u64, "ipc"),
    ("uts", libc::CLONE_NEWUTS as u64, "uts"),
    ("network", libc::CLONE_NEWNET as u64, "net"),
    ("pid", libc::CLONE_NEWPID as u64, "pid"),
    ("cgroup", libc::CLONE_NEWCGROUP as u64, "cgroup"),
    ("time", CLONE_NEWTIME, "time"),
    ("mount", libc::CLONE_NEWNS as u64, "mnt"),
];

/// `CLONE_NEWUSER`, which decides more than the others.
pub const USER: u64 = libc::CLONE_NEWUSER as u64;
/// `CLONE_NEWPID`.
pub const PID: u64 = libc::CLONE_NEWPID as u64;
/// `CLONE_NEWCGROUP`.
pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
/// `CLONE_NEWNS`.
pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
/// `CLONE_NEWUTS`.
pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
/// `CLONE_NEWNET`.
pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;

/// The namespaces of a container.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    /// `CLONE_NEW*` of those to make.
    pub new: u64,
    /// Flag and path of those to join, in the order of [`KINDS`].
    pub join: Vec<(u64, PathBuf)>,
}

impl Namespaces {
    /// Whether one of this kind is made.
    pub fn makes(&self, flag: u64) -> bool {
        self.new & flag != 0
    }

    /// Whether one of this kind is joined.
    pub fn joins(&self, flag: u64) -> bool {
        self.join.iter().any(|(joined, _)| *joined == flag)
    }

    /// Whether the container has one of its own or joins one, rather than the runtime's.
    pub fn has(&self, flag: u64) -> bool {
        self.makes(flag) || self.joins(flag)
    }
}

/// Plans `linux.namespaces`.
pub fn plan(linux: &Linux) -> Result<Namespaces> {
    let mut out = Namespaces::default();
    for (at, namespace) in linux.namespaces.iter().enumerate() {
        let Some((_, flag, _)) = KINDS.iter().find(|(word, ..)| *word == namespace.kind) else {
            return Err(Error::invalid(format!("linux.namespaces[{at}]: unknown type {:?}", namespace.kind)));
        };
        if out.has(*flag) {
            return Err(Error::invalid(format!("linux.namespaces: {} is listed twice", namespace.kind)));
        }
        match namespace.path.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => out.new |= flag,
            // The kernel takes at most PATH_MAX; refuse it here rather than deep inside (CVE-2021-43784).
            Some(path) if path.as_os_str().len() >= libc::PATH_MAX as usize => {
                return Err(Error::invalid(format!("linux.namespaces[{at}]: the path is too long")));
            }
            Some(path) if path.is_relative() => {
                return Err(Error::invalid(format!(
                    "linux.namespaces[{at}]: {} is not an absolute path",
                    path.display()
                )));
            }
            Some(path) => out.join.push((*flag, path.clone())),
        }
    }
    out.join.sort_by_key(|(flag, _)| KINDS.iter().position(|(_, kind, _)| kind == flag));
    if !out.has(MOUNT) && out.has(USER) {
        return Err(Error::unsupported("linux.namespaces has a user namespace, but no mount namespace")
            .hint("add {\"type\": \"mount\"}: without one nothing could be mounted"));
    }
    if !out.has(MOUNT) && linux.rootfs_propagation.as_ref().is_some_and(|word| !word.is_empty()) {
        return Err(Error::unsupported("linux.rootfsPropagation needs a mount namespace"));
    }
    let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
    if maps && !out.has(USER) {
        return Err(Error::invalid("linux.uidMappings and gidMappings need a user namespace"));
    }
    if !linux.time_offsets.is_empty() && !out.makes(CLONE_NEWTIME) {
        return Err(Error::invalid("linux.timeOffsets need a new time namespace"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Namespaces> {
        plan(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn made_and_joined() {
        let ns = of(r#"{"namespaces":[{"type":"mount"},{"type":"network","path":"/n"},{"type":"user","path":"/u"},{"type":"time"}]}"#).unwrap();
        assert!(ns.makes(MOUNT) && ns.makes(CLONE_NEWTIME) && !ns.makes(NETWORK));
        assert!(!of(r#"{"namespaces":[{"type":"pid"}]}"#).unwrap().has(MOUNT));
        assert_eq!(ns.join, [(USER, PathBuf::from("/u")), (NETWORK, PathBuf::from("/n"))]);
    }

    #[test]
    fn refusals() {
        for (json, word) in [
            (r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#, "twice"),
            (r#"{"namespaces":[{"type":"net"}]}"#, "unknown type"),
            (r#"{"namespaces":[{"type":"user"}]}"#, "no mount namespace"),
            (r#"{"namespaces":[],"rootfsPropagation":"shared"}"#, "needs a mount namespace"),
            (r#"{"namespaces":[{"type":"mount"}],"timeOffsets":{"monotonic":{"secs":1}}}"#, "time namespace"),
            (
                r#"{"namespaces":[{"type":"mount"}],"uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
                "user namespace",
            ),
        ] {
            assert!(of(json).unwrap_err().to_string().contains(word), "{json}");
        }
        let long = format!(
            r#"{{"namespaces":[{{"type":"mount"}},{{"type":"pid","path":"/{}"}}]}}"#,
            "x".repeat(70_000)
        );
        assert!(of(&long).unwrap_err().to_string().contains("too long"));
    }
}
