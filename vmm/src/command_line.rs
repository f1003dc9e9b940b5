//! The kernel's command line.

use crate::{Config, Identity};

/// What every guest gets, then what the tree and the consoles ask for, then what the caller wants.
///
/// `reboot=panic_warm` lets the kernel leave a mark in memory when it resets after a panic, and only then (see
/// [`crate::vcpu`]). `pci=noearly` leaves out 74 reads of ports that no machine like ours has: Linux says that it found no
/// configuration access then, and finds it with ACPI later.
///
/// `clock` is the frequency of the processors' clock in kHz: a guest that knows of no hypervisor has nothing to
/// measure it by.
pub fn make(config: &Config, clock: u32) -> String {
    let mut words = vec!["panic=-1 reboot=panic_warm pci=noearly"];
    let clock = format!("tsc_early_khz={clock}");
    if config.identity == Identity::None {
        words.push(&clock);
    }
    if config.serial.is_none() {
        words.push("8250.nr_uarts=0");
    } else {
        words.push("console=ttyS0");
    }
    words.push("console=hvc0");
    if config.console.is_none() && config.serial.is_none() {
        words.push("quiet");
    }
    if config.tree.is_some() {
        // Writable: entries of the tree are mounts of their own to the guest, which inherit that. The top
        // directory and read-only entries refuse changes themselves.
        words.push("rootfstype=virtiofs root=locule rw init=/init");
    }
    if config.growth > 0 {
        // Memory that came can go again only if the kernel keeps nothing of its own there.
        words.push("memhp_default_state=online_movable");
    }
    if !config.command_line.is_empty() {
        words.push(&config.command_line);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_words_come_last() {
        let mut config = Config {
            memory: 0,
            growth: 0,
            vcpus: 1,
            kernel: tempfile::tempfile().unwrap(),
            initramfs: None,
            command_line: "quiet x=1".into(),
            tree: None,
            channel: None,
            console: None,
            serial: None,
            networks: Vec::new(),
            disks: Vec::new(),
            vsock: None,
            kvm: None,
            identity: Identity::Kvm,
            trace: false,
            filter: false,
        };
        let line = make(&config, 5);
        assert!(line.ends_with(" quiet quiet x=1") && line.contains("8250.nr_uarts=0"), "{line}");
        assert!(!line.contains("tsc_early_khz") && !line.contains("virtiofs") && !line.contains("memhp"));
        config.identity = Identity::None;
        config.tree = Some(Default::default());
        config.growth = 1 << 30;
        let line = make(&config, 5);
        assert!(line.contains("tsc_early_khz=5") && line.contains("root=locule"), "{line}");
        assert!(line.contains("memhp_default_state=online_movable"), "{line}");
    }
}
