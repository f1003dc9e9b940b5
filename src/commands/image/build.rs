//! `image build`: images from a distribution's packages.

use std::io::{IsTerminal, Write};

use clap::{Arg, ArgAction, ArgMatches};
use locule_images::build::{Build, check_packages};
use locule_images::compress::Compression;
use locule_images::import::Import;
use locule_images::manifest::Platform;
use locule_images::unpack::Options;
use locule_runtime::Result;

use super::{files, images, told};
use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image build",
    about: "Build an image from a distribution's packages",
    usage: "[options] <distribution:release>",
    details: "Builds debian:11 to debian:13, debian:sid, ubuntu:22.04 to ubuntu:26.04, also by the release's own name, \
with mmdebstrap: from where apt on this machine has its packages, with updates and security where it has these. The \
image boots as a machine: it has systemd, dbus, a login, ps and ip, unless --minimal is given. Its machine-id is empty, \
and it has no host keys of ssh, no host name and no apt caches. Its name is localhost/ and what was asked for.",
    examples: &[
        ("A Debian to boot", "locule image build debian:13"),
        (
            "A small one with ssh",
            "locule image build --slim --include openssh-server --name small:1 debian:13",
        ),
    ],
    arguments: |command| {
        command.args([
            images(),
            option("include", "PACKAGES", "More packages, separated by commas").action(ArgAction::Append),
            option("mirror", "ADDRESS", "Where packages come from"),
            option("name", "NAME", "Name that the image gets"),
            switch("minimal", "Without an init"),
            switch("slim", "Without documentation, manual pages and translations"),
            switch("quiet", "Do not tell how far it is").short('q'),
            Arg::new("recipe").value_name("distribution:release").required(true).help("What to build"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let mut build = Build::parse(text(matches, "recipe").unwrap_or_default()).map_err(told)?;
    build.minimal = matches.get_flag("minimal");
    build.slim = matches.get_flag("slim");
    build.mirror = text(matches, "mirror").map(str::to_owned);
    let include = matches.get_many::<String>("include").unwrap_or_default();
    build.packages = include.flat_map(|list| list.split(',')).map(str::to_owned).collect();
    check_packages(&build.packages).map_err(told)?;
    let name = format!("localhost/{}:{}", build.distribution, build.release);
    let store = files(matches)?;
    let options = Options::here();
    let import = Import {
        name: Some(text(matches, "name").unwrap_or(&name).parse().map_err(told)?),
        platform: Platform::here(),
        compression: Compression::Gzip,
        options: &options,
    };
    let shown = !matches.get_flag("quiet") && std::io::stderr().is_terminal();
    let mut tell = |line: &str| {
        // Steps alone: what apt and dpkg say of each package is too much.
        if shown && let Some(step) = line.strip_prefix("I: ") {
            let _ = writeln!(std::io::stderr(), "{step}");
        }
    };
    let built = build.run(&store, &mut tell).map_err(told)?;
    let records = import.path(&store, &built.tarball()).map_err(told)?;
    for record in records {
        out.write(&format!("{}\n", record.reference))?;
    }
    Ok(0)
}
