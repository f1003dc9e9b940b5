//! One error type: the runtime's, into which those of images and networks are turned.
//!
//! Owns the words' way across crates. Never adds text of its own.

use locule_images::error::Kind as Images;
use locule_netns::error::Kind as Networks;
use locule_runtime::{Error, Kind};

/// An error of another crate as the runtime's own, with the same words.
pub trait Lift {
    /// The error.
    fn lift(self) -> Error;
}

impl Lift for locule_images::Error {
    fn lift(self) -> Error {
        let kind = match self.kind() {
            Images::Invalid => Kind::Invalid,
            Images::NotFound => Kind::NotFound,
            Images::Unsupported => Kind::Unsupported,
            _ => Kind::System,
        };
        Error::new(kind, self.to_string())
    }
}

impl Lift for locule_netns::Error {
    fn lift(self) -> Error {
        let kind = match self.kind() {
            Networks::Invalid => Kind::Invalid,
            Networks::NotFound => Kind::NotFound,
            Networks::Unsupported => Kind::Unsupported,
            Networks::Taken => Kind::Exists,
            _ => Kind::System,
        };
        Error::new(kind, self.to_string())
    }
}

/// For `map_err`.
pub fn lift(err: impl Lift) -> Error {
    err.lift()
}
