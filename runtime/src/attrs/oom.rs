//! `process.oomScoreAdj`: checked and written through a procfs handle.
//!
//! Owns one number. An absent value leaves the inherited one alone (config.md, "Linux Process").

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::procfs::{Base, Proc};

const FILE: &str = "oom_score_adj";

/// A checked score, -1000 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomScore(i32);

/// Checks `process.oomScoreAdj`.
pub fn plan(spec: Option<i32>) -> Result<Option<OomScore>> {
    match spec {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::invalid(format!("process.oomScoreAdj: {score} is not within -1000 to 1000")))
        }
        score => Ok(score.map(OomScore)),
    }
}

impl OomScore {
    /// Writes the score of the calling process; before it is made undumpable or loses its user,
    /// as either makes the file root's.
    ///
    /// A score below the process's floor takes CAP_SYS_RESOURCE; where that is refused and the
    /// score is what the process has already, nothing is wrong.
    pub fn apply(self, proc: &Proc, base: Base) -> Result<()> {
        match proc.write(base, FILE, &self.0.to_string()) {
            Ok(()) => Ok(()),
            Err(errno @ (Errno::EACCES | Errno::EPERM)) => {
                let current = proc.read(base, FILE).unwrap_or_default();
                if current.trim().parse() == Ok(self.0) {
                    return Ok(());
                }
                Err(Error::sys(
                    errno,
                    format!("setting oom_score_adj to {}, from {}", self.0, current.trim()),
                )
                .hint("lowering it takes CAP_SYS_RESOURCE: raise process.oomScoreAdj or leave it out"))
            }
            Err(errno) => Err(Error::sys(errno, format!("setting oom_score_adj to {}", self.0))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_checked() {
        assert_eq!(plan(None).unwrap(), None);
        assert_eq!(plan(Some(-1000)).unwrap(), Some(OomScore(-1000)));
        assert_eq!(plan(Some(1000)).unwrap(), Some(OomScore(1000)));
        for score in [-1001, 1001, i32::MIN] {
            assert!(plan(Some(score)).is_err());
        }
    }
}
