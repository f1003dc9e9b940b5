//! `show`: what is asked of a machine, what the kernel holds, and what waits for its next start.
//!
//! Owns the table.

use clap::ArgMatches;
use locule_machines::definition::{FILE, Profiles};
use locule_machines::set::show;
use locule_runtime::Result;
use locule_runtime::error::Context;
use serde_json::Value;

use super::{given, home, machine};
use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::commands::image::table;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "show",
    about: "Show a machine's definition and what of it is in force",
    usage: "[options] <machine>",
    details: "Shows each key of the definition with the place where it is written (the machine's own file, or a profile), \
and for a running machine what the kernel holds. NOTE says where the kernel holds something else than what is asked \
for (after set --runtime, or because another program changed it), and what the machine was started with where a change \
waits for its next start; beside vsock, where the sockets are while it runs.\n\n\
--format toml prints the definition itself, with --resolved together with everything that its profiles say. --format \
json has all of it.",
    examples: &[
        ("What is asked, and what is in force", "locule show web1"),
        ("A definition without profiles", "locule show --format toml --resolved web1"),
    ],
    arguments: |command| {
        command.args([
            machine(),
            option("format", "FORMAT", "How to print it")
                .value_parser(["table", "toml", "json"])
                .default_value("table"),
            switch("resolved", "With --format toml: what profiles say stands in it, too"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let machine = home.find(given(matches))?;
    let profiles = Profiles::default();
    match text(matches, "format") {
        Some("toml") if matches.get_flag("resolved") => {
            let mut definition = machine.definition()?;
            definition.include.clear();
            out.write(&definition.document()?)?;
        }
        Some("toml") => {
            let path = machine.dir().join(FILE);
            let text = std::fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
            out.write(&text)?;
        }
        Some("json") => out.json(&show::view(&home, &machine, &profiles)?)?,
        _ => {
            let view = show::view(&home, &machine, &profiles)?;
            let mut rows = vec![["KEY", "ASKED", "KERNEL", "FROM", "NOTE"].map(String::from)];
            for (key, shown) in &view.keys {
                let mut notes = Vec::new();
                if view.differs.contains(key) {
                    notes.push("differs".to_owned());
                }
                if let Some(running) = &shown.running {
                    notes.push(format!("runs with {}, until its next start", word(running)));
                }
                if let ("vsock", Some(place)) = (key.as_str(), &view.sockets) {
                    notes.push(format!("sockets in {}", place.display()));
                }
                rows.push([
                    key.clone(),
                    shown.asked.as_ref().map_or("-".into(), word),
                    shown.effective.as_ref().map_or("-".into(), word),
                    shown.from.clone().unwrap_or_else(|| "-".into()),
                    notes.join("; "),
                ]);
            }
            out.write(&table(&rows))?;
        }
    }
    Ok(0)
}

/// A value in one word.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".into(),
        other => other.to_string(),
    }
}
