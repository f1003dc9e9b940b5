//! `run`: create, start, wait for the end and delete, in one call.
//!
//! Owns how long the call lasts. Never reads the bundle itself.

use clap::ArgMatches;
use locule_runtime::{Result, RunRequest};

use crate::args::Globals;
use crate::cli::{Verb, id, switch};
use crate::commands::create;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "run",
    about: "Create a container, start it and wait for its end",
    usage: "[options] <container-id>",
    details: "In the foreground, locule run lasts as long as the container's first process, passes \
signals on to it, deletes the container at its end and exits with its status: its exit code, or 128 \
and the signal's number. With --detach it returns when the process runs.",
    examples: &[
        ("Run the bundle of the current directory", "locule run web1"),
        (
            "Run it in the background and keep its state",
            "locule run --detach --keep --pid-file web1.pid web1",
        ),
    ],
    arguments: |command| {
        create::arguments(command)
            .args([
                switch("detach", "Return when the process runs").short('d'),
                switch("keep", "Do not delete the container at its end"),
                switch("no-subreaper", "Leave orphans of the container to the caller, in the foreground"),
            ])
            .arg(id())
    },
    run,
    becomes_workload: true,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let request = RunRequest {
        create: create::request(globals, matches)?,
        detach: matches.get_flag("detach"),
        keep: matches.get_flag("keep"),
        no_subreaper: matches.get_flag("no-subreaper"),
    };
    locule_runtime::run(&globals.store_for_creating()?, request)
}
