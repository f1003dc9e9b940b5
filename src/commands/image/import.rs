//! `image import`: images and root file systems from files.

use std::path::Path;

use clap::{Arg, ArgMatches};
use locule_images::compress::Compression;
use locule_images::import::Import;
use locule_images::manifest::Platform;
use locule_images::unpack::Options;
use locule_runtime::Result;

use super::{files, images, told};
use crate::args::Globals;
use crate::cli::{Verb, option, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image import",
    about: "Take an image or a root file system from a file",
    usage: "[options] <file|directory|-> [name]",
    details: "Takes an OCI image layout, an OCI archive, a Docker archive (docker save, podman save, skopeo), a tarball \
of a root file system or a directory; what it is is found by looking. A dash reads from standard input. Archives may be \
compressed by gzip or zstd.\n\nEvery digest is verified. Without a name, the names that the archive holds are taken, \
or one below localhost/ made from the file's name.",
    examples: &[
        ("What Docker saved", "docker save alpine | locule image import -"),
        ("A root file system", "locule image import rootfs.tar.zst debian:13"),
    ],
    arguments: |command| {
        command.args([
            images(),
            platform(),
            option("compression", "KIND", "How a directory is compressed")
                .value_parser(["gzip", "zstd", "none"])
                .default_value("gzip"),
            Arg::new("source")
                .value_name("file")
                .required(true)
                .help("File or directory, or - for standard input"),
            Arg::new("name").value_name("name").help("Name that the image gets"),
        ])
    },
    run,
    ..Verb::BASE
};

/// `--platform`, for what holds several.
pub fn platform() -> Arg {
    option("platform", "OS/ARCH", "Which of several platforms (default: this machine's)")
}

/// The platform that was asked for.
pub fn wanted(matches: &ArgMatches) -> Result<Platform> {
    text(matches, "platform").map_or_else(|| Ok(Platform::here()), Platform::parse).map_err(told)
}

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let store = files(matches)?;
    let options = Options::here();
    let import = Import {
        name: text(matches, "name").map(str::parse).transpose().map_err(told)?,
        platform: wanted(matches)?,
        compression: Compression::parse(text(matches, "compression").unwrap_or("gzip")).map_err(told)?,
        options: &options,
    };
    let source = text(matches, "source").unwrap_or_default();
    let records = match source {
        "-" => import.stream(&store, std::io::stdin().lock()),
        path => import.path(&store, Path::new(path)),
    };
    for record in records.map_err(told)? {
        out.write(&format!("{}\n", record.reference))?;
    }
    Ok(0)
}
