//! The one error type of the crate: what was being done, to what, why it failed, what to do.
//!
//! Owns the words that a failure is told with. Never prints and never exits.

use std::fmt;

use nix::errno::Errno;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel or the host refused an operation.
    System,
    /// A reference, an option or a document asks for something wrong.
    Invalid,
    /// No such image, blob or layer.
    NotFound,
    /// Bytes are not what their digest, their size or the format says.
    Corrupt,
    /// A registry could not be reached or gave no usable answer; trying again may help.
    Network,
    /// A registry, a policy or a lack of credentials forbids it.
    Denied,
    /// Somebody uses it.
    Busy,
    /// This kernel or build lacks what was asked for.
    Unsupported,
}

/// An error: `doing` (what, to what), the reason, and a remedy where one is known.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    kind: Kind,
    doing: String,
    errno: Option<Errno>,
    hint: Option<String>,
}

impl Error {
    /// An error of `kind` whose text stands by itself.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Error { kind, doing: text.into(), errno: None, hint: None }
    }

    /// The request or a document is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Error::new(Kind::Invalid, text)
    }

    /// Bytes are not what they claim to be.
    pub fn corrupt(text: impl Into<String>) -> Self {
        Error::new(Kind::Corrupt, text)
    }

    /// A system call failed with `errno` while `doing`.
    pub fn sys(errno: Errno, doing: impl Into<String>) -> Self {
        Error { kind: Kind::System, doing: doing.into(), errno: Some(errno), hint: None }
    }

    /// Adds the remedy, said after the reason.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the larger act before the text.
    #[must_use]
    pub fn context(mut self, act: impl fmt::Display) -> Self {
        self.doing = format!("{act}: {}", self.doing);
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The system call's errno, when a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// Whether there was no room for it.
    pub fn is_full(&self) -> bool {
        matches!(self.errno, Some(Errno::ENOSPC | Errno::EDQUOT))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        if let Some(errno) = self.errno {
            write!(f, ": {} ({errno:?})", errno.desc().to_lowercase())?;
            if errno == Errno::ENOSPC && self.hint.is_none() {
                f.write_str(": make room, or choose another store with --images")?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, ": {hint}")?;
        }
        Ok(())
    }
}

/// Turns the failures of `nix`, `std::io` and `serde_json` into [`Error`] with the act named.
pub trait Context<T> {
    /// Names the act and its object; the closure runs on failure only.
    fn doing<D: Into<String>>(self, doing: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for nix::Result<T> {
    fn doing<D: Into<String>>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|errno| Error::sys(errno, doing()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn doing<D: Into<String>>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|err| {
            // An error of ours that travelled through a reader keeps its kind and its words.
            match err.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(ours) => ours.clone(),
                None => match err.raw_os_error() {
                    Some(raw) => Error::sys(Errno::from_raw(raw), doing()),
                    None if matches!(
                        err.kind(),
                        std::io::ErrorKind::InvalidData
                            | std::io::ErrorKind::InvalidInput
                            | std::io::ErrorKind::UnexpectedEof
                    ) =>
                    {
                        Error::corrupt(format!("{}: {err}", doing().into()))
                    }
                    None => Error::new(Kind::System, format!("{}: {err}", doing().into())),
                },
            }
        })
    }
}

impl<T> Context<T> for serde_json::Result<T> {
    fn doing<D: Into<String>>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|err| Error::corrupt(format!("{}: {err}", doing().into())))
    }
}

impl From<Error> for std::io::Error {
    fn from(err: Error) -> Self {
        std::io::Error::other(err)
    }
}
