//! From a document to a plan: everything checked, everything decided, nothing touched.
//!
//! Owns the order of checks and the data that the processes walk. What can be refused is refused
//! here; what the specification wants tolerated becomes a warning in the plan.

pub mod mounts;
pub mod namespaces;
pub mod options;
mod process;

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

pub use namespaces::Namespaces;
pub use process::ProcessPlan;

use crate::attrs::{idmap, keyring, lsm, memory_policy, netdev, rdt, sched, sysctl, timens};
use crate::error::{Error, Result};
use crate::seccomp;
use crate::spec::{Hooks, Resources, Spec};
use mounts::{DeviceNode, MountOp, What};
use namespaces::{CGROUP, NETWORK, PID, USER, UTS};

/// What the caller of `create` chose beside the document.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Move the root over the host's instead of pivoting, for a root on a ramfs.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
}

/// A checked document.
#[derive(Debug)]
pub struct Plan {
    /// Whether a pid namespace is joined from which the creator could not come back to its own; for
    /// the creator to find out.
    pub cannot_return: bool,
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// Whether the root is made read-only at the end.
    pub readonly_root: bool,
    /// Move the root instead of pivoting.
    pub no_pivot: bool,
    /// Session keyring to make; absent keeps the caller's.
    pub keyring: Option<keyring::Keyring>,
    /// `rootfsPropagation` as flag and recursion.
    pub root_propagation: Option<(u64, bool)>,
    /// Namespaces to make and to join.
    pub namespaces: Namespaces,
    /// Id maps of a new user namespace.
    pub id_maps: Option<idmap::IdMaps>,
    /// Clock offsets of a new time namespace.
    pub time_offsets: Option<timens::Offsets>,
    /// Mounts, in order.
    pub mounts: Vec<MountOp>,
    /// Device nodes.
    pub devices: Vec<DeviceNode>,
    /// Paths made read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// Paths made unreadable.
    pub masked_paths: Vec<PathBuf>,
    /// Host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// sysctls.
    pub sysctls: Vec<sysctl::Sysctl>,
    /// Interfaces to move in.
    pub net_devices: Vec<netdev::Device>,
    /// The workload.
    pub process: ProcessPlan,
    /// The compiled system call filter.
    pub seccomp: Option<seccomp::Compiled>,
    /// Where the filter's notification descriptor goes, with its metadata.
    pub seccomp_listener: Option<(PathBuf, String)>,
    /// Execution domain.
    pub personality: Option<sched::Personality>,
    /// NUMA policy.
    pub memory_policy: Option<memory_policy::MemoryPolicy>,
    /// Resource director group.
    pub rdt: Option<rdt::RdtPlan>,
    /// SELinux label of mounts.
    pub mount_label: Option<String>,
    /// cgroup limits.
    pub resources: Resources,
    /// `cgroupsPath` as written.
    pub cgroups_path: Option<String>,
    /// Hooks.
    pub hooks: Hooks,
    /// What the specification tolerates but the user should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Checks `spec` of the bundle at `bundle` (absolute) for container `id`.
    pub fn new(id: &str, bundle: &Path, spec: &Spec, choices: &Choices) -> Result<Plan> {
        let mut warnings = Vec::new();
        version(&spec.oci_version)?;
        let linux = spec.linux();
        let root = spec.root.as_ref().ok_or_else(|| Error::invalid("root is missing"))?;
        if root.path.as_os_str().is_empty() {
            return Err(Error::invalid("root.path is empty"));
        }
        let process = spec.process.as_ref().ok_or_else(|| Error::invalid("process is missing"))?;
        let namespaces = namespaces::plan(linux)?;
        if spec.hostname.as_ref().is_some_and(|h| !h.is_empty()) && !namespaces.has(UTS) {
            return Err(Error::invalid("hostname is set without a uts namespace of the container's own"));
        }
        if spec.domainname.as_ref().is_some_and(|h| !h.is_empty()) && !namespaces.has(UTS) {
            return Err(Error::invalid("domainname is set without a uts namespace of the container's own"));
        }
        let id_maps = if namespaces.makes(USER) {
            Some(idmap::plan(&linux.uid_mappings, &linux.gid_mappings)?)
        } else {
            None
        };
        let mounts = mounts::mounts(spec, bundle, &mut warnings)?;
        let (seccomp, seccomp_listener) = filter(spec, &mut warnings)?;
        let process = ProcessPlan::new(process, &mut warnings)?;
        let (personality, mut more) = sched::plan_personality(linux.personality.as_ref())?;
        warnings.append(&mut more);
        let keyring =
            if choices.no_new_keyring { None } else { Some(keyring::plan(id, process.labels.selinux())?) };
        let hooks = spec.hooks.clone().unwrap_or_default();
        check_hooks(&hooks)?;
        Ok(Plan {
            id: id.to_owned(),
            rootfs: bundle.join(&root.path),
            bundle: bundle.to_owned(),
            readonly_root: root.readonly,
            no_pivot: choices.no_pivot,
            root_propagation: mounts::root_propagation(linux.rootfs_propagation.as_deref())?,
            id_maps,
            time_offsets: timens::plan(&linux.time_offsets)?,
            mounts,
            devices: mounts::devices(&linux.devices)?,
            readonly_paths: mounts::paths("readonlyPaths", &linux.readonly_paths)?,
            masked_paths: mounts::paths("maskedPaths", &linux.masked_paths)?,
            hostname: spec.hostname.clone().filter(|h| !h.is_empty()),
            domainname: spec.domainname.clone().filter(|h| !h.is_empty()),
            sysctls: sysctl::plan(
                &linux.sysctl,
                sysctl::Namespaces {
                    ipc: namespaces.has(libc::CLONE_NEWIPC as u64),
                    net: namespaces.has(NETWORK),
                    uts: namespaces.has(UTS),
                    user: namespaces.has(USER),
                },
            )?,
            net_devices: netdev::plan(&linux.net_devices, namespaces.has(NETWORK))?,
            keyring,
            process,
            seccomp,
            seccomp_listener,
            personality,
            memory_policy: memory_policy::plan(linux.memory_policy.as_ref())?,
            rdt: rdt::plan(linux.intel_rdt.as_ref(), id)?,
            mount_label: lsm::plan_mount_label(linux.mount_label.as_deref())?,
            resources: linux.resources.clone().unwrap_or_default(),
            cgroups_path: linux.cgroups_path.clone().filter(|path| !path.is_empty()),
            hooks,
            namespaces,
            cannot_return: false,
            warnings,
        })
    }

    /// Whether a user namespace is made.
    pub fn new_user_namespace(&self) -> bool {
        self.namespaces.makes(USER)
    }

    /// Whether a user namespace is joined.
    pub fn joins_user_namespace(&self) -> bool {
        self.namespaces.joins(USER)
    }

    /// Whether the container has a cgroup namespace of its own.
    pub fn has_cgroup_namespace(&self) -> bool {
        self.namespaces.has(CGROUP)
    }

    /// Whether a pid namespace is made, so that the end of init is the end of all.
    pub fn new_pid_namespace(&self) -> bool {
        self.namespaces.makes(PID)
    }

    /// Whether a step between creator and init is needed: what is joined must be joined before a new
    /// user namespace takes the rights away, a joined one must own what is made, clock offsets must be
    /// written before anybody lives in the time namespace, and a creator must not be stuck in what it
    /// joined.
    pub fn needs_step_between(&self) -> bool {
        self.joins_user_namespace()
            || (self.new_user_namespace() && !self.namespaces.join.is_empty())
            || self.time_offsets.is_some()
            || self.cannot_return
    }

    /// Whether limits must be set by the creator: a user namespace has no right to raise them.
    pub fn limits_from_outside(&self) -> bool {
        self.new_user_namespace() || self.joins_user_namespace()
    }

    /// Whether hooks run while the container is made, which may ask for its state.
    pub fn has_creating_hooks(&self) -> bool {
        !(self.hooks.prestart.is_empty()
            && self.hooks.create_runtime.is_empty()
            && self.hooks.create_container.is_empty())
    }

    /// The host's uid of the container's root where that root shall manage the cgroups below its own:
    /// in a user namespace with a cgroup namespace and a writable cgroup mount, as runc decides it.
    pub fn cgroup_owner(&self) -> Option<u32> {
        let writable = |op: &MountOp| {
            matches!(op.what, What::Cgroup) && op.attr.set & crate::sys::mount::attr::RDONLY == 0
        };
        if !self.namespaces.makes(CGROUP) || !self.mounts.iter().any(writable) {
            return None;
        }
        self.id_maps.as_ref()?.host_uid(0)
    }

    /// Whether init writes under /proc.
    pub fn writes_proc(&self) -> bool {
        !self.sysctls.is_empty() || !self.process.labels.is_empty() || self.process.oom_score.is_some()
    }

    /// Whether /dev is the runtime's to fill: not when the caller brings a whole one.
    pub fn sets_up_dev(&self) -> bool {
        !self
            .mounts
            .iter()
            .any(|op| matches!(op.what, What::Bind { .. }) && op.destination == Path::new("/dev"))
    }

    /// The SELinux `context` option for a new file system of type `kind`, where there is one.
    pub fn mount_context(&self, kind: &CStr) -> Option<CString> {
        let label = self.mount_label.as_deref()?;
        if !kind.to_str().is_ok_and(lsm::takes_label) || !lsm::enabled().selinux {
            return None;
        }
        CString::new(label).ok()
    }
}

/// Any 1.x document is read; another major version means something else.
fn version(word: &str) -> Result<()> {
    if word.is_empty() {
        return Err(Error::invalid("ociVersion is missing"));
    }
    match word.split_once('.') {
        Some(("1", rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => Ok(()),
        _ => Err(Error::unsupported(format!("ociVersion {word:?} is not a 1.x version"))),
    }
}

fn check_hooks(hooks: &Hooks) -> Result<()> {
    let stages = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (stage, hooks) in stages {
        for (at, hook) in hooks.iter().enumerate() {
            if !hook.path.is_absolute() {
                return Err(Error::invalid(format!(
                    "hooks.{stage}[{at}].path {:?} is not absolute",
                    hook.path
                )));
            }
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                return Err(Error::invalid(format!("hooks.{stage}[{at}].timeout must be greater than zero")));
            }
        }
    }
    Ok(())
}

type Filter = (Option<seccomp::Compiled>, Option<(PathBuf, String)>);

fn filter(spec: &Spec, warnings: &mut Vec<String>) -> Result<Filter> {
    let Some(profile) = &spec.linux().seccomp else { return Ok((None, None)) };
    let mut compiled = seccomp::compile(profile).map_err(|err| err.context("linux.seccomp"))?;
    warnings.append(&mut compiled.warnings);
    let listener = match &profile.listener_path {
        Some(path) if compiled.needs_listener => {
            Some((path.clone(), profile.listener_metadata.clone().unwrap_or_default()))
        }
        _ => None,
    };
    Ok((Some(compiled), listener))
}
