//! `check`: whether a bundle can run on this kernel, without touching anything.
//!
//! Owns how findings are told. Never makes or changes anything.

use clap::{Arg, ArgMatches};
use locule_runtime::{Error, Result};

use crate::args::{Globals, absolute};
use crate::cli::{Verb, path_parser};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "check",
    about: "Check a bundle against this kernel and touch nothing",
    usage: "[bundle]",
    details: "Reads config.json and plans the container. Prints one line for each reason to refuse it and for \
each warning; what is refused here would be refused by create. Exits with 0 when the container can be made, \
else with 1.",
    examples: &[("Check the bundle in /srv/web", "locule check /srv/web")],
    arguments: |command| {
        command.arg(Arg::new("bundle").default_value(".").value_parser(path_parser()).help("The bundle"))
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let bundle = matches.get_one::<std::path::PathBuf>("bundle").cloned().unwrap_or_else(|| ".".into());
    let findings = locule_runtime::check(&absolute(bundle.clone())?)?;
    let mut text = String::new();
    for refusal in &findings.refusals {
        text.push_str(&format!("refused: {refusal}\n"));
    }
    for warning in &findings.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    out.write(&text)?;
    match findings.refusals.len() {
        0 => Ok(0),
        count => Err(Error::invalid(format!("checking {}: {count} reasons to refuse it", bundle.display()))),
    }
}
