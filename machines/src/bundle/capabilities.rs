//! Which capabilities a machine's first process has.
//!
//! Owns the two default sets. In a user namespace they reach what is the machine's own and nothing else.

use locule_runtime::spec::Capabilities;

use super::InitKind;
use crate::{Definition, Error, Result};

/// What engines give to a program.
const PROGRAM: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// What a whole system needs beside: it mounts, makes namespaces for its services, sets up its interfaces, reboots.
const SYSTEM: [&str; 14] = [
    "CAP_AUDIT_CONTROL",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TTY_CONFIG",
];

/// The sets of the first process.
pub fn choose(definition: &Definition, kind: InitKind) -> Result<Capabilities> {
    let known = locule_runtime::attrs::caps::known_names();
    let mut held: Vec<String> = PROGRAM.iter().map(|name| (*name).to_owned()).collect();
    if kind.is_system() || definition.nesting {
        held.extend(SYSTEM.iter().map(|name| (*name).to_owned()));
    }
    if definition.privileged {
        // All that the host itself has.
        held = locule_runtime::attrs::caps::own_names()?;
    }
    let full = |field: &str, word: &str| -> Result<String> {
        let upper = word.to_ascii_uppercase();
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        match known.contains(&name) {
            true => Ok(name),
            false => Err(Error::invalid(format!("capabilities.{field}: there is no capability {word:?}"))
                .hint("capabilities(7) lists them")),
        }
    };
    let is_all = |word: &String| word.eq_ignore_ascii_case("all");
    let wanted = &definition.capabilities;
    if wanted.drop.iter().any(is_all) {
        held.clear();
    }
    for word in wanted.drop.iter().filter(|word| !is_all(word)) {
        let name = full("drop", word)?;
        held.retain(|other| *other != name);
    }
    if wanted.add.iter().any(is_all) {
        held.clone_from(&known);
    }
    for word in wanted.add.iter().filter(|word| !is_all(word)) {
        let name = full("add", word)?;
        if !held.contains(&name) {
            held.push(name);
        }
    }
    held.sort_unstable();
    Ok(Capabilities {
        bounding: held.clone(),
        effective: held.clone(),
        permitted: held,
        inheritable: Vec::new(),
        ambient: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str, kind: InitKind) -> Vec<String> {
        let definition = Definition::parse(text, std::path::Path::new("x")).unwrap();
        choose(&definition, kind).unwrap().bounding
    }

    #[test]
    fn defaults_grants_and_refusals() {
        assert_eq!(held("", InitKind::Plain).len(), 14);
        assert!(!held("", InitKind::Plain).contains(&"CAP_SYS_ADMIN".into()));
        assert!(held("", InitKind::Systemd).contains(&"CAP_SYS_ADMIN".into()));
        assert!(held("nesting = true", InitKind::Plain).contains(&"CAP_SYS_ADMIN".into()));
        let one = held("[capabilities]\ndrop = [\"ALL\"]\nadd = [\"net_raw\"]", InitKind::Systemd);
        assert_eq!(one, ["CAP_NET_RAW"]);
        let less = held("[capabilities]\ndrop = [\"CAP_MKNOD\"]", InitKind::Plain);
        assert!(less.len() == 13 && !less.contains(&"CAP_MKNOD".into()));
        let own = locule_runtime::attrs::caps::own_names().unwrap();
        assert_eq!(held("privileged = true", InitKind::Plain).len(), own.len());
        let mut wrong = Definition::default();
        wrong.capabilities.add.push("fly".into());
        assert!(choose(&wrong, InitKind::Plain).unwrap_err().to_string().contains("\"fly\""));
    }
}
