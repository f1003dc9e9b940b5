//! `linux.sysctl`: keys checked against the container's own namespaces, written through a procfs handle.
//!
//! Owns the list of keys that are namespaced. Never writes a sysctl that the host would feel.

use std::collections::BTreeMap;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::procfs::{Base, Proc};

/// System V IPC keys of the ipc namespace; `fs.mqueue.*` belongs to it as well.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Which namespaces are not the runtime's own: new ones, or joined ones that differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Has an ipc namespace.
    pub ipc: bool,
    /// Has a network namespace.
    pub net: bool,
    /// Has a uts namespace.
    pub uts: bool,
    /// Has a user namespace.
    pub user: bool,
}

/// A checked write below /proc/sys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    path: String,
    value: String,
}

/// Checks `linux.sysctl`.
pub fn plan(spec: &BTreeMap<String, String>, own: Namespaces) -> Result<Vec<Sysctl>> {
    let mut list: Vec<Sysctl> = Vec::with_capacity(spec.len());
    for (key, value) in spec {
        let wrong = |text: String| Err(Error::invalid(format!("linux.sysctl: {key:?} {text}")));
        let Some(path) = path_of(key) else {
            return wrong("is not the name of a sysctl".into());
        };
        if value.contains('\0') {
            return wrong("has a value with a NUL byte".into());
        }
        if list.iter().any(|entry| entry.path == path) {
            return wrong("is set twice, with different separators".into());
        }
        let (namespace, has) = match path.as_str() {
            "kernel/hostname" => {
                return wrong("is not allowed: it conflicts with the field `hostname`".into());
            }
            "kernel/domainname" => ("uts", own.uts),
            path if IPC.contains(&path) || path.starts_with("fs/mqueue/") => ("ipc", own.ipc),
            path if path.starts_with("net/") => ("network", own.net),
            path if path.starts_with("user/") => ("user", own.user),
            _ => return wrong("is not in a namespace: it would change the host".into()),
        };
        if !has {
            return wrong(format!(
                "is not allowed without a {namespace} namespace of its own: it would change the host"
            ));
        }
        list.push(Sysctl { path, value: value.clone() });
    }
    Ok(list)
}

/// The path of a key by the rule of sysctl.d(5): the first separator, `.` or `/`, is the separator
/// and the other one stands for the former inside a component (`net.ipv4.conf.eno2/100.rp_filter`).
fn path_of(key: &str) -> Option<String> {
    let path: String = match key.find(['.', '/']).map(|at| &key[at..=at])? {
        "/" => key.into(),
        _ => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
    };
    let sound = path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    sound.then_some(path)
}

/// Writes them inside the container's namespaces, before /proc/sys is made read-only there.
///
/// The procfs handle must show /proc/sys, so it is not one with `subset=pid`.
pub fn apply(list: &[Sysctl], proc: &Proc) -> Result<()> {
    for entry in list {
        // With the newline an empty value is still a write.
        let text = format!("{}\n", entry.value);
        proc.write(Base::Sys, &entry.path, &text).map_err(|errno| {
            let error = Error::sys(errno, format!("setting sysctl {} to {:?}", entry.path, entry.value));
            match errno {
                Errno::ENOENT => error.hint("this kernel has no such sysctl in the container's namespaces"),
                Errno::EINVAL | Errno::ERANGE => error.hint("the kernel does not take this value"),
                Errno::EACCES | Errno::EPERM => {
                    error.hint("the container's namespace of it is not owned by its user namespace")
                }
                _ => error,
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Namespaces = Namespaces { ipc: true, net: true, uts: true, user: true };

    fn one(key: &str, own: Namespaces) -> Result<String> {
        plan(&BTreeMap::from([(key.into(), "1".into())]), own).map(|list| list[0].path.clone())
    }

    #[test]
    fn both_separators_mean_the_same() {
        for key in ["net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter"] {
            assert_eq!(one(key, ALL).unwrap(), "net/ipv4/conf/eno2.100/rp_filter");
        }
        let twice = BTreeMap::from([
            ("net.core.somaxconn".to_owned(), "1".to_owned()),
            ("net/core/somaxconn".to_owned(), "2".to_owned()),
        ]);
        assert!(plan(&twice, ALL).unwrap_err().to_string().contains("set twice"));
    }

    #[test]
    fn each_key_needs_its_namespace() {
        for (key, own) in [
            ("kernel.shmmax", Namespaces { ipc: true, ..Namespaces::default() }),
            ("kernel.sem", Namespaces { ipc: true, ..Namespaces::default() }),
            ("fs.mqueue.msg_max", Namespaces { ipc: true, ..Namespaces::default() }),
            ("net.ipv4.ip_forward", Namespaces { net: true, ..Namespaces::default() }),
            ("kernel.domainname", Namespaces { uts: true, ..Namespaces::default() }),
            ("user.max_user_namespaces", Namespaces { user: true, ..Namespaces::default() }),
        ] {
            assert!(one(key, own).is_ok(), "{key}");
            let inverse = Namespaces { ipc: !own.ipc, net: !own.net, uts: !own.uts, user: !own.user };
            let err = one(key, inverse).unwrap_err().to_string();
            assert!(err.contains("without a"), "{err}");
        }
    }

    #[test]
    fn the_hosts_sysctls_are_out_of_reach() {
        for key in [
            "kernel.core_pattern",
            "kernel.hostname",
            "vm.swappiness",
            "fs.file-max",
            "kernel.shmmaxx",
            "kernel/shmmax/..",
            "net/../kernel/core_pattern",
            "net.//.kernel.core_pattern",
            "net/./ipv4/ip_forward",
            "net..ipv4",
            "/net/ipv4/ip_forward",
            "net.",
            "net",
            "",
            ".",
            "fs.mqueue",
        ] {
            assert!(one(key, ALL).is_err(), "{key:?}");
        }
    }
}
