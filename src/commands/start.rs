//! `start`: lets a created container execute its program; starts a machine.
//!
//! Owns the decision which of both a name means.

use clap::ArgMatches;
use locule_machines::definition::Span;
use locule_machines::{keeper, life};
use locule_runtime::{Container, Error, Kind, Result};

use crate::args::Globals;
use crate::cli::{Verb, given_id, id, option, switch, text};
use crate::commands::machine;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "start",
    about: "Start a created container, or a machine",
    usage: "[options] <container-id>",
    details: "The container's first process executes the program of config.json. Fails if the container \
is not in the state created.\n\nThe name of a machine that does not run starts the machine, and returns when its first \
process runs; one that runs already is no error. With --foreground this process stays as its keeper.",
    examples: &[("Start web1", "locule start web1")],
    arguments: |command| {
        command.args([
            switch("foreground", "Stay as the keeper of the machine until it ends"),
            switch("wait", "Return when the machine is ready, as boot.ready says").short('w'),
            option("timeout", "TIME", "With --wait: give up after TIME (90s, 5m); the machine goes on"),
            id(),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let id = given_id(matches);
    let foreground = matches.get_flag("foreground");
    if !foreground {
        match globals.container(id) {
            Ok(container) if !is_machines(&container) => return container.start().map(|()| 0),
            Err(err) if err.kind() != Kind::NotFound || !is_machine(globals, id) => return Err(err),
            _ => {}
        }
    }
    let home = machine::home(globals)?;
    let machine = home.find(id)?;
    if foreground {
        return keeper::run(&home, &machine, true);
    }
    life::start(&home, &machine)?;
    if matches.get_flag("wait") {
        let limit = text(matches, "timeout")
            .map(|word| word.parse::<Span>().map_err(|err| Error::invalid(format!("--timeout: {err}"))));
        keeper::await_ready(&machine, limit.transpose()?.map(|span| span.0))?;
    }
    Ok(0)
}

/// Whether a container is that of a machine.
pub fn is_machines(container: &Container) -> bool {
    container.state().annotations.contains_key("org.locule.machine")
}

/// Whether `name` is a machine's.
pub fn is_machine(globals: &Globals, name: &str) -> bool {
    globals.home().and_then(|home| home.machine(name)).is_ok_and(|machine| machine.exists())
}

/// Refuses what is done to containers alone.
pub fn refuse_machine(name: &str) -> Error {
    Error::new(Kind::State, format!("{name:?} is a machine"))
        .hint(format!("locule stop {name} ends it, locule rm {name} removes it with its data"))
}
