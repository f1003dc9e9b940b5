//! `image push`: images to a registry.

use clap::{Arg, ArgMatches};
use locule_images::Reference;
use locule_images::registry::config::Registries;
use locule_images::registry::push::Push;
use locule_runtime::Result;

use super::progress::Bar;
use super::pull::{auth_file, client, timeout, tries};
use super::{image, images, store, told};
use crate::args::Globals;
use crate::cli::{Verb, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image push",
    about: "Send an image to a registry",
    usage: "[options] <image> [name]",
    details: "Sends what the registry lacks, then the manifest. Without a second name, the image's own name says where. \
Configuration and credentials are those of image pull.",
    examples: &[("To one's own registry", "locule image push debian:13 registry.example/base:13")],
    arguments: |command| {
        command.args([
            images(),
            auth_file(),
            timeout(),
            tries(),
            switch("quiet", "Draw no progress bar").short('q'),
            image(),
            Arg::new("name").value_name("name").help("The name that it gets there"),
        ])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let store = store(matches)?;
    let image = store.find(text(matches, "image").unwrap_or_default()).map_err(told)?;
    let name = text(matches, "name").unwrap_or(&image.record.reference);
    let reference: Reference = name.parse().map_err(told)?;
    let push = Push {
        image: &image,
        reference: &reference,
        registries: &Registries::of_system().map_err(told)?,
        client: &client(matches),
        progress: &Bar::new(matches.get_flag("quiet")),
    };
    push.run(&store).map_err(told)?;
    Ok(0)
}
