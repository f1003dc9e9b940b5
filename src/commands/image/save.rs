//! `image save`: images as an archive.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches};
use locule_images::export::{Archive, save};
use locule_runtime::error::Context;
use locule_runtime::{Error, Result};

use super::{images, store, told};
use crate::args::Globals;
use crate::cli::{Verb, option, path_parser, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image save",
    about: "Write images to an archive",
    usage: "[options] <image>...",
    details: "Writes an archive that docker load, podman load, skopeo, ctr image import and locule image import read. \
Digests stay as they are.",
    examples: &[("To another host", "locule image save debian:13 | ssh other locule image import -")],
    arguments: |command| {
        command.args([
            images(),
            option("format", "FORMAT", "Who reads it: docker (and all others), or oci alone")
                .short('f')
                .value_parser(["docker", "oci"])
                .default_value("docker"),
            option("output", "FILE", "The archive (default: standard output)")
                .short('o')
                .value_parser(path_parser()),
            Arg::new("image")
                .value_name("image")
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .help("Images to write"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let store = store(matches)?;
    let names = matches.get_many::<String>("image").unwrap_or_default();
    let images = names.map(|name| store.find(name)).collect::<Result<Vec<_>, _>>().map_err(told)?;
    let archive = if text(matches, "format") == Some("oci") { Archive::Oci } else { Archive::Docker };
    match matches.get_one::<PathBuf>("output") {
        None if std::io::stdout().is_terminal() => {
            return Err(Error::invalid("an archive is not for a terminal: name a file with --output"));
        }
        None => save(&store, &images, archive, BufWriter::with_capacity(1 << 18, std::io::stdout().lock()))
            .map_err(told)?,
        Some(path) => {
            // Under another name first: an archive that is there is whole.
            let mut part = path.clone().into_os_string();
            part.push(".part");
            let part = PathBuf::from(part);
            let doing = || format!("writing {}", path.display());
            let file = File::create(&part).doing(doing)?;
            let written = save(&store, &images, archive, BufWriter::with_capacity(1 << 18, file))
                .map_err(told)
                .and_then(|()| std::fs::rename(&part, path).doing(doing));
            if written.is_err() {
                let _ = std::fs::remove_file(&part);
            }
            written?;
        }
    }
    Ok(0)
}
