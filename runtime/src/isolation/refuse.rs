//! What a virtual machine cannot do, refused before anything is made; never a fall-back to less.
//!
//! Pure, but for the look at which network namespace is the caller's own.

use std::os::unix::fs::MetadataExt;

use super::split::Machine;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::mounts::What;
use crate::plan::namespaces::{MOUNT, NETWORK, PID, UTS};
use crate::spec::Spec;

/// Devices that every kernel has by itself, so that the machine's own is as good: type, major number, minor numbers.
const GENERIC: [(u32, u64, std::ops::RangeInclusive<u64>); 6] = [
    (libc::S_IFCHR, 1, 3..=11),
    (libc::S_IFCHR, 5, 0..=2),
    (libc::S_IFCHR, 10, 200..=200),
    (libc::S_IFCHR, 10, 229..=229),
    (libc::S_IFCHR, 136, 0..=u64::MAX),
    (libc::S_IFIFO, 0, 0..=0),
];

const IPC: u64 = libc::CLONE_NEWIPC as u64;

/// Namespaces that the machine's own kernel has, and what sharing them would mean.
const OWN: [(u64, &str); 4] = [(PID, "pid"), (IPC, "ipc"), (MOUNT, "mount"), (UTS, "uts")];

/// Refuses what the document asks for and a machine cannot give. What is joined in another's machine was judged where that
/// was found.
pub fn refuse(spec: &Spec, plan: &Plan, machine: Machine) -> Result<()> {
    let refused = |text: String| Err(Error::unsupported(text));
    for (flag, word) in OWN {
        let judged = machine == Machine::Anothers && plan.namespaces.joins(flag);
        if !plan.namespaces.makes(flag) && !judged {
            let whose = if plan.namespaces.joins(flag) { "another's" } else { "the host's" };
            return refused(format!(
                "linux.namespaces: a virtual machine cannot share {whose} {word} namespace: list {word:?} without a \
                 path, or use isolation namespaces"
            ));
        }
    }
    if machine == Machine::Own && (!plan.namespaces.has(NETWORK) || joins_own_network(plan)) {
        return refused(
            "linux.namespaces: a virtual machine cannot share the host's network: give the container a network \
             namespace, or use isolation namespaces"
                .into(),
        );
    }
    if let Some(node) = plan.devices.iter().find(|node| !is_generic(node.mode, node.dev)) {
        return refused(format!(
            "linux.devices: {} is a device of the host, which a virtual machine does not have: leave it out, or use \
             isolation namespaces",
            node.path.display()
        ));
    }
    for op in &plan.mounts {
        let What::Bind { source, .. } = &op.what else { continue };
        let Ok(meta) = std::fs::metadata(source) else { continue };
        let kind = meta.mode() & libc::S_IFMT;
        if matches!(kind, libc::S_IFCHR | libc::S_IFBLK) && !is_generic(kind, meta.rdev()) {
            return refused(format!(
                "mounts: {} is a device of the host, which a virtual machine does not have: leave it out, or use \
                 isolation namespaces",
                source.display()
            ));
        }
    }
    if plan.seccomp_listener.is_some() {
        return refused(
            "linux.seccomp.listenerPath: a virtual machine's system calls cannot be passed to a listener on the host"
                .into(),
        );
    }
    if spec.linux().intel_rdt.as_ref().is_some_and(|rdt| rdt.enable_monitoring) {
        return refused("linux.intelRdt.enableMonitoring is not possible for a virtual machine".into());
    }
    Ok(())
}

fn is_generic(mode: u32, dev: u64) -> bool {
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let kind = mode & libc::S_IFMT;
    kind == libc::S_IFIFO
        || GENERIC.iter().any(|(k, m, minors)| (*k, *m) == (kind, major) && minors.contains(&minor))
}

/// Whether the network namespace to be joined is the one that this process is in.
fn joins_own_network(plan: &Plan) -> bool {
    let identity = |path: &std::path::Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let own = identity("/proc/self/ns/net".as_ref());
    plan.namespaces.join.iter().any(|(flag, path)| *flag == NETWORK && own.is_some() && identity(path) == own)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::Choices;

    fn judged(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut document = serde_json::json!({
            "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "process": {"args": ["sh"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network"}]},
        });
        change(&mut document);
        let spec = Spec::parse(document.to_string().as_bytes()).unwrap();
        let plan = Plan::new("a", Path::new("/b"), &spec, &Choices::default()).unwrap();
        refuse(&spec, &plan, Machine::Own).err().map(|err| err.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_all_have_of_their_own_is_taken() {
        assert_eq!(judged(|_| {}), "");
        assert_eq!(
            judged(|d| d["linux"]["devices"] =
                serde_json::json!([{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}])),
            ""
        );
        assert_eq!(
            judged(|d| d["mounts"] =
                serde_json::json!([{"destination": "/x", "source": "/dev/null", "options": ["bind"]}])),
            ""
        );
    }

    #[test]
    fn what_is_the_hosts_is_refused_by_its_name() {
        for word in ["pid", "ipc", "uts", "mount"] {
            let without = judged(|d| {
                let list = d["linux"]["namespaces"].as_array_mut().unwrap();
                list.retain(|ns| ns["type"] != word);
            });
            assert!(without.contains(&format!("the host's {word} namespace")), "{without}");
            let joined = judged(|d| {
                let list = d["linux"]["namespaces"].as_array_mut().unwrap();
                let ns = list.iter_mut().find(|ns| ns["type"] == word).unwrap();
                ns["path"] = "/proc/1/ns/x".into();
            });
            assert!(joined.contains(&format!("another's {word} namespace")), "{joined}");
        }
        let absent =
            judged(|d| d["linux"]["namespaces"].as_array_mut().unwrap().retain(|ns| ns["type"] != "network"));
        assert!(absent.contains("the host's network"), "{absent}");
        let own = judged(|d| d["linux"]["namespaces"][4]["path"] = "/proc/self/ns/net".into());
        assert!(own.contains("the host's network"), "{own}");
        let device = judged(|d| {
            d["linux"]["devices"] =
                serde_json::json!([{"type": "b", "path": "/dev/sda", "major": 8, "minor": 0}])
        });
        assert!(device.contains("/dev/sda"), "{device}");
    }
}
