//! `keeper`: a machine's keeper, and the parts of its work that run as processes of their own.
//!
//! Called by locule itself and by units; owns nothing but the words.

use clap::{Arg, ArgMatches};
use locule_machines::keeper::{self, starter};
use locule_runtime::{Error, Result};

use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::commands::machine;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "keeper",
    about: "Keep a machine (called by locule itself)",
    usage: "<part> <machine>",
    details: "A machine that runs has a keeper beside it: a small process that holds its console, writes its log, \
records how it ended and starts it again where its restart policy says so. locule start and the unit locule@.service \
run it; there is no need to call it by hand.",
    examples: &[("Have a machine that lost its keeper kept again", "locule repair web1")],
    arguments: |command| {
        command.args([
            Arg::new("part")
                .value_name("part")
                .required(true)
                .value_parser(["stay", "create", "ask", "clean", "after"])
                .help("The keeper itself, or one step of a machine's life"),
            Arg::new("machine").value_name("machine").required(true).help("Name of the machine"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = machine::home(globals)?;
    let machine = home.find(text(matches, "machine").unwrap_or_default())?;
    match text(matches, "part") {
        Some("stay") => keeper::run(&home, &machine, false),
        Some("create") => starter::start(&home, &machine),
        Some("ask") => starter::ask(&home, &machine),
        Some("clean") => starter::clean(&home, &machine),
        Some("after") => keeper::after_unit(&home, &machine).map(|()| 0),
        _ => Err(Error::invalid("keeper: no such part")),
    }
}
