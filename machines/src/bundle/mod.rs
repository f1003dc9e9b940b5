//! From a definition and an image's configuration to the document of an OCI container.
//!
//! Owns what a machine is made of unless its definition says otherwise: namespaces, limits, what it may do. Reads the
//! root file system by descriptor only, as it is the machine's own, and changes nothing.

mod capabilities;
mod devices;
mod init;
mod mounts;
mod seccomp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use locule_images::manifest::Run;
use locule_images::rootfs::Map;
use locule_runtime::rootfs::Root;
use locule_runtime::spec::{
    IdMapping, Linux, Mount, Namespace, Process, Resources, Rlimit, Root as SpecRoot, Spec, TimeOffset,
};

pub use init::{Init, Kind as InitKind, kind, login, user_of};

use crate::definition::Isolation;
use crate::state::State;
use crate::{Definition, Error, Result};

/// The specification version of the documents.
const VERSION: &str = "1.2.1";

/// Covered for everybody but privileged machines, as engines do: they tell of the host, or act on it.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Read-only for everybody but privileged machines.
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];

/// What a document is made of.
#[derive(Debug)]
pub struct Input<'a> {
    /// The machine's name.
    pub name: &'a str,
    /// What its owner wants.
    pub definition: &'a Definition,
    /// What its image says about running it.
    pub image: &'a Run,
    /// What was chosen for it.
    pub state: &'a State,
    /// Its root file system, mounted.
    pub root: &'a Root,
    /// Where that is mounted.
    pub rootfs: &'a Path,
    /// The bundle's directory.
    pub bundle: &'a Path,
    /// Its cgroup, below the cgroup2 mount.
    pub cgroup: &'a str,
    /// Its limits.
    pub resources: Resources,
    /// The files of names to bind into it.
    pub names: Names,
    /// Mounts that others want in it: numbers of its own in /proc, a socket for notifications.
    pub extra: Vec<Mount>,
}

/// Files for finding names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// For /etc/hosts.
    pub hosts: Option<PathBuf>,
    /// For /etc/resolv.conf.
    pub resolv: Option<PathBuf>,
}

/// How it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// It shares the host's network.
    Host,
    /// A network namespace of its own.
    Own,
}

/// Whether the definition shares the host's network.
pub fn wiring(definition: &Definition) -> Result<Wiring> {
    let Some(interfaces) = &definition.networks else { return Ok(Wiring::Own) };
    let of_host =
        interfaces.values().filter(|interface| interface.network.as_deref() == Some("host")).count();
    match (of_host, interfaces.len()) {
        (0, _) => Ok(Wiring::Own),
        (1, 1) => Ok(Wiring::Host),
        _ => Err(Error::invalid("the network host excludes every other").hint("name it alone")),
    }
}

/// Refuses what can be refused without the root file system.
pub fn refuse(definition: &Definition) -> Result<()> {
    if definition.isolation == Isolation::Vm {
        refuse_in_vm(definition)?;
    }
    wiring(definition)?;
    capabilities::choose(definition, InitKind::Plain)?;
    devices::choose(definition, &mut Resources::default())?;
    rlimits(&definition.ulimit)?;
    if let Some(signal) = &definition.init.stop_signal {
        locule_runtime::signals::parse(signal).map_err(|err| err.context("init.stop-signal"))?;
    }
    definition.mounts.iter().try_for_each(|wanted| mounts::asked_for(wanted).map(drop))
}

/// What a kernel of its own cannot share with the host's.
fn refuse_in_vm(definition: &Definition) -> Result<()> {
    if wiring(definition)? == Wiring::Host {
        return Err(Error::invalid(
            "isolation = \"vm\" cannot share the host's network: name another network",
        ));
    }
    if interfaces(definition) > MOST_INTERFACES {
        return Err(Error::invalid(format!("isolation = \"vm\" has at most {MOST_INTERFACES} networks")));
    }
    Ok(())
}

/// Interfaces that it has.
fn interfaces(definition: &Definition) -> usize {
    definition.networks.as_ref().map_or(1, BTreeMap::len)
}

/// Interfaces of a virtual machine, and how many it may have.
const INTERFACES: &str = "org.locule.vm.interfaces";
/// Nobody else changes the root file system of a machine that runs: names and attributes need not be asked for again.
const EXCLUSIVE: (&str, &str) = ("org.locule.vm.root", "exclusive");
/// Whether there is a socket to the host.
const VSOCK: (&str, &str) = ("org.locule.vm.vsock", "true");
const MOST_INTERFACES: usize = 8;

/// Makes the document.
pub fn build(input: &Input<'_>) -> Result<(Spec, Init)> {
    let definition = input.definition;
    refuse(definition)?;
    let init = Init::of(input)?;
    let wiring = wiring(definition)?;
    let caps = capabilities::choose(definition, init.kind)?;
    let map = if definition.privileged { None } else { input.state.map };
    if map.is_none() && !definition.privileged {
        return Err(Error::invalid(format!("machine {} has no user ids of its own", input.name))
            .hint("its state.json is damaged: restore it from a backup"));
    }
    let mut resources = input.resources.clone();
    let nodes = devices::choose(definition, &mut resources)?;
    let mounts = mounts::choose(input, &init, wiring)?;
    let spec = Spec {
        oci_version: VERSION.into(),
        root: Some(SpecRoot { path: input.rootfs.to_owned(), readonly: definition.disk.read_only }),
        hostname: Some(definition.hostname.clone().unwrap_or_else(|| input.name.to_owned())),
        process: Some(Process {
            terminal: init.terminal,
            user: init.user.clone(),
            args: init.args.clone(),
            env: init.env.clone(),
            cwd: init.cwd.clone(),
            rlimits: rlimits(&definition.ulimit)?,
            // Set-id programs are part of a system; what they gain stays in its user namespace.
            no_new_privileges: false,
            oom_score_adj: Some(0),
            capabilities: Some(caps.clone()),
            ..Process::default()
        }),
        mounts,
        annotations: annotations(input),
        linux: Some(Linux {
            uid_mappings: mapping(map),
            gid_mappings: mapping(map),
            namespaces: namespaces(definition, map.is_some(), wiring),
            time_offsets: if own_clock(definition) { clock() } else { BTreeMap::new() },
            sysctl: sysctls(definition, init.kind, wiring),
            resources: Some(resources),
            cgroups_path: Some(input.cgroup.to_owned()),
            devices: nodes,
            seccomp: (!definition.privileged)
                .then(|| seccomp::profile(&caps.bounding, definition.nesting, definition.vsock)),
            rootfs_propagation: Some(if init.kind.is_system() { "rshared" } else { "rslave" }.into()),
            masked_paths: restricted(definition, &MASKED),
            readonly_paths: read_only(definition, init.kind),
            ..Linux::default()
        }),
        ..Spec::default()
    };
    Ok((spec, init))
}

fn annotations(input: &Input<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([("org.locule.machine".to_owned(), input.state.uuid.clone())]);
    if input.definition.isolation == Isolation::Vm {
        all.insert(INTERFACES.to_owned(), interfaces(input.definition).max(1).to_string());
        all.insert(EXCLUSIVE.0.to_owned(), EXCLUSIVE.1.to_owned());
        if input.definition.vsock {
            all.insert(VSOCK.0.to_owned(), VSOCK.1.to_owned());
        }
    }
    all
}

fn mapping(map: Option<Map>) -> Vec<IdMapping> {
    map.iter().map(|map| IdMapping { container_id: 0, host_id: map.first, size: map.count }).collect()
}

fn namespaces(definition: &Definition, user: bool, wiring: Wiring) -> Vec<Namespace> {
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if wiring == Wiring::Own {
        kinds.push("network");
    }
    if user {
        kinds.push("user");
    }
    if own_clock(definition) {
        kinds.push("time");
    }
    kinds.into_iter().map(|kind| Namespace { kind: kind.into(), path: None }).collect()
}

/// Whether uptime begins with the machine's start.
fn own_clock(definition: &Definition) -> bool {
    // A kernel of its own counts from its own start anyway.
    definition.isolation != Isolation::Vm
        && definition.visible != Some(false)
        && Path::new("/proc/self/ns/time").exists()
}

/// Offsets that make the clocks begin at zero now.
fn clock() -> BTreeMap<String, TimeOffset> {
    use nix::time::{ClockId, clock_gettime};
    let clocks = [("monotonic", ClockId::CLOCK_MONOTONIC), ("boottime", ClockId::CLOCK_BOOTTIME)];
    let mut offsets = BTreeMap::new();
    for (name, clock) in clocks {
        if let Ok(now) = clock_gettime(clock) {
            // Seconds alone: the kernel refuses a clock below zero.
            offsets.insert(name.to_owned(), TimeOffset { secs: -now.tv_sec(), nanosecs: 0 });
        }
    }
    offsets
}

fn sysctls(definition: &Definition, kind: InitKind, wiring: Wiring) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    if wiring == Wiring::Own && !kind.is_system() && !definition.privileged {
        // As engines do: a program that the image runs as a user can still serve port 80.
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    sysctls.extend(definition.sysctl.clone());
    sysctls
}

fn restricted(definition: &Definition, paths: &[&str]) -> Vec<String> {
    if definition.privileged { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() }
}

fn read_only(definition: &Definition, kind: InitKind) -> Vec<String> {
    let mut paths = restricted(definition, &READ_ONLY);
    // A system sets the sysctls of its own namespaces; those of the host its user namespace protects.
    if !definition.privileged && !kind.is_system() && !definition.nesting {
        paths.push("/proc/sys".into());
    }
    paths
}

/// rlimits as `soft:hard` or one number, by name; the number of open files is never the caller's.
fn rlimits(wanted: &BTreeMap<String, String>) -> Result<Vec<Rlimit>> {
    let mut limits = Vec::new();
    if !wanted.contains_key("nofile") {
        // As systemd has it, or the most that this process may give.
        let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        let hard = own.map_or(1024, |(_, hard)| hard).min(524_288);
        limits.push(Rlimit { kind: "RLIMIT_NOFILE".into(), soft: hard.min(1024), hard });
    }
    for (name, value) in wanted {
        let number = |text: &str| match text {
            "unlimited" | "-1" => Some(u64::MAX),
            text => text.parse().ok(),
        };
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        match (number(soft), number(hard)) {
            (Some(soft), Some(hard)) if soft <= hard => {
                limits.push(Rlimit { kind: format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard });
            }
            _ => {
                return Err(Error::invalid(format!("ulimit.{name}: {value:?} is not a number or SOFT:HARD")));
            }
        }
    }
    Ok(limits)
}
