//! `vm kernel use`: chooses the kernel that virtual machines boot.
//!
//! Owns nothing but the call.

use clap::{Arg, ArgMatches};
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;
use crate::vm::kernel;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "vm kernel use",
    about: "Choose the kernel that virtual machines boot",
    usage: "<version | path | auto>",
    details: "The kernel is one of locule vm kernel ls, by its version, or any file, by its path; its configuration must be \
beside it or in /boot as config-VERSION. auto goes back to the newest that qualifies. Machines that run keep theirs.",
    examples: &[("That of the running host", "locule vm kernel use $(uname -r)")],
    arguments: |command| {
        command.arg(Arg::new("kernel").value_name("kernel").required(true).help("Version, path, or auto"))
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    kernel::choose(text(matches, "kernel").unwrap_or_default()).map(|_| 0)
}
