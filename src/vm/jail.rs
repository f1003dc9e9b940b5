//! What the monitor gives up before its guest executes anything.
//!
//! Its root is empty already, and it has no descriptor but what the machine is made of.

use locule_runtime::error::{Context, Result};
use locule_runtime::sys::{caps, process};

/// What the file server needs to act for the guest's users: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID,
/// SETGID, SETUID, MKNOD and SETFCAP.
const KEPT: [u32; 9] = [0, 1, 2, 3, 4, 6, 7, 27, 31];

/// Gives up all rights but those over files, for good. Threads that are made later have no others; those that serve no
/// files give up these too ([`locule_vmm::filter`]).
pub fn enter() -> Result<()> {
    let kept: u64 = KEPT.iter().map(|number| 1 << number).sum();
    for number in 0..64 {
        if kept & (1 << number) == 0 && caps::bounding_drop(number).is_err() && number > 40 {
            // The first number that the kernel does not know.
            break;
        }
    }
    let own = caps::get().doing(|| "reading the monitor's capabilities")?;
    let kept = kept & own.permitted;
    caps::set(caps::Sets { effective: kept, permitted: kept, inheritable: 0 })
        .doing(|| "giving up the monitor's capabilities")?;
    let _ = caps::ambient_clear();
    process::set_no_new_privs().doing(|| "setting no_new_privs")?;
    process::set_undumpable().doing(|| "hiding the monitor")
}
