//! `import`: a machine of an archive.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches};
use locule_machines::copies;
use locule_runtime::Result;
use locule_runtime::error::Context;

use super::home;
use super::progress::Line;
use crate::args::Globals;
use crate::cli::{Verb, path_parser, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "import",
    about: "Make a machine of an archive",
    usage: "<file> [name]",
    details: "Reads what locule export wrote, holds every byte against its digest, and makes the machine, which gets \
user ids of this host. An archive that is damaged, cut off or not a machine's makes nothing. The definition comes as it \
is, with addresses and published ports. The image goes into the store under its name, unless that is taken.\n\nPrints \
the machine's name. An image is read by locule image import.",
    examples: &[("From a backup, beside the first", "locule import /backup/web1.tar.zst web1-old")],
    arguments: |command| {
        command.args([
            Arg::new("file")
                .value_name("file")
                .required(true)
                .value_parser(path_parser())
                .help("The archive; - is standard input"),
            Arg::new("name").value_name("name").help("Name of the machine (default: as it was)"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let new = text(matches, "name");
    let mut line = Line::new(format!("importing {}", new.unwrap_or("a machine")));
    let name = if path == Path::new("-") {
        copies::import(&home, std::io::stdin(), new, &mut line)?
    } else {
        let file = File::open(&path).doing(|| format!("opening {}", path.display()))?;
        copies::import(&home, file, new, &mut line)
            .map_err(|err| err.context(format!("importing {}", path.display())))?
    };
    drop(line);
    out.write(&format!("{name}\n"))?;
    Ok(0)
}
