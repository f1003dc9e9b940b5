//! The one error type of the crate: what was being done, to what, why it failed, what to do.
//!
//! Never prints. The binary turns it into its own error, which has the same words.

use std::fmt;

use nix::errno::Errno;

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The kernel or the host refused an operation.
    System,
    /// The definition or the request is wrong.
    Invalid,
    /// This kernel lacks what was asked for.
    Unsupported,
    /// No such network, container or interface.
    NotFound,
    /// An address, a port or a name belongs to somebody else, or a network is in use.
    Taken,
}

/// An error: `doing` (what, to what), the reason, and a remedy where one is known.
///
/// Displayed as `making the bridge lb-web: operation not permitted (EPERM): run as root`.
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

    /// The request is wrong: `text` names the field and the value.
    pub fn invalid(text: impl Into<String>) -> Self {
        Error::new(Kind::Invalid, text)
    }

    /// Somebody else has it.
    pub fn taken(text: impl Into<String>) -> Self {
        Error::new(Kind::Taken, text)
    }

    /// A system call failed with `errno` while `doing` (what and to what, in the -ing form).
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

    /// Says which kernel module is missing, where the errno means that one is.
    #[must_use]
    pub fn needs_module(mut self, module: &str) -> Self {
        if let Some(Errno::EOPNOTSUPP | Errno::ENOENT | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) =
            self.errno
        {
            self.kind = Kind::Unsupported;
            self.hint = Some(format!("the kernel lacks {module}: try `modprobe {module}`"));
        }
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno, when a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// What was being done, or the whole text; without errno and remedy.
    pub fn doing(&self) -> &str {
        &self.doing
    }

    /// The remedy.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        if let Some(errno) = self.errno {
            write!(f, ": {} ({errno:?})", errno.desc().to_lowercase())?;
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
