//! Capabilities: names to masks, and the two steps around the change of user that set them.
//!
//! Owns the five sets of the workload's process. Never grants what the document did not name,
//! and never leaves a capability in the bounding set for being newer than this code.

use std::str::FromStr;

use ::caps::Capability;
use nix::errno::Errno;

use super::Warnings;
use crate::error::{Context, Error, Result};
use crate::spec::Capabilities;
use crate::sys::caps as sys;
use crate::sys::prctl;

/// Highest capability number that the 64-bit sets can hold.
const LAST: u32 = 63;
/// CAP_CHECKPOINT_RESTORE (kernel 5.9): every kernel that locule runs on has those up to here.
const ALWAYS: u32 = 40;
const SYS_ADMIN: u32 = 21;
const KILL: u32 = 5;

/// The five sets as masks by capability number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapsPlan {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// Turns `process.capabilities` into masks; absent means none, as in runc.
///
/// Unknown names and those that this kernel lacks are left out and warned about (runtime-spec,
/// config.md, "Linux Process": MUST warn). Ambient ones that are not permitted and inheritable as
/// well are left out with a warning, since no kernel would raise them.
pub fn plan(spec: Option<&Capabilities>) -> Result<(CapsPlan, Warnings)> {
    let mut warnings = Warnings::new();
    let Some(spec) = spec else { return Ok((CapsPlan::default(), warnings)) };
    let mut ignored = Vec::new();
    let mut plan = CapsPlan {
        bounding: mask(&spec.bounding, &mut ignored),
        effective: mask(&spec.effective, &mut ignored),
        inheritable: mask(&spec.inheritable, &mut ignored),
        permitted: mask(&spec.permitted, &mut ignored),
        ambient: mask(&spec.ambient, &mut ignored),
    };
    if !ignored.is_empty() {
        ignored.sort_unstable();
        ignored.dedup();
        warnings.push(format!(
            "process.capabilities: ignoring unknown or unavailable capabilities: {}",
            ignored.join(", ")
        ));
    }
    // What capset(2) would answer with a bare EPERM is named here.
    let beyond = plan.effective & !plan.permitted;
    if beyond != 0 {
        return Err(Error::invalid(format!(
            "process.capabilities.effective: {} not in `permitted`",
            names(beyond)
        )));
    }
    let beyond = plan.inheritable & !plan.bounding;
    if beyond != 0 {
        return Err(Error::invalid(format!(
            "process.capabilities.inheritable: {} not in `bounding`",
            names(beyond)
        )));
    }
    let beyond = plan.ambient & !(plan.permitted & plan.inheritable);
    if beyond != 0 {
        warnings.push(format!(
            "process.capabilities.ambient: can't raise ambient capability {}: it must be permitted and inheritable",
            names(beyond)
        ));
        plan.ambient &= !beyond;
    }
    Ok((plan, warnings))
}

/// Adds the capabilities of `exec --cap` to bounding, effective and permitted.
///
/// Never to inheritable (CVE-2022-29162), hence to ambient only where the document made the same
/// capability inheritable.
pub fn exec_add(spec: &mut Option<Capabilities>, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let spec = spec.get_or_insert_default();
    for name in names {
        for set in [&mut spec.bounding, &mut spec.effective, &mut spec.permitted] {
            if !set.contains(name) {
                set.push(name.clone());
            }
        }
        if spec.inheritable.contains(name) && !spec.ambient.contains(name) {
            spec.ambient.push(name.clone());
        }
    }
}

impl CapsPlan {
    /// First step, while still privileged: cuts the bounding set and, when the user will not be 0,
    /// asks the kernel to keep the permitted set over setuid(2); execve(2) ends that by itself.
    pub fn before_setuid(&self, uid: u32) -> Result<()> {
        for number in (0..=LAST).filter(|number| self.bounding & bit(*number) == 0) {
            match sys::bounding_drop(number) {
                Ok(()) => {}
                // The first number that the kernel does not know: behind cap_last_cap.
                Err(Errno::EINVAL) => break,
                // Without CAP_SETPCAP it is enough that the capability is not there.
                Err(Errno::EPERM) if sys::bounding_has(number) == Ok(false) => {}
                Err(errno) => {
                    return Err(Error::sys(
                        errno,
                        format!("dropping {} from the bounding set", names(bit(number))),
                    ));
                }
            }
        }
        if uid != 0 {
            prctl::set_keep_caps(true).doing(|| "keeping capabilities over the change of user")?;
        }
        Ok(())
    }

    /// Second step, as the workload's user: permitted, effective and inheritable at once, then ambient.
    ///
    /// `keep_admin` leaves CAP_SYS_ADMIN, where the caller has it, in force until execve(2), for a
    /// seccomp filter that is loaded without no_new_privs. execve(2) works out the new sets from the
    /// bounding, inheritable and ambient ones alone (capabilities(7)), so the workload never has it.
    pub fn after_setuid(&self, keep_admin: bool) -> Result<()> {
        let kept = if keep_admin { sys::get().unwrap_or_default().permitted & bit(SYS_ADMIN) } else { 0 };
        let sets = sys::Sets {
            effective: self.effective | kept,
            permitted: self.permitted | kept,
            inheritable: self.inheritable,
        };
        sys::set(sets).map_err(|errno| self.explain(errno))?;
        sys::ambient_clear().doing(|| "clearing the ambient capabilities")?;
        for number in (0..=LAST).filter(|number| self.ambient & bit(*number) != 0) {
            sys::ambient_raise(number)
                .doing(|| format!("raising the ambient capability {}", names(bit(number))))?;
        }
        Ok(())
    }

    /// Says which capabilities the runtime itself lacks, which is what EPERM comes from.
    fn explain(&self, errno: Errno) -> Error {
        let own = sys::get().unwrap_or_default();
        let missing = self.permitted & !own.permitted;
        if errno == Errno::EPERM && missing != 0 {
            return Error::sys(errno, format!("setting capabilities {}", names(missing)))
                .hint("the runtime does not have them itself; remove them from process.capabilities");
        }
        Error::sys(errno, "setting the capabilities of process.capabilities")
    }
}

/// Leaves the calling process no capability but CAP_KILL, if it has that: for one of ours that only
/// passes signals and bytes on from here on.
pub fn keep_kill_alone() -> Result<()> {
    let doing = || "giving up capabilities";
    let kept = sys::get().doing(doing)?.permitted & bit(KILL);
    sys::set(sys::Sets { effective: kept, permitted: kept, inheritable: 0 }).doing(doing)
}

/// Names of the capabilities that this kernel has, by number; for `features`.
pub fn known_names() -> Vec<String> {
    (0..=LAST)
        .take_while(|number| sys::bounding_has(*number) != Err(Errno::EINVAL))
        .filter_map(name_of)
        .collect()
}

/// Names of the capabilities that this process has: the most that it can give.
pub fn own_names() -> Result<Vec<String>> {
    let own = sys::get().doing(|| "reading the own capabilities")?.permitted;
    Ok((0..=LAST).filter(|number| own & bit(*number) != 0).filter_map(name_of).collect())
}

fn bit(number: u32) -> u64 {
    1u64.checked_shl(number).unwrap_or(0)
}

fn name_of(number: u32) -> Option<String> {
    ::caps::all().into_iter().find(|cap| u32::from(cap.index()) == number).map(|cap| cap.to_string())
}

/// The names in a mask, for messages.
fn names(mask: u64) -> String {
    let list: Vec<String> = (0..=LAST)
        .filter(|number| mask & bit(*number) != 0)
        .map(|number| name_of(number).unwrap_or_else(|| format!("capability {number}")))
        .collect();
    list.join(", ")
}

/// Names must be spelled as in capabilities(7), `CAP_` and capitals, as runc reads them.
fn mask(list: &[String], ignored: &mut Vec<String>) -> u64 {
    let mut mask = 0;
    for name in list {
        match Capability::from_str(name).map(|cap| u32::from(cap.index())) {
            Ok(number) if number <= ALWAYS || sys::bounding_has(number).is_ok() => mask |= bit(number),
            _ => ignored.push(name.clone()),
        }
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| String::from(*name)).collect()
    }

    fn all_of(names: &[&str]) -> Capabilities {
        Capabilities {
            bounding: list(names),
            effective: list(names),
            permitted: list(names),
            ..Capabilities::default()
        }
    }

    #[test]
    fn unknown_names_warn_once_and_are_left_out() {
        let spec = all_of(&["CAP_KILL", "CAP_TIME_TRAVEL", "chown", "CHOWN", "cap_chown"]);
        let (plan, warnings) = plan(Some(&spec)).unwrap();
        assert_eq!((plan.bounding, plan.effective, plan.permitted), (1 << 5, 1 << 5, 1 << 5));
        assert_eq!(
            warnings,
            ["process.capabilities: ignoring unknown or unavailable capabilities: \
              CAP_TIME_TRAVEL, CHOWN, cap_chown, chown"]
        );
    }

    #[test]
    fn absent_capabilities_are_none() {
        assert_eq!(plan(None).unwrap(), (CapsPlan::default(), vec![]));
    }

    #[test]
    fn sets_that_the_kernel_would_refuse_are_named() {
        let mut spec = all_of(&["CAP_KILL"]);
        spec.effective.push("CAP_CHOWN".into());
        assert_eq!(
            plan(Some(&spec)).unwrap_err().to_string(),
            "process.capabilities.effective: CAP_CHOWN not in `permitted`"
        );
        let mut spec = all_of(&["CAP_KILL"]);
        spec.inheritable = list(&["CAP_CHOWN"]);
        assert!(plan(Some(&spec)).unwrap_err().to_string().contains("inheritable: CAP_CHOWN"));
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let mut spec = all_of(&["CAP_KILL", "CAP_CHOWN"]);
        spec.ambient = list(&["CAP_KILL", "CAP_CHOWN"]);
        spec.inheritable = list(&["CAP_KILL"]);
        let (plan, warnings) = plan(Some(&spec)).unwrap();
        assert_eq!(plan.ambient, 1 << 5);
        assert!(warnings[0].contains("capability CAP_CHOWN:"), "{warnings:?}");
    }

    #[test]
    fn exec_caps_never_become_inheritable() {
        let mut spec = None;
        exec_add(&mut spec, &[]);
        assert_eq!(spec, None, "nothing asked for leaves the document alone");
        exec_add(&mut spec, &list(&["CAP_KILL", "CAP_KILL"]));
        assert_eq!(spec, Some(all_of(&["CAP_KILL"])));
        let mut spec = Some(Capabilities { inheritable: list(&["CAP_KILL"]), ..Capabilities::default() });
        exec_add(&mut spec, &list(&["CAP_KILL", "CAP_CHOWN"]));
        let spec = spec.unwrap();
        assert_eq!(spec.inheritable, list(&["CAP_KILL"]));
        assert_eq!(spec.ambient, list(&["CAP_KILL"]));
        assert_eq!(spec.permitted, list(&["CAP_KILL", "CAP_CHOWN"]));
    }

    #[test]
    fn features_lists_what_the_kernel_has() {
        let last: usize =
            std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
        let names = known_names();
        assert_eq!(names[0], "CAP_CHOWN");
        assert_eq!(names.len(), (last + 1).min(::caps::all().len()));
    }
}
