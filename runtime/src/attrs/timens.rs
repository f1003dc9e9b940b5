//! `linux.timeOffsets`: the text for `/proc/self/timens_offsets`.
//!
//! Owns the two clocks that time_namespaces(7) offsets. Never touches the clocks themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nix::errno::Errno;

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
    /// Writes the offsets for the time namespace that `task` (the caller, or a child) has unshared and
    /// that no process has entered yet; after that the kernel answers EACCES.
    pub fn apply(&self, proc: &Proc, task: Base) -> Result<()> {
        proc.write(task, "timens_offsets", &self.0).map_err(|errno| {
            let error = Error::sys(errno, "setting linux.timeOffsets");
            match errno {
                Errno::ERANGE => error.hint("a clock of the container would be negative or out of range"),
                Errno::ENOENT => error.hint("this kernel has no time namespaces (CONFIG_TIME_NS)"),
                _ => error,
            }
        })
    }

    /// The text itself.
    pub fn text(&self) -> &str {
        &self.0
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
