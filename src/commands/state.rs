//! `state`: one container's state as JSON.
//!
//! Owns nothing but the call; the fields are runc's and the runtime-spec's.

use clap::ArgMatches;
use locule_runtime::Result;

use crate::args::Globals;
use crate::cli::{Verb, given_id, id};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "state",
    about: "Print a container's state as JSON",
    usage: "<container-id>",
    details: "The fields are ociVersion, id, pid (0 when stopped), status (creating, created, running, \
paused or stopped), bundle, rootfs, created, annotations, isolation (vm; absent for namespaces) and owner.",
    examples: &[("The process id of web1", "locule state web1 | jq .pid")],
    arguments: |command| command.arg(id()),
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let report = globals.container(given_id(matches))?.report()?;
    out.json_pretty(&report)?;
    Ok(0)
}
