//! The one error of the monitor: what was being done, and why it failed.

use std::io;

/// What the monitor's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a virtual machine could not be made, started or run on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel said no to a call.
    #[error("{doing}: {source}")]
    System {
        /// What was being done, and to what.
        doing: String,
        /// The errno.
        source: io::Error,
    },
    /// What was asked for, or what was found, cannot be used.
    #[error("{doing}: {reason}")]
    Refused {
        /// What was being done, and to what.
        doing: String,
        /// Why not, and what to do.
        reason: String,
    },
}

impl Error {
    /// An error of a system call.
    pub fn system(doing: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::System { doing: doing.into(), source: source.into() }
    }

    /// A refusal.
    pub fn refused(doing: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Refused { doing: doing.into(), reason: reason.into() }
    }
}

/// Says what was being done when a call failed.
pub trait Doing<T> {
    /// Names the step that failed.
    fn doing(self, doing: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::system(doing, source))
    }
}
