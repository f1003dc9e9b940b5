//! Descriptors that systemd holds while no keeper is there (sd_notify(3), `FDSTORE`), by name.

use std::os::fd::OwnedFd;

use locule_runtime::sys::process;

/// The name of the terminal's master.
pub const TERMINAL: &str = "terminal";
/// The name of init's pidfd.
pub const INIT: &str = "init";

/// What was held.
#[derive(Debug, Default)]
pub struct Kept {
    /// The terminal's master.
    pub terminal: Option<OwnedFd>,
    /// init's pidfd.
    pub init: Option<OwnedFd>,
}

/// Takes them over (sd_listen_fds(3)); call it before anything is opened.
pub fn take() -> Kept {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let mut kept = Kept::default();
    let (Some(pid), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else { return kept };
    if pid != std::process::id() as i32 {
        return kept;
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    for (fd, name) in (3..3 + count.clamp(0, 64)).zip(names.split(':')) {
        let Some(fd) = process::adopt(fd) else { continue };
        // A copy that no child inherits; the one that systemd gave is closed.
        let Ok(copy) = fd.try_clone() else { continue };
        match name {
            // Of several the last one was given last.
            TERMINAL => kept.terminal = Some(copy),
            INIT => kept.init = Some(copy),
            _ => {}
        }
    }
    kept
}
