//! `delete`: everything that is left of a container.
//!
//! Owns nothing but the call.

use clap::ArgMatches;
use locule_runtime::{Kind, Result, contract};

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, switch};
use crate::commands::start;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "delete",
    about: "Delete a container and what it holds",
    usage: "[options] <container-id>",
    details: "Removes the cgroup and the state of a stopped container, and runs its poststop hooks. A container \
that was created and never started is killed first. With --force a running one is killed as well, whatever \
an interrupted call left is removed, and a name that does not exist is no error.",
    examples: &[("Delete web1 in any state", "locule delete --force web1")],
    arguments: |command| {
        command
            .arg(switch("force", "Kill the container first if it still runs (SIGKILL)").short('f'))
            .arg(id())
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let (id, force) = (given_id(matches), matches.get_flag("force"));
    let store = globals.store()?;
    match store.as_ref().map(|store| store.load(id)) {
        Some(Ok(container)) if start::is_machines(&container) => return Err(start::refuse_machine(id)),
        None => return absent(globals, id, force),
        Some(Err(err)) if err.kind() == Kind::NotFound => return absent(globals, id, force),
        // What cannot be read is deleted all the same, with force.
        _ => {}
    }
    if let Some(store) = store {
        locule_runtime::delete(&store, id, force)?;
    }
    Ok(0)
}

fn absent(globals: &Globals, id: &str, force: bool) -> Result<i32> {
    match (start::is_machine(globals, id), force) {
        (true, _) => Err(start::refuse_machine(id)),
        (false, true) => Ok(0),
        (false, false) => Err(contract::absent(id)),
    }
}
