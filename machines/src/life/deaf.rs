//! Whether a signal was lost on a first process.
//!
//! The kernel drops a signal for which the first process of a pid namespace has no handler (pid_namespaces(7)): nothing
//! is to be waited for then. Owns the proof of that, which has to hold from before the signal to after it. Where there is
//! none, the process counts as one that hears.

use locule_runtime::procfs::{Base, Proc};

/// rt_sigtimedwait(2), by the numbers of x86-64, of arm64 and of 32-bit programs with either time. While a process
/// sleeps in it, /proc shows as not blocked what it waits for.
const SIGNAL_WAITS: [i64; 4] = [128, 137, 177, 421];

/// Does `send`, and tells whether `signal` was lost by that on the process `pid`.
pub(super) fn is_lost<E>(pid: i32, signal: i32, send: impl FnOnce() -> Result<(), E>) -> Result<bool, E> {
    let proc = Proc::new();
    let before = sleep_without(&proc, pid, signal);
    send()?;
    // One sleep from before to after: in between it could neither ask for the signal nor have had it.
    Ok(before.is_some() && before == sleep_without(&proc, pid, signal))
}

/// The number of the sleep in which `pid` is, if the signal would not end it and nobody would take it up later.
fn sleep_without(proc: &Proc, pid: i32, signal: i32) -> Option<u64> {
    let status = proc.read(Base::Pid(pid), "status").ok()?;
    let sleep = deaf_sleep(&status, signal)?;
    // "running" where it does not sleep after all.
    let call = proc.read(Base::Pid(pid), "syscall").ok()?;
    let number: i64 = call.split_whitespace().next()?.parse().ok()?;
    (!SIGNAL_WAITS.contains(&number)).then_some(sleep)
}

/// Reads /proc/PID/status: asleep, and the signal neither caught nor blocked, nor ignored by its own will, which is a wish
/// to be given the time.
fn deaf_sleep(status: &str, signal: i32) -> Option<u64> {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let holds = |name| {
        let signals = u64::from_str_radix(field(name)?, 16).ok()?;
        Some(signals >> (signal - 1) & 1 == 1)
    };
    let deaf =
        field("State")?.starts_with('S') && !holds("SigCgt")? && !holds("SigBlk")? && !holds("SigIgn")?;
    field("voluntary_ctxt_switches")?.parse().ok().filter(|_| deaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: &str, [blocked, ignored, caught]: [u64; 3]) -> String {
        format!(
            "Name:\tx\nState:\t{state}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n\
             voluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n"
        )
    }

    #[test]
    fn a_sleeper_without_handler_and_mask_is_deaf() {
        let term = 1 << (libc::SIGTERM - 1);
        let of = |state: &str, sets| deaf_sleep(&status(state, sets), libc::SIGTERM);
        assert_eq!(of("S (sleeping)", [0, 0, 0]), Some(7));
        assert_eq!(of("S (sleeping)", [!term, !term, !term]), Some(7));
        for sets in [[term, 0, 0], [0, term, 0], [0, 0, term]] {
            assert_eq!(of("S (sleeping)", sets), None);
        }
        assert_eq!(of("R (running)", [0, 0, 0]), None);
        assert_eq!(deaf_sleep(&status("S (sleeping)", [0, 0, 1 << 63]), 64), None);
        assert_eq!(deaf_sleep("State:\tS (sleeping)\n", libc::SIGTERM), None);
    }
}
