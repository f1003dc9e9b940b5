//! `spec`: a config.json to begin with, the same that runc writes.
//!
//! Owns the two documents. They are texts and not `oci-spec` values, so that what a user gets is
//! what stands there, in an order that people read (that crate keeps capabilities in a hash set).
//! Never overwrites a file.

use std::fs::OpenOptions;
use std::io::Write;

use clap::ArgMatches;
use locule_runtime::error::Context;
use locule_runtime::{Error, Kind, Result};

use crate::args::Globals;
use crate::cli::{Verb, option, path, path_parser, switch};
use crate::out::Out;

const DEFAULT: &str = include_str!("spec/default.json");
const ROOTLESS: &str = include_str!("spec/rootless.json.in");

/// The declaration.
pub const VERB: Verb = Verb {
    name: "spec",
    about: "Write a config.json to begin with",
    usage: "[options]",
    details: "The document runs sh in the directory rootfs of the bundle, read-only, with a terminal, three \
capabilities and no network. --rootless adds a user namespace that maps root inside to the caller, and leaves \
out what a user may not do; no further configuration is needed. An existing config.json is not touched.",
    examples: &[(
        "A bundle from nothing but busybox",
        "mkdir -p rootfs/bin && cp /bin/busybox rootfs/bin/sh\nlocule spec && locule run box",
    )],
    arguments: |command| {
        command.args([
            option("bundle", "DIR", "The bundle (default: the current directory)")
                .short('b')
                .value_parser(path_parser()),
            switch("rootless", "For a user without privileges"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let path = path(matches, "bundle")?.unwrap_or_default().join("config.json");
    let text = document(
        matches
            .get_flag("rootless")
            .then(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())),
    );
    let act = || format!("writing {}", path.display());
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new(Kind::Exists, format!("{}: the file exists: remove it first", act())));
        }
        other => other.doing(act)?,
    };
    file.write_all(text.as_bytes()).doing(act)?;
    Ok(0)
}

/// The document, for the user and group that root inside is mapped to if it is a rootless one.
fn document(rootless: Option<(u32, u32)>) -> String {
    match rootless {
        None => DEFAULT.to_owned(),
        Some((uid, gid)) => ROOTLESS.replace("@UID@", &uid.to_string()).replace("@GID@", &gid.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule_runtime::spec::Spec;
    use oci_spec::runtime::{LinuxNamespaceType, Spec as OciSpec};

    fn both(text: &str) -> (Spec, OciSpec) {
        (Spec::parse(text.as_bytes()).unwrap(), serde_json::from_str(text).unwrap())
    }

    fn kinds(spec: &OciSpec) -> Vec<LinuxNamespaceType> {
        let linux = spec.linux().as_ref().unwrap();
        linux.namespaces().as_ref().unwrap().iter().map(|namespace| namespace.typ()).collect()
    }

    #[test]
    fn the_default_is_a_document_of_the_specification() {
        use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
        let (own, oci) = both(&document(None));
        assert_eq!(own.oci_version, crate::cli::SPEC_VERSION);
        assert_eq!(kinds(&oci), [Pid, Network, Ipc, Uts, Mount, Cgroup]);
        let process = own.process.unwrap();
        assert_eq!(process.args, ["sh"]);
        let sets = process.capabilities.unwrap();
        for set in [&sets.bounding, &sets.effective, &sets.permitted] {
            assert_eq!(*set, ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
        }
        assert!(sets.ambient.is_empty() && sets.inheritable.is_empty());
        assert_eq!(own.mounts.len(), 7);
        assert!(own.linux.unwrap().resources.unwrap().devices.iter().all(|rule| !rule.allow));
    }

    #[test]
    fn a_rootless_one_maps_the_caller_and_asks_for_no_privilege() {
        use LinuxNamespaceType::{Cgroup, Ipc, Mount, Pid, User, Uts};
        let (own, oci) = both(&document(Some((1000, 100))));
        assert_eq!(kinds(&oci), [Pid, Ipc, Uts, Mount, Cgroup, User]);
        let linux = own.linux.unwrap();
        assert_eq!((linux.uid_mappings[0].host_id, linux.gid_mappings[0].host_id), (1000, 100));
        assert_eq!((linux.uid_mappings[0].container_id, linux.uid_mappings[0].size), (0, 1));
        assert!(linux.resources.is_none());
        for mount in &own.mounts {
            assert!(
                mount.options.iter().all(|option| !option.starts_with("gid=") && !option.starts_with("uid="))
            );
        }
        let sys = own.mounts.iter().find(|mount| mount.destination.ends_with("sys")).unwrap();
        assert_eq!(sys.options, ["rbind", "nosuid", "noexec", "nodev", "ro"]);
    }
}
