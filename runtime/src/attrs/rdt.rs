//! `linux.intelRdt`: a class of service below /sys/fs/resctrl, and what `delete` has to remove.
//!
//! Owns the directories that it made. Never mounts resctrl, and never changes a class that somebody
//! else configured.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::spec;
use crate::sys::fs::{openat2, read_at, write_at};

const MOUNT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` (linux/magic.h).
const MAGIC: i64 = 0x0765_5821;
const WITHIN: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS;

/// A checked `linux.intelRdt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdtPlan {
    /// Directory of the class; `.` is the root class (`closID` of `/`).
    class: String,
    /// Whether the document named the class, which then may be shared.
    named: bool,
    /// Lines for `schemata`.
    schemata: Vec<String>,
    /// Directory of the monitoring group below the class's `mon_groups`.
    monitor: Option<String>,
}

/// What was made and is to be removed by [`destroy`]; kept in the container's state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtRecord {
    /// Class directory that the runtime made.
    pub class: Option<String>,
    /// Monitoring group that the runtime made, relative to resctrl.
    pub monitor: Option<String>,
}

/// Checks `linux.intelRdt` of container `id`.
pub fn plan(spec: Option<&spec::IntelRdt>, id: &str) -> Result<Option<RdtPlan>> {
    let Some(spec) = spec else { return Ok(None) };
    let named = spec.clos_id.as_deref().filter(|class| !class.is_empty());
    let class = match named {
        Some("/") => ".",
        Some(class) if valid_name(class) => class,
        Some(class) => {
            return Err(Error::invalid(format!("linux.intelRdt.closID: {class:?} is not a name")));
        }
        None if valid_name(id) => id,
        None => {
            return Err(Error::invalid(format!("linux.intelRdt: container id {id:?} cannot name a class"))
                .hint("set closID"));
        }
    };
    let schemata = schemata(spec)?;
    let monitor = spec.enable_monitoring.then(|| id.to_owned());
    Ok(Some(RdtPlan { class: class.into(), named: named.is_some(), schemata, monitor }))
}

/// Not a path, and none of resctrl's own directories.
fn valid_name(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | "info" | "mon_groups" | "mon_data") && !name.contains(['/', '\0', '\n'])
}

/// The lines in the order of the specification: L3 (without MB when memBwSchema has it), MB, schemata.
fn schemata(spec: &spec::IntelRdt) -> Result<Vec<String>> {
    let bandwidth = spec.mem_bw_schema.as_deref().unwrap_or_default();
    let cache = spec.l3_cache_schema.as_deref().unwrap_or_default();
    let lines = cache
        .lines()
        .filter(|line| bandwidth.is_empty() || !line.trim_start().starts_with("MB:"))
        .chain(bandwidth.lines())
        .chain(spec.schemata.iter().flat_map(|entry| entry.lines()))
        .map(str::trim)
        .filter(|line| !line.is_empty());
    lines
        .map(|line| match parse(line) {
            Some(_) => Ok(line.to_owned()),
            None => Err(Error::invalid(format!("linux.intelRdt: {line:?} is not a schema"))
                .hint("a schema looks like L3:0=ff;1=c0")),
        })
        .collect()
}

/// `RESOURCE:DOMAIN=VALUE;...`; leading zeros of values mean nothing.
fn parse(line: &str) -> Option<(&str, BTreeMap<u32, &str>)> {
    let (resource, domains) = line.trim().split_once(':')?;
    let domains = domains
        .split(';')
        .map(|domain| {
            let (id, value) = domain.split_once('=')?;
            let value = value.trim();
            let short = value.trim_start_matches('0');
            let short = if short.is_empty() && !value.is_empty() { "0" } else { short };
            Some((id.trim().parse().ok()?, short)).filter(|(_, value)| !value.is_empty())
        })
        .collect::<Option<_>>()?;
    Some((resource.trim(), domains)).filter(|(resource, _)| !resource.is_empty())
}

/// The first wanted line that `existing` (a `schemata` file) does not agree with.
fn difference<'a>(wanted: &'a [String], existing: &str) -> Option<&'a str> {
    let existing: Vec<_> = existing.lines().filter_map(parse).collect();
    wanted.iter().map(String::as_str).find(|line| {
        let Some((resource, domains)) = parse(line) else { return true };
        let Some((_, found)) = existing.iter().find(|(name, _)| *name == resource) else { return true };
        !domains.iter().all(|(id, value)| found.get(id).is_some_and(|has| has.eq_ignore_ascii_case(value)))
    })
}

/// The mounted resctrl file system; a clear error where the host has none.
pub fn open_resctrl() -> Result<OwnedFd> {
    let missing = || {
        Error::unsupported("linux.intelRdt: this host has no resctrl file system at /sys/fs/resctrl")
            .hint("it takes a CPU with RDT and `mount -t resctrl resctrl /sys/fs/resctrl`")
    };
    let root = match open(MOUNT, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(missing()),
        Err(errno) => return Err(Error::sys(errno, format!("opening {MOUNT}"))),
    };
    let magic = fstatfs(&root).doing(|| format!("checking {MOUNT}"))?.filesystem_type();
    if magic != FsType(MAGIC as _) { Err(missing()) } else { Ok(root) }
}

impl RdtPlan {
    /// What [`RdtPlan::create`] may make; to be recorded before it runs.
    pub fn record(&self, resctrl: impl AsFd) -> RdtRecord {
        let exists = |path: &str| openat2(&resctrl, path, OFlag::O_PATH, 0, WITHIN).is_ok();
        let monitor = self.monitor.as_ref().map(|name| format!("{}/mon_groups/{name}", self.class));
        RdtRecord {
            class: Some(self.class.clone()).filter(|class| self.makes_class() && !exists(class)),
            monitor: monitor.filter(|path| !exists(path)),
        }
    }

    /// Makes or checks the class and its monitoring group, by the rules of config-linux.md, "IntelRdt".
    pub fn create(&self, resctrl: impl AsFd) -> Result<()> {
        let made = self.makes_class() && self.make_class(&resctrl)?;
        let class = openat2(&resctrl, &self.class, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0, WITHIN).map_err(
            |errno| {
                let error = Error::sys(errno, format!("opening the RDT class {}", self.class));
                match errno {
                    Errno::ENOENT => error.hint("make it first, or give schemata for it"),
                    _ => error,
                }
            },
        )?;
        if made || !self.named {
            self.write_schemata(&resctrl, &class)?;
        } else {
            let existing = read_at(&class, "schemata")
                .doing(|| format!("reading the schemata of the RDT class {}", self.class))?;
            if let Some(line) = difference(&self.schemata, &existing) {
                return Err(Error::invalid(format!(
                    "linux.intelRdt: the existing class {} does not have {line:?}",
                    self.class
                ))
                .hint("change the document, or the class by hand"));
            }
        }
        if let Some(name) = &self.monitor {
            match mkdirat(&class, format!("mon_groups/{name}").as_str(), Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => {
                    return Err(Error::sys(errno, format!("making the RDT monitoring group {name}")));
                }
            }
        }
        Ok(())
    }

    /// Named and without schemata means a class that the administrator made beforehand.
    fn makes_class(&self) -> bool {
        self.class != "." && (!self.named || !self.schemata.is_empty())
    }

    /// Whether the directory is new.
    fn make_class(&self, resctrl: impl AsFd) -> Result<bool> {
        match mkdirat(&resctrl, self.class.as_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => {
                let error = Error::sys(errno, format!("making the RDT class {}", self.class));
                Err(match errno {
                    Errno::ENOSPC => error.hint("the CPU has no more classes of service"),
                    _ => error,
                })
            }
        }
    }

    fn write_schemata(&self, resctrl: impl AsFd, class: impl AsFd) -> Result<()> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        let text = self.schemata.join("\n") + "\n";
        write_at(class, "schemata", &text).map_err(|errno| {
            let error =
                Error::sys(errno, format!("writing {:?} to the RDT class {}", text.trim_end(), self.class));
            // The kernel explains itself here (kernel 4.16).
            match read_at(&resctrl, "info/last_cmd_status") {
                Ok(said) if !said.trim().is_empty() => error.hint(said.trim().to_owned()),
                _ => error,
            }
        })
    }

    /// Puts process `pid` into the class and its monitoring group.
    pub fn join(&self, resctrl: impl AsFd, pid: i32) -> Result<()> {
        let class = std::iter::once(format!("{}/tasks", self.class));
        let monitor = self.monitor.iter().map(|name| format!("{}/mon_groups/{name}/tasks", self.class));
        for path in class.chain(monitor) {
            write_at(&resctrl, &path, &pid.to_string())
                .doing(|| format!("writing {pid} to {MOUNT}/{path}"))?;
        }
        Ok(())
    }
}

/// Removes what the record names; what is gone already is fine.
pub fn destroy(record: &RdtRecord, resctrl: impl AsFd) -> Result<()> {
    for path in record.monitor.iter().chain(&record.class) {
        match unlinkat(&resctrl, path.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::sys(errno, format!("removing {MOUNT}/{path}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rdt(clos_id: Option<&str>, cache: Option<&str>, bandwidth: Option<&str>) -> spec::IntelRdt {
        spec::IntelRdt {
            clos_id: clos_id.map(String::from),
            l3_cache_schema: cache.map(String::from),
            mem_bw_schema: bandwidth.map(String::from),
            ..spec::IntelRdt::default()
        }
    }

    #[test]
    fn schemata_are_combined_in_order() {
        let mut spec = rdt(None, Some("L3:0=7f0;1=1f\nMB:0=5"), Some("MB:0=20;1=70"));
        spec.schemata = vec!["L2:0=ff".into()];
        let plan = plan(Some(&spec), "web1").unwrap().unwrap();
        assert_eq!(plan.schemata, ["L3:0=7f0;1=1f", "MB:0=20;1=70", "L2:0=ff"]);
        assert_eq!((plan.class.as_str(), plan.named, plan.monitor), ("web1", false, None));
        let spec = rdt(None, Some("L3:0=f\nMB:0=5"), None);
        assert_eq!(super::schemata(&spec).unwrap(), ["L3:0=f", "MB:0=5"]);
    }

    #[test]
    fn class_names_are_checked() {
        let class =
            |name: &str| plan(Some(&rdt(Some(name), None, None)), "id").map(|plan| plan.unwrap().class);
        assert_eq!(class("gold").unwrap(), "gold");
        assert_eq!(class("").unwrap(), "id");
        assert_eq!(class("/").unwrap(), ".");
        for name in [".", "..", "a/b", "/a", "info", "mon_groups"] {
            assert!(class(name).is_err(), "{name:?}");
        }
        for schema in ["L3", "L3:", "L3:0", "L3:0=", ":0=f", "L3:x=f"] {
            assert!(plan(Some(&rdt(None, Some(schema), None)), "id").is_err(), "{schema:?}");
        }
    }

    #[test]
    fn an_existing_class_must_agree() {
        let existing = "    L3:0=0000ff;1=c0\n    MB:0= 20;1= 70\n";
        let differs = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| String::from(*line)).collect();
            difference(&lines, existing).is_some()
        };
        assert!(!differs(&["L3:0=ff", "MB:1=70;0=20"]));
        assert!(!differs(&["L3:1=0C0"]));
        assert!(differs(&["L3:0=f"]));
        assert!(differs(&["L2:0=ff"]));
        assert!(differs(&["L3:2=ff"]));
        assert!(!differs(&[]));
    }
}
