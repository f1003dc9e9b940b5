//! The one error type of the crate: what was being done, to what, why it failed, what to do.
//!
//! It travels as data from the container's init to the process that prints it,
//! so it owns its text and can be serialised. It never prints anything itself.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::contract;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error; decides exit codes and contract words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The kernel or the host refused an operation.
    System,
    /// The bundle, the document or the command line asks for something wrong.
    Invalid,
    /// The document asks for something that this kernel or build lacks.
    Unsupported,
    /// No such container.
    NotFound,
    /// A container of that name exists.
    Exists,
    /// The container is in a state that does not allow the operation.
    State,
    /// The container's process is gone.
    NotRunning,
    /// The workload's program was found but cannot be executed (exit code 126).
    NotExecutable,
    /// The workload's program was not found (exit code 127).
    CommandNotFound,
}

/// An error: `doing` (what, to what), the reason, and a remedy where one is known.
///
/// Displayed as `mounting tmpfs on /tmp: operation not permitted (EPERM): run as root`.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
pub struct Error {
    kind: Kind,
    doing: String,
    errno: Option<i32>,
    hint: Option<Cow<'static, str>>,
}

impl Error {
    /// An error of `kind` whose text stands by itself.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Error { kind, doing: text.into(), errno: None, hint: None }
    }

    /// The document or the request is wrong: `text` names the field and the value.
    pub fn invalid(text: impl Into<String>) -> Self {
        Error::new(Kind::Invalid, text)
    }

    /// The kernel or this build lacks what was asked for.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Error::new(Kind::Unsupported, text)
    }

    /// A system call failed with `errno` while `doing` (what and to what, in the -ing form).
    pub fn sys(errno: Errno, doing: impl Into<String>) -> Self {
        Error { kind: Kind::System, doing: doing.into(), errno: Some(errno as i32), hint: None }
    }

    /// Adds the remedy, said after the reason.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the larger act before the text: `creating web1: mounting ...`.
    #[must_use]
    pub fn context(mut self, act: impl fmt::Display) -> Self {
        self.doing = format!("{act}: {}", self.doing);
        self
    }

    /// Replaces the kind, for callers that know more than the failing helper.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The system call's errno, when a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        self.errno.map(Errno::from_raw)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        if let Some(errno) = self.errno() {
            write!(f, ": {} ({errno:?})", contract::reason(errno))?;
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
        self.map_err(|err| match err.raw_os_error() {
            Some(raw) => Error::sys(Errno::from_raw(raw), doing()),
            None => Error::new(Kind::System, format!("{}: {err}", doing().into())),
        })
    }
}

impl<T> Context<T> for serde_json::Result<T> {
    fn doing<D: Into<String>>(self, doing: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|err| Error::invalid(format!("{}: {err}", doing().into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_act_reason_and_remedy() {
        let err =
            Error::sys(Errno::EPERM, "mounting tmpfs on /tmp").hint("run as root").context("creating web1");
        assert_eq!(
            err.to_string(),
            "creating web1: mounting tmpfs on /tmp: operation not permitted (EPERM): run as root"
        );
        assert_eq!(err.errno(), Some(Errno::EPERM));
    }
}
