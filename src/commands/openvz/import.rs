//! `openvz import`: a machine from the configuration of an OpenVZ container.
//!
//! Owns the report's table.

use clap::{Arg, ArgMatches};
use locule_machines::definition::FILE;
use locule_machines::openvz::{self, Imported};
use locule_machines::{Definition, life};
use locule_runtime::error::Context;
use locule_runtime::{Error, Result};
use serde_json::json;

use crate::args::Globals;
use crate::cli::{Verb, option, path, path_parser, switch, text};
use crate::commands::image::{format, table};
use crate::commands::machine::home;
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "openvz import",
    about: "Make a machine from an OpenVZ container's configuration",
    usage: "[options] <file> [name]",
    details: "Reads a configuration of vzctl 4 or Virtuozzo 7 (/etc/vz/conf/CTID.conf, or ve.conf beside the container's \
data; prlctl's names as well), makes a machine with the same limits, addresses and names, and reports for each line what \
became of it: mapped to keys of locule-machine.toml(5), covered by another limit, not needed, not possible and why, or \
not understood. Nothing in the file is executed.\n\n\
The machine's root file system comes from --image. Files of the old container are not read: import them as an image \
before (locule image import), or copy them into the machine afterwards. The machine is not started.\n\n\
With --dry-run nothing is made; the definition is printed behind the report.",
    examples: &[
        ("See what would become of it", "locule openvz import --dry-run /etc/vz/conf/101.conf"),
        ("Make the machine", "locule openvz import --image debian:13 /etc/vz/conf/101.conf web1"),
    ],
    arguments: |command| {
        command.args([
            Arg::new("file")
                .value_name("file")
                .required(true)
                .value_parser(path_parser())
                .help("The configuration"),
            Arg::new("name")
                .value_name("name")
                .help("Name of the machine; by default the NAME of the configuration"),
            option("image", "IMAGE", "The image of its root file system, or host").default_value("host"),
            switch("dry-run", "Make nothing; print the definition as well"),
            format(),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let file = path(matches, "file")?.unwrap_or_default();
    let doing = || format!("reading {}", file.display());
    // Old files may be in any encoding; what matters is ASCII.
    let conf = String::from_utf8_lossy(&std::fs::read(&file).doing(doing)?).into_owned();
    let image = text(matches, "image").unwrap_or("host");
    let imported =
        openvz::import(&conf, image, openvz::host_memory()?).map_err(|err| err.context(doing()))?;
    let dry = matches.get_flag("dry-run");
    if !dry {
        let name = text(matches, "name").or(imported.name.as_deref()).ok_or_else(|| {
            Error::invalid(format!("{}: it has no NAME that a machine can have", doing()))
                .hint("give one behind the file")
        })?;
        let home = home(globals)?;
        let definition = Definition::parse(&imported.document, std::path::Path::new(FILE))?;
        life::create(&home, name, &definition, &imported.document)?;
    }
    report(matches, out, &imported, dry)
}

fn report(matches: &ArgMatches, out: &mut Out, imported: &Imported, dry: bool) -> Result<i32> {
    if text(matches, "format") == Some("json") {
        out.json(
            &json!({ "report": imported.report, "definition": imported.document, "name": imported.name }),
        )?;
        return Ok(0);
    }
    let mut rows = vec![["NAME", "VALUE", "OUTCOME", "HERE"].map(String::from)];
    rows.extend(
        imported.report.iter().map(|row| {
            [row.name.clone(), row.value.clone(), row.outcome.word().to_owned(), row.note.clone()]
        }),
    );
    out.write(&table(&rows))?;
    if dry {
        out.write(&format!("\n{}", imported.document))?;
    }
    Ok(0)
}
