//! `image build`: images from a distribution's packages.

use clap::{Arg, ArgAction, ArgMatches};
use locule_images::build::{Build, check_packages, work_dir};
use locule_images::compress::Compression;
use locule_images::import::Import;
use locule_images::manifest::Platform;
use locule_images::unpack::Options;
use locule_runtime::Result;

use super::{images, store, told};
use crate::args::Globals;
use crate::cli::{Verb, option, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image build",
    about: "Build an image from a distribution's packages",
    usage: "[options] <distribution:release>",
    details: "Builds debian:13 and its like with mmdebstrap, from the mirror that apt on this machine uses. The image \
has an init and boots as a machine, unless --minimal is given. Its name is localhost/ and what was asked for.",
    examples: &[("A Debian to boot", "locule image build debian:13")],
    arguments: |command| {
        command.args([
            images(),
            option("include", "PACKAGES", "More packages, separated by commas").action(ArgAction::Append),
            option("mirror", "ADDRESS", "Where packages come from"),
            option("name", "NAME", "Name that the image gets"),
            switch("minimal", "Without an init"),
            Arg::new("recipe").value_name("distribution:release").required(true).help("What to build"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, out: &mut Out) -> Result<i32> {
    let mut build = Build::parse(text(matches, "recipe").unwrap_or_default()).map_err(told)?;
    build.minimal = matches.get_flag("minimal");
    build.mirror = text(matches, "mirror").map(str::to_owned);
    let include = matches.get_many::<String>("include").unwrap_or_default();
    build.packages = include.flat_map(|list| list.split(',')).map(str::to_owned).collect();
    check_packages(&build.packages).map_err(told)?;
    let name = format!("localhost/{}:{}", build.distribution, build.release);
    let options = Options::here();
    let import = Import {
        name: Some(text(matches, "name").unwrap_or(&name).parse().map_err(told)?),
        platform: Platform::here(),
        compression: Compression::Gzip,
        options: &options,
    };
    let store = store(matches)?;
    let dir = work_dir().map_err(told)?;
    let built = build.run(&dir).and_then(|tarball| import.path(&store, &tarball));
    let _ = std::fs::remove_dir_all(&dir);
    for record in built.map_err(told)? {
        out.write(&format!("{}\n", record.reference))?;
    }
    Ok(0)
}
