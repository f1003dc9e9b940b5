//! `image umount`: the end of a root file system.

use std::path::PathBuf;

use clap::ArgMatches;
use locule_images::rootfs::{self, Rootfs};
use locule_runtime::Result;

use super::mount::{directory, state, target};
use super::{images, store, told};
use crate::args::{Globals, absolute};
use crate::cli::{Verb, switch};
use crate::out::Out;

/// The declaration.
pub const VERB: Verb = Verb {
    name: "image umount",
    about: "Unmount an image",
    usage: "[options] <directory>",
    details: "Unmounts what image mount mounted and removes what was written, unless --keep is given: \
the next image mount on the same directory then finds it again.",
    arguments: |command| {
        command.args([images(), switch("keep", "Keep what was written"), state(), directory()])
    },
    run,
    ..Verb::BASE
};

fn run(_globals: &Globals, matches: &ArgMatches, _out: &mut Out) -> Result<i32> {
    let store = store(matches)?;
    let target = target(matches)?;
    let state = match matches.get_one::<PathBuf>("state") {
        Some(state) => absolute(state)?,
        None => Rootfs::default_state(&store, &target),
    };
    rootfs::umount(&store, &target, &state, matches.get_flag("keep")).map_err(told)?;
    Ok(0)
}
