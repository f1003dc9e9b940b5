//! `image mount`: an image as a root file system.

use std::path::PathBuf;

use clap::{Arg, ArgMatches};
use locule_images::rootfs::{Map, Rootfs};
use locule_runtime::{Error, Result};

use super::{image, images, store, told};
use crate::args::{Globals, absolute};
use crate::cli::{Verb, option, path_parser, switch, text};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image mount",
    about: "Mount an image as a root file system",
    usage: "[options] <image> <directory>",
    details: "Mounts the image's shared layers on the directory, with an own upper directory for what is written. The \
layers themselves never change. With --map they are idmapped for a user namespace, so that no file changes its owner. \
The image \"host\" is this machine's own system.\n\nThe layers stay in the store until image umount. A user without \
privileges mounts within image unshare.",
    examples: &[
        (
            "This machine's own system, in a container",
            "mkdir -p box/rootfs\nlocule image mount host box/rootfs\nlocule spec --bundle box && locule run --bundle box box1\nlocule image umount box/rootfs",
        ),
        ("For a user namespace", "locule image mount --map 100000:65536 debian:13 box/rootfs"),
    ],
    arguments: |command| {
        command.args([
            images(),
            option("map", "FIRST:COUNT", "Ids on the host that the image's ids from 0 on become"),
            switch("read-only", "Mount without an upper directory"),
            state(),
            image(),
            directory(),
        ])
    },
    run,
    ..Verb::BASE
};

/// `--state`.
pub fn state() -> Arg {
    option("state", "DIR", "Where what is written is kept (default: in the store)")
        .value_parser(path_parser())
}

/// The directory to mount on.
pub fn directory() -> Arg {
    Arg::new("directory")
        .value_name("directory")
        .required(true)
        .value_parser(path_parser())
        .help("Where it is mounted")
}

/// The directory, resolved, so that mount and umount find the same state.
pub fn target(matches: &ArgMatches) -> Result<PathBuf> {
    let given = matches.get_one::<PathBuf>("directory").cloned().unwrap_or_default();
    given.canonicalize().map_err(|err| Error::invalid(format!("the directory {}: {err}", given.display())))
}

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::invalid(
            "mounting needs root, or namespaces of your own: run it in locule image unshare",
        ));
    }
    let store = store(matches)?;
    let target = target(matches)?;
    let rootfs = Rootfs {
        image: text(matches, "image").unwrap_or_default().to_owned(),
        state: match matches.get_one::<PathBuf>("state") {
            Some(state) => absolute(state)?,
            None => Rootfs::default_state(&store, &target),
        },
        map: text(matches, "map").map(Map::parse).transpose().map_err(told)?,
        read_only: matches.get_flag("read-only"),
        inside: false,
    };
    rootfs.mount(&store, &target).map_err(told)?;
    Ok(0)
}
