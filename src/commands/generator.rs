//! `generator`: what systemd runs at boot, before any unit, to learn of the machines.
//!
//! Owns the words. Called as `locule-generator` by systemd, as `locule generator` by people.

use clap::{Arg, ArgMatches};
use locule_machines::generator::{TEMPLATE, plan, write};
use locule_machines::keeper::unit;
use locule_runtime::{Error, Result};

use crate::args::Globals;
use crate::cli::{Verb, path, path_parser, switch};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "generator",
    about: "Write systemd units for the machines (called by systemd)",
    usage: "[--dryrun] [directory]...",
    details: "systemd runs locule-generator, a link to locule, at boot and at systemctl daemon-reload. For every \
machine that starts with the host it links locule@NAME.service into locule.target.wants, and for every machine with \
an order it writes a drop-in with After= and Requires=. A machine whose definition cannot be read becomes a unit that \
fails with the reason.",
    examples: &[("What it would write", "locule generator --dryrun")],
    arguments: |command| {
        command.args([
            switch("dryrun", "Print what would be written"),
            Arg::new("directory").value_name("directory").num_args(0..=3).value_parser(path_parser()).help(
                "Where to write: systemd names three, for normal, early and late units; the first is used",
            ),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let template = unit::template().unwrap_or_else(|| TEMPLATE.into());
    let made = plan(&globals.home()?, &template)?;
    if matches.get_flag("dryrun") {
        let mut text = String::new();
        for (path, contents) in &made.files {
            text.push_str(&format!("# {}\n{contents}\n", path.display()));
        }
        for (path, target) in &made.links {
            text.push_str(&format!("# {} -> {}\n", path.display(), target.display()));
        }
        out.write(&text)?;
        return Ok(0);
    }
    let Some(dir) = path(matches, "directory")? else {
        return Err(Error::invalid("generator: no directory to write to: systemd gives one; see --dryrun"));
    };
    write(&made, &dir).map(|()| 0)
}
