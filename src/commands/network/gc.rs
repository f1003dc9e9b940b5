//! `network gc`: what no living container owns, removed.
//!
//! Owns the form of the answer.

use clap::ArgMatches;
use locule_runtime::{Error, Kind, Result};
use serde_json::json;

use super::{format, lift, open, places};
use crate::args::Globals;
use crate::cli::{Verb, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "network gc",
    about: "Remove what no living container owns",
    usage: "[options]",
    details: "Removes claims, interfaces, names and elements of locule's tables that belong to no living container, also \
what a killed call left half done; and makes locule's tables anew if somebody removed them, as nft flush ruleset does. \
What is not locule's is never touched.",
    examples: &[("After a crash, or at boot", "locule network gc")],
    arguments: |command| command.args(places()).args([format()]),
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let done = open(matches)?.gc().map_err(lift)?;
    if text(matches, "format") == Some("json") {
        out.json(&json!({
            "containers": done.containers,
            "interfaces": done.interfaces,
            "claims": done.claims,
            "elements": done.elements,
            "restored": done.restored,
            "failed": done.failed,
        }))?;
    } else {
        let mut text = String::new();
        for (what, names) in
            [("container", &done.containers), ("interface", &done.interfaces), ("claim", &done.claims)]
        {
            for name in names {
                text.push_str(&format!("{what} {name}\n"));
            }
        }
        for (what, count) in [("removed", done.elements), ("restored", done.restored)] {
            if count > 0 {
                text.push_str(&format!("{what} elements of rules: {count}\n"));
            }
        }
        out.write(&text)?;
    }
    match done.failed.as_slice() {
        [] => Ok(0),
        failed => Err(Error::new(Kind::System, format!("collecting: {}", failed.join("; ")))),
    }
}
