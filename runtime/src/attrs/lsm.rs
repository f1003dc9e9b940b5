//! AppArmor profiles and SELinux labels: what the next execve(2) switches to, and labels of mounts.
//!
//! Owns the attr files of the calling thread, reached through a procfs handle alone (CVE-2019-16884,
//! CVE-2025-52881). Never loads a profile or a policy, and never runs unconfined what asked for
//! confinement.

use nix::errno::Errno;
use nix::sys::statfs::{FsType, statfs};

use crate::error::{Context, Error, Result};
use crate::procfs::{Base, Proc};

/// `SELINUX_MAGIC` (linux/magic.h).
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// Which security modules the host runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enabled {
    /// AppArmor.
    pub apparmor: bool,
    /// SELinux.
    pub selinux: bool,
}

/// Asks the host's /sys; to be called outside the container.
pub fn enabled() -> Enabled {
    let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'));
    let selinux =
        statfs("/sys/fs/selinux").is_ok_and(|stat| stat.filesystem_type() == FsType(SELINUX_MAGIC as _));
    Enabled { apparmor, selinux }
}

/// Labels to switch to; absent ones leave the inherited confinement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LsmPlan {
    apparmor: Option<String>,
    selinux: Option<String>,
}

/// Checks `process.apparmorProfile` and `process.selinuxLabel` against what the host runs, which is
/// asked of `enabled` (the function of that name) only when one of them is given.
///
/// `unconfined` on a host without AppArmor is what the process is already.
pub fn plan(
    apparmor: Option<&str>,
    selinux: Option<&str>,
    enabled: impl FnOnce() -> Enabled,
) -> Result<LsmPlan> {
    let apparmor = label("process.apparmorProfile", apparmor)?;
    let selinux = label("process.selinuxLabel", selinux)?;
    if apparmor.is_none() && selinux.is_none() {
        return Ok(LsmPlan::default());
    }
    let enabled = enabled();
    let apparmor = apparmor.filter(|profile| enabled.apparmor || profile != "unconfined");
    if let Some(profile) = &apparmor
        && !enabled.apparmor
    {
        return Err(Error::unsupported(format!(
            "process.apparmorProfile: {profile:?} is asked for, but AppArmor is not enabled on this host"
        ))
        .hint("remove it, or boot with apparmor=1 security=apparmor"));
    }
    if let Some(label) = &selinux
        && !enabled.selinux
    {
        return Err(Error::unsupported(format!(
            "process.selinuxLabel: {label:?} is asked for, but SELinux is not enabled on this host"
        ))
        .hint("remove it, or boot with selinux=1"));
    }
    Ok(LsmPlan { apparmor, selinux })
}

fn label(field: &str, text: Option<&str>) -> Result<Option<String>> {
    match text {
        None | Some("") => Ok(None),
        Some(text) if text.contains(|c: char| c.is_control() || c == '"') => {
            Err(Error::invalid(format!("{field}: {text:?} has a character that no label can have")))
        }
        Some(text) => Ok(Some(text.into())),
    }
}

impl LsmPlan {
    /// Sets what the next execve(2) of the calling thread switches to.
    pub fn apply(&self, proc: &Proc) -> Result<()> {
        if let Some(profile) = &self.apparmor {
            let command = format!("exec {profile}");
            // Beside another module only the own directory (kernel 5.8) is certain to be AppArmor's.
            let result = match proc.write(Base::Thread, "attr/apparmor/exec", &command) {
                Err(Errno::ENOENT) if !has_own_directory(proc) => {
                    proc.write(Base::Thread, "attr/exec", &command)
                }
                result => result,
            };
            result.map_err(|errno| {
                let error = Error::sys(errno, format!("switching to the AppArmor profile {profile:?}"));
                match errno {
                    Errno::ENOENT => {
                        error.hint("the profile is not loaded: see aa-status and apparmor_parser")
                    }
                    _ => error,
                }
            })?;
        }
        if let Some(label) = &self.selinux {
            proc.write(Base::Thread, "attr/exec", label)
                .map_err(|errno| Error::sys(errno, format!("switching to the SELinux label {label:?}")))?;
        }
        Ok(())
    }

    /// Whether nothing is to be switched.
    pub fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }

    /// The SELinux label, which a session keyring gets as well.
    pub fn selinux(&self) -> Option<&str> {
        self.selinux.as_deref()
    }
}

/// ENOENT of a write may mean the profile or the file; the file's directory tells them apart.
fn has_own_directory(proc: &Proc) -> bool {
    proc.open(Base::Thread, "attr/apparmor", nix::fcntl::OFlag::O_PATH).is_ok()
}

/// Sets (or with `None` clears) the SELinux label of keys that the calling thread makes.
pub(super) fn set_key_label(proc: &Proc, label: Option<&str>) -> Result<()> {
    proc.write(Base::Thread, "attr/keycreate", label.unwrap_or_default())
        .doing(|| format!("setting the SELinux label {:?} for new keys", label.unwrap_or_default()))
}

/// Checks `linux.mountLabel`, which goes between quotes into mount options.
pub fn plan_mount_label(spec: Option<&str>) -> Result<Option<String>> {
    label("linux.mountLabel", spec)
}

/// Whether a new mount of type `fstype` takes `linux.mountLabel` as its context.
///
/// Types whose labels come from the policy, and binds, do not; as in runc.
pub fn takes_label(fstype: &str) -> bool {
    !matches!(fstype, "" | "none" | "bind" | "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Enabled {
        Enabled { apparmor: true, selinux: true }
    }

    fn none() -> Enabled {
        Enabled::default()
    }

    #[test]
    fn confinement_is_never_dropped_silently() {
        let text = |err: Error| (err.kind(), err.to_string());
        let (kind, err) = text(plan(Some("docker-default"), None, none).unwrap_err());
        assert_eq!(kind, crate::Kind::Unsupported);
        assert!(err.contains("AppArmor is not enabled"), "{err}");
        let (_, err) = text(plan(None, Some("a:b:c:s0"), none).unwrap_err());
        assert!(err.contains("SELinux is not enabled"), "{err}");
        assert_eq!(plan(Some("unconfined"), None, none).unwrap(), LsmPlan::default());
        assert_eq!(plan(Some(""), Some(""), none).unwrap(), LsmPlan::default());
        let plan = plan(Some("unconfined"), Some("a:b:c:s0:c1,c2"), both).unwrap();
        assert_eq!(plan.apparmor.as_deref(), Some("unconfined"));
        assert_eq!(plan.selinux(), Some("a:b:c:s0:c1,c2"));
    }

    #[test]
    fn labels_cannot_smuggle_commands_or_options() {
        for text in ["a\nb", "a\0", "a\",exec=\"x"] {
            assert!(plan(Some(text), None, both).is_err(), "{text:?}");
            assert!(plan_mount_label(Some(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_file_systems_without_labels_of_their_own_take_one() {
        assert!(takes_label("tmpfs") && takes_label("devpts"));
        for fstype in ["proc", "sysfs", "mqueue", "cgroup2", "bind", ""] {
            assert!(!takes_label(fstype), "{fstype}");
        }
    }
}
