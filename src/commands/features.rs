//! `features`: what this build understands, as the runtime-spec's features document.
//!
//! Owns the document. It describes the build, needs no privileges and says nothing on standard
//! error: CRI-O reads both streams as one, and containerd without a `linux` object in it crashes.

use std::collections::HashMap;

use clap::ArgMatches;
use locule_runtime::plan::options;
use locule_runtime::{Error, Kind, Result, seccomp};
use oci_spec::runtime as oci;

use crate::args::Globals;
use crate::cli::{COMMIT, SPEC_VERSION, Verb};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "features",
    about: "Print what this build supports, as JSON",
    usage: "",
    details: "The form is the runtime-spec's features document; engines read it to decide on user namespaces, \
idmapped and recursive read-only mounts. It tells what is built in, not what this kernel has: for that there \
is locule check.",
    examples: &[("Mount options", "locule features | jq .mountOptions")],
    run,
    ..Verb::BASE
};

/// Oldest specification whose documents are read; see the runtime-spec's features.md.
const SPEC_VERSION_MIN: &str = "1.0.0";

const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// capabilities(7), in the order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

const NAMESPACES: [oci::LinuxNamespaceType; 8] = {
    use oci::LinuxNamespaceType::*;
    [Cgroup, Ipc, Mount, Network, Pid, Time, User, Uts]
};

const SECCOMP_ACTIONS: [oci::LinuxSeccompAction; 9] = {
    use oci::LinuxSeccompAction::*;
    [
        ScmpActAllow,
        ScmpActErrno,
        ScmpActKill,
        ScmpActKillProcess,
        ScmpActKillThread,
        ScmpActLog,
        ScmpActNotify,
        ScmpActTrace,
        ScmpActTrap,
    ]
};

const SECCOMP_ARCHITECTURES: [oci::Arch; 18] = {
    use oci::Arch::*;
    [
        ScmpArchAarch64,
        ScmpArchArm,
        ScmpArchLoongarch64,
        ScmpArchMips,
        ScmpArchMips64,
        ScmpArchMips64n32,
        ScmpArchMipsel,
        ScmpArchMipsel64,
        ScmpArchMipsel64n32,
        ScmpArchPpc,
        ScmpArchPpc64,
        ScmpArchPpc64le,
        ScmpArchRiscv64,
        ScmpArchS390,
        ScmpArchS390x,
        ScmpArchX32,
        ScmpArchX86,
        ScmpArchX86_64,
    ]
};

const MEMORY_POLICY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];

const MEMORY_POLICY_FLAGS: [&str; 3] =
    ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Annotations of config.json that change how the host is used; a final dot makes a prefix.
/// Engines keep them from users who are not trusted with them.
const UNSAFE_ANNOTATIONS: [&str; 2] = ["org.systemd.property.", "org.locule."];

fn run(_globals: &Globals, _matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let document =
        document().map_err(|err| Error::new(Kind::System, format!("describing the features: {err}")))?;
    out.json_pretty(&document)?;
    Ok(0)
}

fn document() -> std::result::Result<oci::Features, oci_spec::OciSpecError> {
    let words = |list: &[&str]| list.iter().copied().map(String::from).collect::<Vec<_>>();
    let known = seccomp::known();
    let cgroup = oci::CgroupBuilder::default()
        .v1(false)
        .v2(true)
        .systemd(true)
        .systemd_user(true)
        .rdma(true)
        .build()?;
    let seccomp = oci::SeccompBuilder::default()
        .enabled(true)
        .actions(SECCOMP_ACTIONS)
        .operators(words(known.operators))
        .archs(SECCOMP_ARCHITECTURES)
        .known_flags(words(known.flags))
        .supported_flags(words(known.flags))
        .build()?;
    let memory_policy = oci::MemoryPolicyBuilder::default()
        .modes(words(&MEMORY_POLICY_MODES))
        .flags(words(&MEMORY_POLICY_FLAGS))
        .build()?;
    let linux = oci::LinuxFeatureBuilder::default()
        .namespaces(NAMESPACES)
        .capabilities(words(&CAPABILITIES))
        .cgroup(cgroup)
        .seccomp(seccomp)
        .apparmor(oci::ApparmorBuilder::default().enabled(true).build()?)
        .selinux(oci::SelinuxBuilder::default().enabled(true).build()?)
        .intel_rdt(oci::IntelRdtBuilder::default().enabled(true).schemata(true).monitoring(true).build()?)
        .memory_policy(memory_policy)
        .mount_extensions(
            oci::MountExtensionsBuilder::default()
                .idmap(oci::IDMapBuilder::default().enabled(true).build()?)
                .build()?,
        )
        .net_devices(oci::NetDevicesBuilder::default().enabled(true).build()?)
        .build()?;
    let mut annotations = HashMap::from([
        ("org.locule.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("org.locule.checkpoint.enabled".to_owned(), "false".to_owned()),
    ]);
    if let Some(commit) = COMMIT {
        annotations.insert("org.locule.commit".to_owned(), commit.to_owned());
    }
    oci::FeaturesBuilder::default()
        .oci_version_min(SPEC_VERSION_MIN)
        .oci_version_max(SPEC_VERSION)
        .hooks(words(&HOOKS))
        .mount_options(options::known().map(String::from).collect::<Vec<_>>())
        .linux(linux)
        .annotations(annotations)
        .potentially_unsafe_config_annotations(words(&UNSAFE_ANNOTATIONS))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_and_architectures_are_those_of_the_compiler() {
        let value = serde_json::to_value(document().unwrap()).unwrap();
        let sorted = |mut words: Vec<String>| {
            words.sort();
            words
        };
        let told = |name: &str| {
            let list = value["linux"]["seccomp"][name].as_array().unwrap();
            sorted(list.iter().map(|word| word.as_str().unwrap().to_owned()).collect())
        };
        let known = seccomp::known();
        let words = |list: &[&str]| sorted(list.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(told("actions"), words(known.actions));
        // oci-spec lacks a few that no engine runs on.
        assert!(told("archs").iter().all(|arch| known.archs.contains(&arch.as_str())));
    }

    #[test]
    fn nothing_is_left_open() {
        let value = serde_json::to_value(document().unwrap()).unwrap();
        fn no_null(path: &str, value: &serde_json::Value) {
            match value {
                serde_json::Value::Null => panic!("{path} is null"),
                serde_json::Value::Object(map) => {
                    map.iter().for_each(|(key, value)| no_null(&format!("{path}/{key}"), value))
                }
                serde_json::Value::Array(list) => assert!(!list.is_empty(), "{path} is empty"),
                _ => {}
            }
        }
        no_null("", &value);
    }

    #[test]
    fn what_the_engines_look_for_is_there() {
        let value = serde_json::to_value(document().unwrap()).unwrap();
        let has = |pointer: &str, word: &str| {
            value.pointer(pointer).unwrap().as_array().unwrap().iter().any(|entry| entry == word)
        };
        assert_eq!(value["ociVersionMin"], "1.0.0");
        assert_eq!(value["ociVersionMax"], "1.3.0");
        assert!(has("/mountOptions", "rro"), "CRI-O, dockerd: recursive read-only mounts");
        assert!(has("/linux/namespaces", "user"), "containerd's CRI: user namespaces");
        assert!(has("/linux/namespaces", "time"));
        assert_eq!(value.pointer("/linux/mountExtensions/idmap/enabled").unwrap(), true);
        assert_eq!(value.pointer("/linux/cgroup/v2").unwrap(), true);
        assert!(has("/linux/seccomp/archs", "SCMP_ARCH_X86_64"));
        assert!(has("/linux/seccomp/actions", "SCMP_ACT_NOTIFY"));
        assert!(has("/potentiallyUnsafeConfigAnnotations", "org.systemd.property."));
    }
}
