//! `snapshot …`: saved states of machines' disks, from words to one call of `locule_machines`.
//!
//! Owns what the verbs of this noun have in common. One file a verb; none prints.

pub mod create;
pub mod ls;
pub mod restore;
pub mod rm;

use clap::{Arg, ArgMatches};

use crate::cli::text;

/// The positional argument that names a snapshot.
pub fn snapshot() -> Arg {
    Arg::new("snapshot").value_name("snapshot").help("Name of the snapshot")
}

/// The name that was given.
pub fn given(matches: &ArgMatches) -> &str {
    text(matches, "snapshot").unwrap_or_default()
}
