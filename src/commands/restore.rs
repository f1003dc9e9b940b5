//! `restore`: not there yet, and says so.
//!
//! Owns the declaration of runc's options: Podman learns from `restore --lsm-mount-context`
//! without a value (`flag needs an argument`) that the option is known.

use clap::ArgMatches;
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, id, option, switch};
use crate::commands::checkpoint;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "restore",
    about: "Restore a saved container (not there yet)",
    usage: "[options] <container-id>",
    details: "locule cannot restore containers yet. The call fails without touching anything.",
    arguments: |command| {
        checkpoint::arguments(command)
            .args([
                option("bundle", "DIR", "The bundle").short('b'),
                option("console-socket", "SOCKET", "Socket for the terminal"),
                option("pid-file", "FILE", "File for the process id"),
                option("lsm-profile", "TYPE:NAME", "Profile of the security module"),
                option("lsm-mount-context", "CONTEXT", "SELinux context of mounts"),
                switch("detach", "Return when the process runs").short('d'),
                switch("no-subreaper", "Leave orphans to the caller"),
                switch("no-pivot", "Move the root mount instead of pivot_root"),
            ])
            .arg(id())
    },
    run,
    absent: true,
    ..Verb::BASE
};

fn run(_: &Globals, _: &ArgMatches, _: &mut Out) -> Result<i32> {
    Err(checkpoint::absent("restore"))
}
