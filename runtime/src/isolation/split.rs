//! One document, two containers: the one on the host whose init is the monitor, and the one inside the machine.
//!
//! Pure. The plan of the host's keeps what concerns the host (namespaces, cgroup, id maps, sources of mounts, hooks); the
//! document of the machine keeps what its own kernel does (mounts, user, capabilities, limits, filter).

use std::path::Path;

use super::notify;
use crate::plan::Plan;
use crate::plan::mounts::{MountOp, What};
use crate::rootfs::clean;
use crate::spec::{Cpu, Hooks, Mount, Namespace, Process, Resources, Spec};

/// Where the machine finds the root file system.
pub(super) const ROOT: &str = "/root";
/// Where it finds the sources of bind mounts, by number.
pub(super) const MOUNTS: &str = "/mounts";
/// Its cgroup inside; below [`POD`] are those of the others, by id.
const CGROUP: &str = "/container";
const POD: &str = "/containers";

/// Whose machine a container is to live in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Its own: the host bounds its time, and hears what it says of itself.
    Own,
    /// Another container's: the machine's kernel is the only one that can tell the two apart.
    Anothers,
}

/// What a mount inside no longer needs said, as the host has done it, or as there is nobody to propagate to.
const DONE: [&str; 14] = [
    "idmap",
    "ridmap",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "unbindable",
    "runbindable",
    "bind",
    "rbind",
    "z",
    "Z",
];

/// Whether `op` binds something of the host's, rather than of the container's own root.
pub(super) fn is_of_host(op: &MountOp, rootfs: &Path) -> bool {
    matches!(&op.what, What::Bind { source, .. } if !clean(source).starts_with(rootfs))
}

/// Makes of a container's plan that of its monitor: what the machine's own kernel does is taken out.
///
/// The mounts that stay are the sources that the machine gets, in the order of their numbers; behind them is the one of
/// `notify::mount_of`, which is the monitor's.
pub fn outer(plan: &mut Plan, machine: Machine) {
    let rootfs = clean(&plan.rootfs);
    if let Some(at) = notify::mount_of(plan).filter(|_| machine == Machine::Own) {
        let mount = plan.mounts.remove(at);
        plan.mounts.push(mount);
    }
    plan.mounts.retain(|op| is_of_host(op, &rootfs));
    plan.devices.clear();
    plan.masked_paths.clear();
    plan.readonly_paths.clear();
    plan.sysctls.clear();
    plan.hooks.start_container.clear();
    plan.domainname = None;
    plan.seccomp = None;
    plan.personality = None;
    plan.time_offsets = None;
    plan.namespaces.new &= !crate::sys::clone::CLONE_NEWTIME;
    plan.process.rlimits.clear();
    plan.root_propagation = None;
}

/// The document of the container inside the machine.
///
/// `plan` is that of the whole document, before [`outer`].
pub fn inner(spec: &Spec, plan: &Plan, machine: Machine) -> Spec {
    let rootfs = clean(&plan.rootfs);
    let mut inner = spec.clone();
    inner.annotations.remove(super::ANNOTATION);
    let notified = notify::mount_of(plan).filter(|_| machine == Machine::Own);
    let mut number = 0;
    inner.mounts = spec
        .mounts
        .iter()
        .zip(&plan.mounts)
        .enumerate()
        .map(|(at, (mount, op))| {
            let What::Bind { source, recursive } = &op.what else { return mount.clone() };
            let source = match clean(source).strip_prefix(&rootfs) {
                _ if notified == Some(at) => Path::new(notify::INSIDE).to_owned(),
                Ok(inside) => Path::new(ROOT).join(inside),
                Err(_) => {
                    number += 1;
                    Path::new(MOUNTS).join((number - 1).to_string())
                }
            };
            let options = mount.options.iter().filter(|option| {
                let word = option.split_once('=').map_or(option.as_str(), |(word, _)| word);
                !DONE.contains(&word)
            });
            Mount {
                destination: op.destination.clone(),
                kind: Some("bind".into()),
                source: Some(source),
                options: options
                    .cloned()
                    .chain([if *recursive { "rbind" } else { "bind" }.to_owned()])
                    .collect(),
                ..Mount::default()
            }
        })
        .collect();
    if let Some(root) = &mut inner.root {
        root.path = ROOT.into();
    }
    inner.hooks = spec
        .hooks
        .as_ref()
        .filter(|hooks| !hooks.start_container.is_empty())
        .map(|hooks| Hooks { start_container: hooks.start_container.clone(), ..Hooks::default() });
    if let Some(process) = &mut inner.process {
        forget_policies(process);
    }
    if let Some(linux) = &mut inner.linux {
        let has_network = linux.sysctl.keys().any(|key| key.starts_with("net.") || key.starts_with("net/"));
        linux.namespaces.retain(|ns| !matches!(ns.kind.as_str(), "network" | "user"));
        if has_network {
            // The machine's network is the container's, and so are its sysctls.
            linux.namespaces.push(Namespace { kind: "network".into(), path: Some("/proc/1/ns/net".into()) });
        }
        linux.uid_mappings.clear();
        linux.gid_mappings.clear();
        linux.net_devices.clear();
        linux.intel_rdt = None;
        linux.memory_policy = None;
        linux.mount_label = None;
        linux.rootfs_propagation = None;
        linux.cgroups_path = Some(match machine {
            Machine::Own => CGROUP.into(),
            Machine::Anothers => format!("{POD}/{}", plan.id),
        });
        linux.resources = linux.resources.as_ref().map(|all| inner_resources(all, machine));
    }
    inner
}

/// Takes out of a process what names policies of the host's kernel.
pub fn forget_policies(process: &mut Process) {
    process.apparmor_profile = None;
    process.selinux_label = None;
}

/// What of the limits the machine's own kernel enforces.
pub fn inner_resources(resources: &Resources, machine: Machine) -> Resources {
    let mut inner = resources.clone();
    // Processors, nodes and disks have other numbers there; the time of a whole machine is bounded by the host.
    inner.cpu =
        inner.cpu.filter(|_| machine == Machine::Anothers).map(|cpu| Cpu { cpus: None, mems: None, ..cpu });
    inner.block_io = None;
    inner.rdma.clear();
    inner.network = None;
    inner.hugepage_limits.clear();
    let own = ["memory.", "pids.", "cpu."];
    let own = if machine == Machine::Own { &own[..2] } else { &own[..] };
    inner.unified.retain(|file, _| own.iter().any(|prefix| file.starts_with(prefix)));
    inner
}

/// What of the limits the host enforces: memory with the machine's own part, and no count of tasks, as its tasks are
/// none of the host's.
pub fn outer_resources(resources: &Resources, allowance: &dyn Fn(Option<u64>) -> u64) -> Resources {
    let mut outer = resources.clone();
    let limit = outer.memory.and_then(|memory| memory.limit).and_then(|limit| u64::try_from(limit).ok());
    let allowance = allowance(limit);
    let more = |bytes: &mut Option<i64>| {
        if let Some(bytes) = bytes
            && *bytes > 0
        {
            *bytes = bytes.saturating_add(i64::try_from(allowance).unwrap_or(i64::MAX));
        }
    };
    if let Some(memory) = &mut outer.memory {
        more(&mut memory.limit);
        more(&mut memory.swap);
        more(&mut memory.reservation);
    }
    outer.pids = None;
    // No process on the host opens a device for the workload.
    outer.devices.clear();
    outer.unified.retain(|file, _| !file.starts_with("memory.") && !file.starts_with("pids."));
    outer
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::plan::Choices;

    fn parts(document: serde_json::Value) -> (Spec, Plan) {
        let spec = Spec::parse(document.to_string().as_bytes()).unwrap();
        let mut plan = Plan::new("a", Path::new("/b"), &spec, &Choices::default()).unwrap();
        let inner = inner(&spec, &plan, Machine::Own);
        outer(&mut plan, Machine::Own);
        (inner, plan)
    }

    fn document() -> serde_json::Value {
        serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs", "readonly": true},
            "process": {"args": ["sh"], "cwd": "/", "rlimits":
                [{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 9}]},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro", "rprivate"]},
                {"destination": "/own", "source": "/b/rootfs/etc", "options": ["bind"]},
                {"destination": "/etc/hosts", "source": "hosts", "options": ["bind", "nosuid"]},
            ],
            "hooks": {"createRuntime": [{"path": "/a"}], "startContainer": [{"path": "/b"}]},
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "user"}, {"type": "mount"}],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
                "maskedPaths": ["/proc/kcore"], "sysctl": {"net.ipv4.ip_forward": "1"},
                "resources": {"memory": {"limit": 1000, "swap": -1}, "pids": {"limit": 5},
                    "cpu": {"quota": 1000, "period": 1000, "cpus": "3"}, "unified": {"memory.high": "5", "cpu.idle": "1"}},
            },
        })
    }

    #[test]
    fn sources_are_numbered_alike_on_both_sides() {
        let (inner, outer) = parts(document());
        let sources: Vec<_> = inner.mounts.iter().map(|m| m.source.clone().unwrap()).collect();
        assert_eq!(sources, ["proc", "/mounts/0", "/root/etc", "/mounts/1"].map(PathBuf::from));
        let hosts: Vec<_> = outer
            .mounts
            .iter()
            .map(|op| match &op.what {
                What::Bind { source, .. } => source.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(hosts, ["/srv/data", "/b/hosts"].map(PathBuf::from));
        assert_eq!(inner.mounts[1].options, ["ro", "rbind"]);
        assert_eq!(inner.mounts[3].options, ["nosuid", "bind"]);
    }

    #[test]
    fn a_socket_for_notifications_is_the_guests_own() {
        let mut document = document();
        document["mounts"].as_array_mut().unwrap().insert(
            1,
            serde_json::json!({"destination": "/run/notify", "source": "/run/x/notify", "options": ["bind", "ro"]}),
        );
        // Without a word of it in the environment it is a directory like others.
        let (inner, outer) = parts(document.clone());
        assert_eq!(inner.mounts[1].source.as_deref(), Some(Path::new("/mounts/0")));
        assert_eq!(outer.mounts.len(), 3);
        document["process"]["env"] = serde_json::json!(["NOTIFY_SOCKET=/run/notify/notify.sock"]);
        let (inner, outer) = parts(document);
        let sources: Vec<_> = inner.mounts.iter().map(|m| m.source.clone().unwrap()).collect();
        assert_eq!(
            sources,
            ["proc", "/run/locule/notify", "/mounts/0", "/root/etc", "/mounts/1"].map(PathBuf::from)
        );
        assert_eq!(inner.mounts[1].options, ["ro", "bind"]);
        let last = outer.mounts.last().unwrap();
        assert_eq!((outer.mounts.len(), last.destination.as_path()), (3, Path::new("/run/notify")));
    }

    #[test]
    fn each_side_keeps_what_its_kernel_does() {
        let (inner, outer) = parts(document());
        let linux = inner.linux();
        let kinds: Vec<_> = linux.namespaces.iter().map(|ns| ns.kind.as_str()).collect();
        assert_eq!(kinds, ["pid", "mount", "network"]);
        assert_eq!(linux.namespaces[2].path.as_deref(), Some(Path::new("/proc/1/ns/net")));
        assert!(linux.uid_mappings.is_empty() && linux.masked_paths == ["/proc/kcore"]);
        let hooks = inner.hooks.unwrap();
        assert!(hooks.create_runtime.is_empty() && hooks.start_container.len() == 1);
        assert!(outer.new_user_namespace() && outer.hooks.create_runtime.len() == 1);
        assert!(outer.hooks.start_container.is_empty() && outer.process.rlimits.is_empty());
        assert!(outer.devices.is_empty() && outer.masked_paths.is_empty() && outer.sysctls.is_empty());
        assert_eq!(inner.root.unwrap().path, Path::new("/root"));
        assert_eq!(inner.process.unwrap().rlimits.len(), 1);
    }

    #[test]
    fn limits_hold_where_they_can() {
        let spec = Spec::parse(document().to_string().as_bytes()).unwrap();
        let all = spec.linux().resources.clone().unwrap();
        let inner = inner_resources(&all, Machine::Own);
        assert_eq!((inner.memory, inner.pids), (all.memory, all.pids));
        assert!(inner.cpu.is_none() && inner.unified.len() == 1);
        let outer = outer_resources(&all, &|limit| limit.unwrap_or(0) / 1000 + 23);
        let memory = outer.memory.unwrap();
        assert_eq!((memory.limit, memory.swap), (Some(1024), Some(-1)));
        assert!(outer.pids.is_none() && outer.cpu == all.cpu);
        assert_eq!(outer.unified.keys().collect::<Vec<_>>(), ["cpu.idle"]);
    }
}
