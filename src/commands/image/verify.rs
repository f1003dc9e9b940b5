//! `image verify`: the store held against its own digests.

use clap::ArgMatches;
use locule_runtime::Result;

use super::{files, format, images, told};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image verify",
    about: "Check the store for damage",
    usage: "[options]",
    details: "Reads all content and compares it with its digests, checks that every image is complete, and compares \
the regular files of unpacked layers with their archives. Ends with 1 if anything is wrong. Changes nothing.",
    arguments: |command| command.args([images(), format().short('f')]),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let problems = files(matches)?.verify().map_err(told)?;
    if text(matches, "format") == Some("json") {
        out.json(&problems)?;
    } else {
        out.write(
            &problems
                .iter()
                .map(|problem| format!("{}: {}\n", problem.what, problem.why))
                .collect::<String>(),
        )?;
    }
    Ok(i32::from(!problems.is_empty()))
}
