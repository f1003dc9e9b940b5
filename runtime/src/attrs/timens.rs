//! `linux.timeOffsets`: the text for `/proc/self/timens_offsets`.
//!
//! Owns the two clocks that time_namespaces(7) offsets. Never touches the clocks themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::{Error, Result};
use crate::procfs::{Base, Proc};
use crate::spec::TimeOffset;

/// KTIME_SEC_MAX / 2, beyond which the kernel refuses an offset.
const LIMIT: i64 = i64::MAX / 1_000_000_000 / 2;

/// Lines as the kernel wants them: `monotonic SECS NANOSECS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offsets(String);

/// Checks the offsets; nothing when there are none.
pub fn plan(spec: &BTreeMap<String, TimeOffset>) -> Result<Option<Offsets>> {
    let mut text = String::new();
    for (clock, offset) in spec {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::invalid(format!("linux.timeOffsets: unknown clock {clock:?}"))
                .hint("`monotonic` and `boottime` can be offset"));
        }
        if offset.nanosecs > 999_999_999 {
            return Err(Error::invalid(format!(
                "linux.timeOffsets.{clock}.nanosecs: {} is above 999999999",
                offset.nanosecs
            )));
        }
        if offset.secs.unsigned_abs() > LIMIT.unsigned_abs() {
            return Err(Error::invalid(format!(
                "linux.timeOffsets.{clock}.secs: {} is too far",
                offset.secs
            )));
        }
        // Infallible: writing to a String.
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(Offsets))
}

impl Offsets {
    /// Opens the file for the offsets of `task` (the caller, or a child), while it is still the
    /// caller's user's own.
    ///
    /// The right to write is judged by who opened: it must extend over the time namespace to be made.
    pub fn open(&self, proc: &Proc, task: Base) -> Result<OwnedFd> {
        proc.open(task, "timens_offsets", OFlag::O_WRONLY).map_err(offsets_error)
    }

    /// Writes the offsets for the time namespace that the task has unshared and that no process
    /// has entered yet; after that the kernel answers EACCES.
    pub fn write(&self, file: &OwnedFd) -> Result<()> {
        nix::unistd::write(file, self.0.as_bytes()).map(drop).map_err(offsets_error)
    }

    /// The text itself.
    pub fn text(&self) -> &str {
        &self.0
    }
}

fn offsets_error(errno: Errno) -> Error {
    let error = Error::sys(errno, "setting linux.timeOffsets");
    match errno {
        Errno::ERANGE => error.hint("a clock of the container would be negative or out of range"),
        Errno::ENOENT => error.hint("this kernel has no time namespaces (CONFIG_TIME_NS)"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_kernels() {
        let offsets = BTreeMap::from([
            ("monotonic".to_owned(), TimeOffset { secs: -5, nanosecs: 1 }),
            ("boottime".to_owned(), TimeOffset { secs: 7_881, nanosecs: 999_999_999 }),
        ]);
        assert_eq!(plan(&offsets).unwrap().unwrap().text(), "boottime 7881 999999999\nmonotonic -5 1\n");
        assert_eq!(plan(&BTreeMap::new()).unwrap(), None);
    }

    #[test]
    fn wrong_offsets_are_refused() {
        for (clock, secs, nanosecs) in [
            ("realtime", 1, 1),
            ("monotonic", 1, 1_000_000_000),
            ("boottime", i64::MAX, 0),
            ("boottime", i64::MIN, 0),
        ] {
            let offsets = BTreeMap::from([(clock.to_owned(), TimeOffset { secs, nanosecs })]);
            assert!(plan(&offsets).is_err(), "{clock} {secs} {nanosecs}");
        }
    }
}
