//! The workload's attributes, checked: for a container's init and for `exec` alike.
//!
//! Pure.

use std::collections::HashMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::attrs::{caps, lsm, oom, rlimits, sched, user};
use crate::error::{Error, Result};
use crate::spec::{ConsoleSize, Process};

/// A checked `process`.
#[derive(Debug)]
pub struct ProcessPlan {
    /// argv; never empty.
    pub args: Vec<CString>,
    /// Environment; of a name given twice the last one stays.
    pub env: Vec<CString>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// Whether a terminal is attached.
    pub terminal: bool,
    /// Its first size.
    pub console_size: Option<ConsoleSize>,
    /// Ids.
    pub user: user::UserPlan,
    /// Capability sets.
    pub caps: caps::CapsPlan,
    /// Resource limits.
    pub rlimits: Vec<rlimits::Limit>,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// AppArmor profile and SELinux label.
    pub labels: lsm::LsmPlan,
    /// `oom_score_adj`.
    pub oom_score: Option<oom::OomScore>,
    /// Scheduling policy.
    pub scheduler: Option<sched::Scheduler>,
    /// I/O priority.
    pub io_priority: Option<sched::IoPriority>,
    /// CPU affinity before and after the cgroup is entered (exec only).
    pub affinity: sched::ExecAffinity,
    /// Whether `LISTEN_PID` is to be the process's own pid, which only it knows.
    pub activated: bool,
}

impl ProcessPlan {
    /// Checks `process`.
    pub fn new(process: &Process, warnings: &mut Vec<String>) -> Result<ProcessPlan> {
        if process.args.is_empty() {
            return Err(Error::invalid("process.args is empty"));
        }
        if !process.cwd.is_absolute() {
            return Err(Error::invalid(format!("process.cwd {:?} is not an absolute path", process.cwd)));
        }
        let (caps, mut more) = caps::plan(process.capabilities.as_ref())?;
        warnings.append(&mut more);
        Ok(ProcessPlan {
            args: process.args.iter().map(|arg| string("process.args", arg)).collect::<Result<_>>()?,
            env: environment(&process.env)?,
            cwd: process.cwd.clone(),
            terminal: process.terminal,
            console_size: process.console_size,
            user: user::plan(&process.user)?,
            caps,
            rlimits: rlimits::plan(&process.rlimits)?,
            no_new_privileges: process.no_new_privileges,
            labels: lsm::plan(
                process.apparmor_profile.as_deref(),
                process.selinux_label.as_deref(),
                lsm::enabled,
            )?,
            oom_score: oom::plan(process.oom_score_adj)?,
            scheduler: sched::plan(process.scheduler.as_ref())?,
            io_priority: sched::plan_io(process.io_priority.as_ref())?,
            affinity: sched::plan_exec_affinity(process.exec_cpu_affinity.as_ref())?,
            activated: false,
        })
    }

    /// The value of `name` in the workload's environment.
    pub fn var(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// Adds or replaces a variable.
    pub fn set_var(&mut self, name: &str, value: &str) {
        let entry = CString::new(format!("{name}={value}")).unwrap_or_default();
        self.env.retain(|old| {
            old.to_bytes().strip_prefix(name.as_bytes()).is_none_or(|rest| !rest.starts_with(b"="))
        });
        self.env.push(entry);
    }

    /// The working directory.
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }
}

fn string(field: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("{field}: {text:?} holds a NUL byte")))
}

fn environment(listed: &[String]) -> Result<Vec<CString>> {
    let mut env: Vec<&str> = Vec::with_capacity(listed.len());
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(listed.len());
    for entry in listed {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::invalid(format!("process.env: {entry:?} is not NAME=value")));
        };
        if let Some(old) = places.get(name).and_then(|at| env.get_mut(*at)) {
            *old = entry;
        } else {
            places.insert(name, env.len());
            env.push(entry);
        }
    }
    env.into_iter().map(|entry| string("process.env", entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_stays() {
        let env = environment(&["A=1".into(), "B=x=y".into(), "A=2".into()]).unwrap();
        assert_eq!(env, [c"A=2".to_owned(), c"B=x=y".to_owned()]);
        assert!(environment(&["=x".into()]).is_err() && environment(&["A".into()]).is_err());
    }
}
