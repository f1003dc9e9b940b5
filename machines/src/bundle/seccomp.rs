//! The system call filter that machines have unless they are privileged.
//!
//! The lists are data (`seccomp.txt`); owned here is what depends on arguments: namespaces, execution domains, sockets.

use locule_runtime::spec::{Seccomp, SeccompArg, SeccompRule};

const LISTS: &str = include_str!("seccomp.txt");

const ALLOW: &str = "SCMP_ACT_ALLOW";
/// `CLONE_NEW*` but for time, whose bit clone(2) has for the exit signal.
const NAMESPACES: u64 = 0x7e02_0000;
/// What personality(2) may be asked for: nothing else but to tell, and Linux of both widths with and without the
/// release names of 2.6.
const DOMAINS: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// Sockets to a hypervisor, which is the host's.
const AF_VSOCK: u64 = 40;

/// The filter for a machine with these capabilities; with `vsock` it may use a socket to its host, which is this one.
pub fn profile(capabilities: &[String], nesting: bool, vsock: bool) -> Seccomp {
    let mut names = Vec::new();
    for (section, words) in sections() {
        let holds = match section {
            "always" => true,
            "nesting" => nesting,
            capability => capabilities.iter().any(|held| held == capability),
        };
        if holds {
            names.extend(words.filter(|word| !word.ends_with('?')).map(str::to_owned));
        }
    }
    if vsock {
        names.push("socket".into());
    }
    names.sort_unstable();
    names.dedup();
    let admin = capabilities.iter().any(|held| held == "CAP_SYS_ADMIN");
    let mut syscalls = Vec::new();
    if !admin {
        // Without the right to make namespaces; their flags are behind a pointer in clone3(2), so that one is not there.
        names.retain(|name| name != "clone" && name != "clone3");
        syscalls.push(rule("clone", arg(0, "SCMP_CMP_MASKED_EQ", NAMESPACES, 0)));
        syscalls.push(SeccompRule {
            names: vec!["clone3".into()],
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(libc::ENOSYS as u32),
            args: Vec::new(),
        });
    }
    syscalls.extend(DOMAINS.map(|domain| rule("personality", arg(0, "SCMP_CMP_EQ", domain, 0))));
    if !vsock {
        syscalls.push(rule("socket", arg(0, "SCMP_CMP_NE", AF_VSOCK, 0)));
    }
    syscalls.push(SeccompRule { names, action: ALLOW.into(), errno_ret: None, args: Vec::new() });
    Seccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        default_errno_ret: Some(libc::EPERM as u32),
        architectures: architectures(),
        syscalls,
        ..Seccomp::default()
    }
}

/// Sections and their words; a word with a question mark is one whose arguments decide.
fn sections() -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'static str>)> {
    LISTS.split("\n[").skip(1).filter_map(|section| {
        let (name, text) = section.split_once(']')?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Some((name, lines.flat_map(str::split_ascii_whitespace)))
    })
}

fn rule(name: &str, condition: SeccompArg) -> SeccompRule {
    SeccompRule { names: vec![name.into()], action: ALLOW.into(), errno_ret: None, args: vec![condition] }
}

fn arg(index: u32, op: &str, value: u64, value_two: u64) -> SeccompArg {
    SeccompArg { index, value, value_two, op: op.into() }
}

fn architectures() -> Vec<String> {
    let all: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    };
    all.iter().map(|arch| (*arch).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Seccomp, name: &str) -> bool {
        let unconditional = |rule: &SeccompRule| rule.args.is_empty() && rule.action == ALLOW;
        profile
            .syscalls
            .iter()
            .filter(|rule| unconditional(rule))
            .any(|rule| rule.names.iter().any(|n| n == name))
    }

    #[test]
    fn rights_decide() {
        let plain = profile(&["CAP_SYS_CHROOT".into()], false, false);
        for name in ["read", "chroot", "ptrace", "memfd_create"] {
            assert!(allowed(&plain, name), "{name}");
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "clone",
            "clone3",
            "bpf",
            "keyctl",
            "kexec_load",
            "init_module",
            "io_uring_setup",
            "socket",
            "personality",
            "reboot",
            "swapon",
            "userfaultfd",
        ] {
            assert!(!allowed(&plain, name), "{name}");
        }
        let system = profile(&["CAP_SYS_ADMIN".into(), "CAP_SYS_BOOT".into()], true, false);
        for name in ["mount", "unshare", "clone", "clone3", "keyctl", "reboot"] {
            assert!(allowed(&system, name), "{name}");
        }
        assert!(!allowed(&system, "kexec_load") && !allowed(&system, "init_module"));
        let with_vsock = profile(&[], false, true);
        assert!(allowed(&with_vsock, "socket") && !allowed(&with_vsock, "mount"));
    }

    #[test]
    fn it_compiles_and_every_name_is_one() {
        let all = locule_runtime::attrs::caps::known_names();
        for (caps, vsock) in [(&all[..], true), (&all[..], false), (&[], false)] {
            let compiled = locule_runtime::seccomp::compile(&profile(caps, true, vsock)).unwrap();
            assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
        }
    }
}
