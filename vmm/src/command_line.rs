//! The kernel's command line.

use crate::Config;

/// What every guest gets, then what the tree and the consoles ask for, then what the caller wants.
///
/// `reboot=panic_warm` lets the kernel leave a mark in memory when it resets after a panic, and only then (see
/// [`crate::vcpu`]).
pub fn make(config: &Config) -> String {
    let mut words = vec!["panic=-1 reboot=panic_warm"];
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
    if !config.command_line.is_empty() {
        words.push(&config.command_line);
    }
    words.join(" ")
}
