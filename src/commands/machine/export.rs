//! `export`: a whole machine as one file.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches};
use locule_machines::copies;
use locule_runtime::error::Context;
use locule_runtime::{Error, Result};

use super::progress::Line;
use super::{given, home, machine};
use crate::args::Globals;
use crate::cli::{Verb, option, path_parser, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "export",
    about: "Write a whole machine to an archive",
    usage: "[options] <machine> <file>",
    details: "The archive (tar, compressed by Zstandard) holds the definition, the disk and the image that it stands \
on, with a digest of everything at its end; locule import makes a machine of it, on this host or another. User ids are \
those of the inside, so that any range of ids will do. A machine that runs is saved as by snapshot create first; \
snapshots are not in the archive. Of a machine made from the image host, the host's own system is not in it.",
    examples: &[
        ("A backup", "locule export web1 /backup/web1.tar.zst"),
        ("To another host", "locule export web1 - | ssh other locule import - web1"),
    ],
    arguments: |command| {
        command.args([
            option("snapshot", "NAME", "Write this snapshot of it"),
            switch("no-image", "Leave the image out: where it is taken in, the image must be there"),
            machine(),
            Arg::new("file")
                .value_name("file")
                .required(true)
                .value_parser(path_parser())
                .help("The archive; - is standard output"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let home = home(globals)?;
    let name = given(matches);
    let image = !matches.get_flag("no-image");
    let path = matches.get_one::<PathBuf>("file").cloned().unwrap_or_default();
    let mut line = Line::new(format!("exporting {name}"));
    let snapshot = text(matches, "snapshot");
    if path == Path::new("-") {
        if std::io::stdout().is_terminal() {
            return Err(Error::invalid("an archive is not for a terminal: name a file"));
        }
        let out = BufWriter::with_capacity(1 << 18, std::io::stdout().lock());
        copies::export(&home, name, snapshot, image, out, &mut line)?;
        return Ok(0);
    }
    // Under another name first: an archive that is there is whole.
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let doing = || format!("writing {}", path.display());
    let file = File::create(&part).doing(doing)?;
    let kept = file.try_clone().doing(doing)?;
    let written =
        copies::export(&home, name, snapshot, image, BufWriter::with_capacity(1 << 18, file), &mut line)
            .and_then(|()| kept.sync_all().and_then(|()| std::fs::rename(&part, &path)).doing(doing));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.map(|()| 0)
}
